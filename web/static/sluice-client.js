/**
 * The gateway's client for web pages, and for Node from 22 on: answers over one
 * WebSocket or over SSE, with the same interface. No dependencies, no build step.
 *
 *   const client = createClient({ apiKey: 'sk-...' })
 *   const answer = await client.chat(
 *     { model: 'demo-echo', messages: [{ role: 'user', content: 'Hello' }] },
 *     { onDelta: (text) => document.body.append(text) },
 *   )
 *
 * A promise is fulfilled by an answer that came to its true end, and by nothing
 * else. Until the first delta a lost connection is made anew and the answer asked
 * for again; after it, whatever goes wrong rejects the promise, and the error holds
 * what came until then.
 */

/**
 * @typedef {object} ClientOptions
 * @property {string} [baseURL] of the API, with /v1. Default: the server that this module came from.
 * @property {string | (() => string | Promise<string>)} [apiKey] a key, or what is asked for one each time.
 * @property {(signal: AbortSignal) => string | Promise<string>} [getTicket] gives a ticket for each new WebSocket.
 * @property {string} [ticketURL] where one is had by POST, as {"ticket": "..."}: a server of yours, or /v1/tickets.
 * @property {'websocket' | 'sse'} [transport] 'websocket' by default.
 * @property {Record<string, string>} [headers] further headers of requests over SSE.
 * @property {number} [retries] further tries of an answer that has brought no delta yet (5).
 * @property {number} [backoffMin] ms; a try waits between 0 and backoffMin * 2^tries ms (250) ...
 * @property {number} [backoffMax] ... and at most so many ms (8000).
 * @property {number} [connectTimeout] ms for a WebSocket to open (10000).
 * @property {number} [silenceTimeout] ms without a byte after which a running answer's connection is doubted (45000); 0: never.
 * @property {number} [probeTimeout] ms for the other side of a doubted WebSocket to answer (10000).
 * @property {number} [idleTimeout] ms after which a WebSocket without answers is closed (60000).
 * @property {number} [maxLanes] answers at once on one WebSocket; more open a further one (64).
 * @property {(limits: Limits) => void} [onLimits] is told what is left of the caller's quota, after an answer.
 * @property {typeof globalThis.WebSocket} [WebSocket] another implementation, such as that of the package ws.
 * @property {typeof globalThis.fetch} [fetch] another implementation.
 *
 * @typedef {object} Hooks
 * @property {(text: string, at: {index: number}) => void} [onDelta] gets each piece of the visible text. A delta is never taken back.
 * @property {(text: string, at: {index: number}) => void} [onReasoning] gets each piece of the reasoning.
 * @property {(chunk: any) => void} [onChunk] gets every chunk of the answer as the gateway sent it; those before the first content come with it.
 * @property {(at: {request_id: string, position: number}) => void} [onAccepted] hears that the gateway has the request; position 0 is running.
 * @property {AbortSignal} [signal] stops the answer, at the upstream too.
 *
 * @typedef {object} ToolCall
 * @property {string} id
 * @property {string} type
 * @property {{name: string, arguments: string}} function
 *
 * @typedef {object} Choice
 * @property {number} index
 * @property {string} content
 * @property {string} reasoning
 * @property {string} refusal
 * @property {ToolCall[]} tool_calls
 * @property {string | null} finish_reason
 *
 * @typedef {object} Answer of which the text and its like are those of choice 0.
 * @property {string} id
 * @property {string} model
 * @property {string} content
 * @property {string} reasoning
 * @property {string} refusal
 * @property {ToolCall[]} tool_calls
 * @property {string | null} finish_reason
 * @property {Choice[]} choices all of them
 * @property {{prompt_tokens: number, completion_tokens: number, total_tokens: number} | null} usage
 * @property {string | null} request_id names the answer in the gateway's log
 * @property {number | null} ttft_ms to the first content: as the gateway measured it over WebSocket, as this client did over SSE
 * @property {number | null} total_ms to the end
 *
 * @typedef {object} Limit
 * @property {number} limit
 * @property {number} remaining
 * @property {number} reset_ms
 *
 * @typedef {{requests?: Limit, tokens?: Limit}} Limits
 */

import { Collector } from './client/answer.js'
import { AbortError, HookError, SluiceError } from './client/errors.js'
import { Requests } from './client/requests.js'
import { Sockets } from './client/sockets.js'

