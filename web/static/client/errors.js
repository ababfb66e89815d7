// What can go wrong with an answer, and how the gateway tells it.

/** @typedef {import('../sluice-client.js').Answer} Answer */

/**
 * @typedef {object} ErrorDetails
 * @property {number} [status]
 * @property {string | null} [type]
 * @property {string | null} [code]
 * @property {string | null} [param]
 * @property {number} [retryAfterMs]
 * @property {string | null} [requestId]
 * @property {number} [closeCode]
 * @property {boolean} [retryable]
 * @property {unknown} [cause]
 */

/** The longest Retry-After, in ms, that is waited for; a longer one is the caller's to know. */
const patience = 10_000

/** What the gateway said of an answer that failed; the classes below are what it could not say. */
export class SluiceError extends Error {
  /**
   * @param {string} message
   * @param {ErrorDetails} [details]
   */
  constructor(message, details = {}) {
    super(message, { cause: details.cause })
    this.name = 'SluiceError'
    /** HTTP status; undefined for an error inside of a stream over SSE, which has none. */
    this.status = details.status
    this.type = details.type ?? null
    this.code = details.code ?? null
    /** The request's field at fault. */
    this.param = details.param ?? null
    this.retryAfterMs = details.retryAfterMs
    this.requestId = details.requestId ?? null
    /** Why the WebSocket was closed. */
    this.closeCode = details.closeCode
    /** Whether the same request may well succeed by and by. */
    this.retryable = details.retryable ?? ((this.status === 429 || this.status === 503) && (this.retryAfterMs ?? Infinity) <= patience)
    /** What had come of the answer; null before the first delta. @type {Answer | null} */
    this.partial = null
  }
}

/** There is no connection, or it was lost, or the answer was cut. */
export class ConnectionError extends SluiceError {
  /** @param {string} message @param {ErrorDetails} [details] */
  constructor(message, details) {
    super(message, { retryable: true, ...details })
    this.name = 'ConnectionError'
  }
}

/** The caller stopped the answer; cause is the signal's reason. */
export class AbortError extends SluiceError {
  /** @param {unknown} [cause] */
  constructor(cause) {
    super('The answer was stopped by its caller.', { cause, retryable: false })
    this.name = 'AbortError'
  }
}

/** One side sent what the other does not understand: a wrong baseURL, a proxy, or a fault. */
export class ProtocolError extends SluiceError {
  /** @param {string} message @param {ErrorDetails} [details] */
  constructor(message, details) {
    super(message, { retryable: false, ...details })
    this.name = 'ProtocolError'
  }
}

/** Carries what a hook threw past everything that retries. */
export class HookError extends Error {}

/** @param {any} told OpenAI's error object @param {string} otherwise @param {ErrorDetails} details */
export function errorFrom(told, otherwise, details) {
  const e = typeof told === 'string' ? { message: told } : (told ?? {})
  const text = (/** @type {unknown} */ v) => (v === undefined || v === null ? null : String(v))
  return new SluiceError(e.message ?? otherwise, { type: text(e.type), code: text(e.code), param: text(e.param), ...details })
}

/** @param {Response} response */
export async function errorOf(response) {
  const h = response.headers
  const body = await response.text().catch(() => '')
  let told
  try {
    told = JSON.parse(body).error
  } catch {
    // A page of a proxy: the status says all that is known.
  }
  const ms = Number(h.get('retry-after-ms') ?? NaN)
  const seconds = Number(h.get('retry-after') ?? NaN)
  const wait = Number.isFinite(ms) ? ms : seconds * 1000
  return errorFrom(told, `The gateway answered with status ${response.status}.`, {
    status: response.status,
    requestId: h.get('x-request-id'),
    ...(Number.isFinite(wait) && { retryAfterMs: wait }),
    ...(h.get('x-should-retry') === 'false' && { retryable: false }),
  })
}

/** @param {string} text @returns {any} an object */
export function parse(text) {
  let value
  try {
    value = JSON.parse(text)
  } catch {
    // told below
  }
  if (typeof value !== 'object' || value === null) throw new ProtocolError(`This is no JSON object: ${text.slice(0, 100)}`)
  return value
}
