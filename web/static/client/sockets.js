// Answers over WebSocket.
import { AbortError, ConnectionError, ProtocolError, SluiceError, errorFrom, errorOf, parse } from './errors.js'
import { authorization, keyOf } from './requests.js'

/** @typedef {Required<import('../sluice-client.js').ClientOptions>} Options */
/** @typedef {import('../sluice-client.js').Answer} Answer */
/** @typedef {import('./answer.js').Collector} Collector */

const now = () => performance.now()

/** Answers over WebSocket: many at once on one connection for each path. */
export class Sockets {
  #o
  #all = /** @type {Set<Connection>} */ (new Set())

  /** @param {Options} o */
  constructor(o) {
    this.#o = o
  }

  /**
   * @param {string} path @param {any} body @param {Collector} answer @param {AbortSignal} [signal]
   * @returns {Promise<Answer>}
   */
  run(path, body, answer, signal) {
    for (const c of this.#all) if (c.path === path && c.takes) return c.run(body, answer, signal)
    const c = new Connection(this.#o, path, () => this.#all.delete(c))
    this.#all.add(c)
    return c.run(body, answer, signal)
  }

  close() {
    for (const c of this.#all) c.close()
  }
}

/**
 * @typedef {object} Lane one answer on a connection, under its stream_id until its last frame
 * @property {Collector} answer
 * @property {boolean} accepted
 * @property {boolean} over the caller has been told
 * @property {(answer: Answer) => void} resolve
 * @property {(error: unknown) => void} reject
 */

/** The close codes by which the gateway names a fault in what it was sent. */
const faults = [1002, 1003, 1007, 1008, 1009]

/** One WebSocket. */
class Connection {
  path
  #o
  #forget
  #socket = /** @type {WebSocket | null} */ (null)
  #ready
  #attempt = new AbortController() // of opening it
  #lost = false
  #leaving = false // no new answers: the gateway is going away
  #lanes = /** @type {Map<string, Lane>} */ (new Map()) // in the order in which they were sent
  #fault = /** @type {SluiceError | null} */ (null) // told without a stream_id
  #next = 0
  #capacity
  #heard = 0
  #probed = 0 // when the other side was asked for a sign of life; 0: it has answered
  #unsent = 0 // bytes that the network had not taken when last looked at
  #watcher = /** @type {any} */ (undefined)
  #idle = /** @type {any} */ (undefined)

  /** @param {Options} o @param {string} path @param {() => void} forget */
  constructor(o, path, forget) {
    this.#o = o
    this.path = path
    this.#forget = forget
    this.#capacity = o.maxLanes
    this.#ready = this.#open()
    this.#ready.catch((e) => this.#lose(() => e))
  }

  /** Whether one more answer may begin here. */
  get takes() {
    return !this.#lost && !this.#leaving && this.#lanes.size < this.#capacity
  }

  /** @param {any} body @param {Collector} answer @param {AbortSignal} [signal] @returns {Promise<Answer>} */
  async run(body, answer, signal) {
    const id = String(this.#next++) // never used again, so that a late frame cannot be taken for another answer's
    const create = JSON.stringify({ type: 'create', stream_id: id, request: body })
    clearTimeout(this.#idle)
    return new Promise((resolve, reject) => {
      let sent = false
      const leave = () => {
        if (sent) this.#send({ type: 'cancel', stream_id: id }) // and the lane stays until its last frame
        else this.#free(id)
        lane.reject(new AbortError(signal?.reason))
      }
      const end = () => {
        lane.over = true
        signal?.removeEventListener('abort', leave)
      }
      /** @type {Lane} */
      const lane = {
        answer, accepted: false, over: false,
        resolve: (a) => (end(), resolve(a)),
        reject: (e) => (end(), reject(e)),
      }
      this.#lanes.set(id, lane)
      signal?.addEventListener('abort', leave, { once: true })
      this.#ready.then(() => {
        if (lane.over) return
        sent = true
        this.#socket?.send(create)
        this.#unsent = this.#socket?.bufferedAmount ?? 0
        if (!this.#watcher) this.#watch()
      }, () => {}) // lose has told
    })
  }

  /** Ends it; answers that run are stopped. */
  close() {
    this.#lose(() => new AbortError())
  }

  async #open() {
    const o = this.#o
    const { signal } = this.#attempt
    const timer = setTimeout(() => this.#attempt.abort(), o.connectTimeout)
    try {
      const key = await keyOf(o)
      const credential = await this.#credential(key)
      if (signal.aborted) throw new ConnectionError('The gateway could not be reached in time.')
      const socket = new o.WebSocket(o.baseURL.replace(/^http/, 'ws') + this.path, credential ? ['sluice.v1', credential] : ['sluice.v1'])
      this.#socket = socket
      if (!(await this.#opened(socket, signal))) throw await this.#whyRefused(key)
      globalThis.addEventListener?.('online', this.#probe)
    } catch (e) {
      if (e instanceof SluiceError) throw e
      throw new ConnectionError('The gateway could not be reached.', { cause: e })
    } finally {
      clearTimeout(timer)
    }
  }

  /** @param {WebSocket} socket @param {AbortSignal} signal @returns {Promise<boolean>} */
  #opened(socket, signal) {
    return new Promise((resolve) => {
      let open = false
      signal.addEventListener('abort', () => resolve(false), { once: true })
      socket.onopen = () => {
        open = true
        this.#heard = now()
        resolve(true)
      }
      socket.onmessage = (event) => this.#receive(event.data)
      socket.onclose = (event) => (open ? this.#closed(event) : resolve(false))
      socket.onerror = () => {} // onclose follows
    })
  }

  /** @param {string} key @returns {Promise<string>} the subprotocol that says who is calling */
  async #credential(key) {
    const o = this.#o
    const { signal } = this.#attempt
    if (o.getTicket) return 'sluice-ticket.' + (await o.getTicket(signal))
    // A key with other characters than those of a token cannot be a subprotocol.
    if (!o.ticketURL && /^[\w!#$%&'*+.^`|~-]*$/.test(key)) return key && 'openai-insecure-api-key.' + key
    const url = new URL(o.ticketURL || o.baseURL + '/tickets', globalThis.location?.href ?? o.baseURL)
    const ours = url.origin === new URL(o.baseURL).origin // nobody else gets the key
    const response = await o.fetch(url, { method: 'POST', headers: ours ? authorization(key) : {}, cache: 'no-store', signal })
    if (!response.ok) throw await errorOf(response)
    const { ticket } = parse(await response.text())
    if (typeof ticket !== 'string') throw new ProtocolError('There is no ticket in what was answered for one.')
    return 'sluice-ticket.' + ticket
  }

  /**
   * Browsers keep to themselves why a handshake was refused: whether it was for the
   * key is told by asking for a ticket.
   * @param {string} key @returns {Promise<SluiceError>}
   */
  async #whyRefused(key) {
    const { signal } = this.#attempt
    const unknown = new ConnectionError("The gateway did not open the WebSocket. If it is there, websocket.origins may lack this page's origin, or a proxy may not pass the upgrade on.")
    if (signal.aborted || !key) return unknown
    try {
      const response = await this.#o.fetch(this.#o.baseURL + '/tickets', { method: 'POST', headers: authorization(key), cache: 'no-store', signal })
      return [401, 403, 429, 503].includes(response.status) ? await errorOf(response) : unknown
    } catch (cause) {
      return new ConnectionError('The gateway could not be reached.', { cause })
    }
  }

  /** @param {any} data */
  #receive(data) {
    this.#heard = now()
    this.#probed = 0
    let frame
    try {
      frame = parse(data)
    } catch (e) {
      this.#lose(() => e)
      return
    }
    if (frame.type === 'going_away') {
      this.#leaving = true
      if (this.#lanes.size === 0) this.close()
    } else if (frame.type === 'limits') {
      this.#o.onLimits({ requests: frame.requests, tokens: frame.tokens })
    } else if (frame.type === 'error' && frame.stream_id === undefined) {
      this.#fault = this.#failure(frame)
    } else {
      this.#take(frame)
    }
  }

  /** @param {any} frame of a lane */
  #take(frame) {
    const id = frame.stream_id
    const lane = this.#lanes.get(id)
    if (!lane) return // the answer to a probe
    const last = frame.type === 'done' || frame.type === 'cancelled' || frame.type === 'error'
    if (last) this.#free(id)
    if (lane.over) return
    const { answer } = lane
    try {
      if (frame.type === 'accepted') {
        lane.accepted = true
        answer.accept(frame)
      } else if (frame.type === 'chunk') answer.add(frame.data)
      else if (frame.type === 'done') lane.resolve(answer.end(frame))
      else if (frame.type === 'cancelled') lane.reject(new AbortError())
      else if (frame.type === 'error') lane.reject(this.#failure(frame))
    } catch (e) {
      if (!last) this.#send({ type: 'cancel', stream_id: id })
      lane.reject(e)
    }
  }

  /** @param {any} frame of type error */
  #failure({ error, status, retry_after_ms: retryAfterMs, request_id: requestId }) {
    if (error?.code !== 'websocket_stream_limit_reached') return errorFrom(error, 'The answer failed.', { status, retryAfterMs, requestId })
    this.#capacity = Math.max(1, this.#lanes.size) // and there is room on another connection
    return errorFrom(error, '', { status, requestId, retryable: true })
  }

  /** @param {object} frame */
  #send(frame) {
    if (!this.#lost) this.#socket?.send(JSON.stringify(frame))
  }

  /** @param {string} id */
  #free(id) {
    this.#lanes.delete(id)
    if (this.#lanes.size > 0 || this.#lost) return
    clearTimeout(this.#watcher)
    this.#watcher = undefined
    if (this.#leaving) {
      this.close()
      return
    }
    this.#idle = setTimeout(() => this.close(), this.#o.idleTimeout)
    this.#idle.unref?.() // in Node no process stays for it
  }

  /** Doubts the connection when it is silent: pages cannot see the pings of the protocol. */
  #watch() {
    clearTimeout(this.#watcher)
    this.#watcher = undefined
    if (this.#lost || this.#lanes.size === 0 || this.#o.silenceTimeout === 0) return
    const unsent = this.#socket?.bufferedAmount ?? 0
    if (unsent < this.#unsent) { // a long request is on its way, and the probe behind it
      this.#heard = now()
      this.#probed &&= now()
    }
    this.#unsent = unsent
    const left = (this.#probed ? this.#probed + this.#o.probeTimeout : this.#heard + this.#o.silenceTimeout) - now()
    if (left > 0) this.#watcher = setTimeout(() => this.#watch(), left)
    else if (this.#probed) this.#lose((lane) => new ConnectionError(cut(lane, 'The gateway no longer answers')))
    else this.#probe()
  }

  /** Asks for a sign of life: to stop what does not run is answered, and changes nothing. */
  #probe = () => {
    if (this.#lost || this.#probed || this.#lanes.size === 0) return
    this.#probed = now()
    this.#send({ type: 'cancel', stream_id: 'probe' })
    this.#watch()
  }

  /** @param {CloseEvent} event */
  #closed({ code, reason }) {
    const fault = code === 1006 ? null : this.#fault // 1006: nobody has closed it
    const details = { status: fault?.status, type: fault?.type, code: fault?.code, retryAfterMs: fault?.retryAfterMs, closeCode: code }
    const said = fault?.message ?? `The connection was closed with code ${code}${reason && ` (${reason})`}`
    // What was not understood is the first that was not accepted.
    const guilty = faults.includes(code) && [...this.#lanes.values()].find((lane) => !lane.accepted)
    this.#lose((lane) => (lane === guilty ? new ProtocolError(said, details) : new ConnectionError(cut(lane, said), details)))
  }

  /** @param {(lane: Lane) => unknown} why */
  #lose(why) {
    if (this.#lost) return
    this.#lost = true
    this.#forget()
    this.#attempt.abort()
    clearTimeout(this.#watcher)
    clearTimeout(this.#idle)
    globalThis.removeEventListener?.('online', this.#probe)
    if (this.#socket) {
      this.#socket.onmessage = this.#socket.onclose = null
      this.#socket.close(1000)
    }
    for (const lane of this.#lanes.values()) if (!lane.over) lane.reject(why(lane))
    this.#lanes.clear()
  }
}

/** @param {Lane} lane @param {string} said */
const cut = (lane, said) => said.replace(/\.$/, '') + (lane.answer.begun ? ' in the middle of the answer.' : '.')