export { AbortError, ConnectionError, ProtocolError, SluiceError } from './client/errors.js'
export { EventStreamParser } from './client/events.js'

/** Asks a gateway for answers. It may be used for any number of them at once. */
export class Client {
  #o
  #transport
  #closing = new AbortController()

  /** @param {ClientOptions} [options] */
  constructor(options = {}) {
    const { fetch: ask = globalThis.fetch, transport = 'websocket' } = options
    const ours = /^http/.test(import.meta.url) ? new URL('../v1', import.meta.url).href : ''
    const given = /** @type {ClientOptions} */ (Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)))
    /** @type {any} */
    const o = {
      apiKey: '', headers: {}, retries: 5, backoffMin: 250, backoffMax: 8000, connectTimeout: 10_000, silenceTimeout: 45_000, probeTimeout: 10_000,
      idleTimeout: 60_000, maxLanes: 64, onLimits: () => {}, WebSocket: globalThis.WebSocket,
      ...given,
      baseURL: (options.baseURL ?? ours).replace(/\/+$/, ''),
      fetch: (/** @type {Parameters<typeof fetch>} */ ...args) => ask(...args), // a browser's fetch is no method of ours
    }
    if (!/^https?:/.test(o.baseURL)) throw new TypeError('baseURL is needed: where the API of the gateway begins, such as https://gateway.example/v1.')
    if (transport !== 'websocket' && transport !== 'sse') throw new TypeError(`transport is ${transport}, and may be websocket or sse.`)
    if (transport === 'websocket' && !o.WebSocket) throw new TypeError('There is no WebSocket here: give one as the option WebSocket, or use the transport sse.')
    if (transport === 'sse' && !o.apiKey && (o.getTicket || o.ticketURL)) throw new TypeError('Tickets are for WebSockets: the transport sse needs an apiKey.')
    this.#o = /** @type {Required<ClientOptions>} */ (o)
    this.#transport = transport === 'sse' ? new Requests(this.#o) : new Sockets(this.#o)
  }

  /**
   * Asks for a chat answer.
   * @param {{model: string, messages: any[]} & Record<string, any>} request the body of POST /chat/completions
   * @param {Hooks} [hooks]
   * @returns {Promise<Answer>} rejected with a SluiceError, or with what a hook threw, which also stops the answer
   */
  chat(request, hooks) {
    return this.#ask('/chat/completions', request, hooks)
  }

  /**
   * The same for a legacy completion.
   * @param {{model: string, prompt: any} & Record<string, any>} request the body of POST /completions
   * @param {Hooks} [hooks]
   * @returns {Promise<Answer>}
   */
  complete(request, hooks) {
    return this.#ask('/completions', request, hooks)
  }

  /** Closes every connection; answers that run are rejected with an AbortError. */
  close() {
    this.#closing.abort()
    this.#transport.close()
  }

  /** @param {string} path @param {any} request @param {Hooks} [hooks] @returns {Promise<Answer>} */
  async #ask(path, request, hooks = {}) {
    const { stream: _, ...rest } = request // implied
    const body = { ...rest, stream_options: { include_usage: true, ...rest.stream_options } }
    const { retries, backoffMin, backoffMax } = this.#o
    for (let tries = 0; ; tries++) {
      for (const signal of [hooks.signal, this.#closing.signal]) if (signal?.aborted) throw new AbortError(signal.reason)
      const answer = new Collector(hooks)
      try {
        return await this.#transport.run(path, body, answer, hooks.signal)
      } catch (e) {
        if (e instanceof HookError) throw e.cause
        if (!(e instanceof SluiceError)) throw e
        if (answer.begun) e.partial = answer.partial()
        e.requestId ??= answer.requestId
        if (answer.begun || !e.retryable || tries >= retries) throw e
        const backoff = Math.random() * Math.min(backoffMax, backoffMin * 2 ** tries) // full jitter
        await pause((e.retryAfterMs ?? 0) + backoff, [hooks.signal, this.#closing.signal])
      }
    }
  }
}

/** @param {ClientOptions} [options] */
export const createClient = (options) => new Client(options)

/** @param {number} ms @param {(AbortSignal | undefined)[]} signals of which any ends the wait */
function pause(ms, signals) {
  return /** @type {Promise<void>} */ (new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer)
      for (const s of signals) s?.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    for (const s of signals) s?.addEventListener('abort', end)
  }))
}
