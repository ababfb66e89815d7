// Answers over SSE.
import { AbortError, ConnectionError, HookError, ProtocolError, SluiceError, errorFrom, errorOf, parse } from './errors.js'
import { EventStreamParser } from './events.js'

/** @typedef {Required<import('../sluice-client.js').ClientOptions>} Options */
/** @typedef {import('../sluice-client.js').Answer} Answer */
/** @typedef {import('../sluice-client.js').Limits} Limits */
/** @typedef {import('./answer.js').Collector} Collector */

const now = () => performance.now()

/** @param {Options} o @returns {Promise<string>} "" without a key */
export const keyOf = async (o) => (typeof o.apiKey === 'function' ? await o.apiKey() : o.apiKey)

/** @param {string} key @returns {Record<string, string>} */
export const authorization = (key) => (key ? { Authorization: `Bearer ${key}` } : {})

/** Answers over SSE: a POST for each. */
export class Requests {
  #o
  #running = /** @type {Set<AbortController>} */ (new Set())

  /** @param {Options} o */
  constructor(o) {
    this.#o = o
  }

  /**
   * @param {string} path @param {any} body @param {Collector} answer @param {AbortSignal} [signal]
   * @returns {Promise<Answer>}
   */
  async run(path, body, answer, signal) {
    const text = JSON.stringify({ ...body, stream: true })
    const call = new AbortController()
    const leave = () => call.abort(new AbortError(signal?.reason))
    signal?.addEventListener('abort', leave, { once: true })
    this.#running.add(call)
    const silence = new Silence(this.#o.silenceTimeout, () => call.abort(new ConnectionError('The gateway has been silent for too long.')))
    try {
      return await this.#exchange(path, text, answer, call, silence)
    } catch (e) {
      const error = call.signal.aborted ? call.signal.reason : e
      call.abort()
      if (error instanceof SluiceError || error instanceof HookError) throw error
      throw new ConnectionError(answer.begun ? 'The connection was lost in the middle of the answer.' : 'The gateway could not be reached.', { cause: error })
    } finally {
      silence.end()
      this.#running.delete(call)
      signal?.removeEventListener('abort', leave)
    }
  }

  /** @param {string} path @param {string} body @param {Collector} answer @param {AbortController} call @param {Silence} silence */
  async #exchange(path, body, answer, call, silence) {
    const o = this.#o
    const start = now()
    const response = await o.fetch(o.baseURL + path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...authorization(await keyOf(o)), ...o.headers },
      body,
      cache: 'no-store',
      signal: call.signal,
    })
    silence.heard() // from now on: before, a browser may hold the request back until one of its six connections is free
    if (!response.ok) throw await errorOf(response)
    const type = response.headers.get('content-type') ?? ''
    if (!type.startsWith('text/event-stream') || !response.body) throw new ProtocolError(`The answer is no stream of events but ${type || 'of no type'}.`)
    answer.accept({ request_id: response.headers.get('x-request-id') ?? '', position: 0 })
    let first = /** @type {number | null} */ (null)
    await this.#read(response.body.getReader(), call, silence, (chunk) => {
      answer.add(chunk)
      if (answer.begun) first ??= now()
    })
    const limits = limitsOf(response.headers)
    if (limits) o.onLimits(limits)
    return answer.end({ ttft_ms: first === null ? null : Math.round(first - start), total_ms: Math.round(now() - start) })
  }

  /** Reads to the true end. @param {ReadableStreamDefaultReader<Uint8Array>} reader @param {AbortController} call @param {Silence} silence @param {(chunk: any) => void} take */
  async #read(reader, call, silence, take) {
    const parser = new EventStreamParser()
    for (;;) {
      const { value, done } = await reader.read()
      if (done) throw new ConnectionError('The answer was cut: its stream ended without [DONE].')
      silence.heard()
      for (const { data } of parser.push(value)) {
        call.signal.throwIfAborted() // a hook has stopped it: what came in the same piece is no longer wanted
        if (data === '[DONE]') {
          void exhaust(reader, call)
          return
        }
        const chunk = parse(data)
        if (chunk.error) throw errorFrom(chunk.error, 'The answer failed.', {})
        take(chunk)
      }
    }
  }

  close() {
    for (const call of this.#running) call.abort(new AbortError())
  }
}

/** Reads a body to its end, which comes at once, so that its connection can be used again. @param {ReadableStreamDefaultReader<Uint8Array>} reader @param {AbortController} call */
async function exhaust(reader, call) {
  const timer = setTimeout(() => call.abort(), 1000)
  try {
    while (!(await reader.read()).done);
  } catch {
    // The answer is complete; how the body ends is of no interest.
  } finally {
    clearTimeout(timer)
  }
}

/** Acts when nothing more has been heard for some time. */
class Silence {
  #last = 0
  #limit
  #act
  #timer = /** @type {any} */ (undefined)

  /** @param {number} limit in ms; 0 is none @param {() => void} act */
  constructor(limit, act) {
    this.#limit = limit
    this.#act = act
  }

  /** Costs no timer but the first time: it is called for every piece. */
  heard() {
    this.#last = now()
    if (!this.#timer && this.#limit > 0) this.#wait(this.#limit)
  }

  end() {
    clearTimeout(this.#timer)
  }

  /** @param {number} ms */
  #wait(ms) {
    this.#timer = setTimeout(() => {
      const left = this.#last + this.#limit - now()
      if (left > 0) this.#wait(left)
      else this.#act()
    }, ms)
  }
}

/** @param {Headers} h @returns {Limits | null} the same as a limits frame says */
export function limitsOf(h) {
  /** @type {Limits} */
  const limits = {}
  for (const kind of /** @type {const} */ (['requests', 'tokens'])) {
    const limit = h.get(`x-ratelimit-limit-${kind}`)
    if (limit === null) continue
    let reset = 0
    for (const [, n, unit] of (h.get(`x-ratelimit-reset-${kind}`) ?? '').matchAll(/([\d.]+)(ms|s|m|h)/g)) {
      reset += Number(n) * { ms: 1, s: 1e3, m: 6e4, h: 36e5 }[/** @type {'ms' | 's' | 'm' | 'h'} */ (unit)]
    }
    limits[kind] = { limit: Number(limit), remaining: Number(h.get(`x-ratelimit-remaining-${kind}`)), reset_ms: Math.round(reset) }
  }
  return limits.requests || limits.tokens ? limits : null
}
