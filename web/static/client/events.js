// Server-sent events.
import { ProtocolError } from './errors.js'

/** The longest line of a stream, in UTF-16 units: twice the largest event of the gateway. */
const maxLine = 32 << 20

/**
 * Reads server-sent events by the rules of the HTML standard: lines end with LF, CR
 * or CRLF, also across pieces; a first byte order mark and comments are skipped;
 * several data lines are one payload; an event that no blank line ends does not count.
 */
export class EventStreamParser {
  #text = new TextDecoder()
  #line = '' // begun; only new pieces are searched, so that a giant line costs no more than its length
  #afterCR = false
  #data = /** @type {string[]} */ ([])
  #name = ''

  /**
   * @param {Uint8Array} bytes the next piece, cut anywhere
   * @returns {{event: string, data: string}[]} the events that it completes
   */
  push(bytes) {
    /** @type {{event: string, data: string}[]} */
    const events = []
    const text = this.#text.decode(bytes, { stream: true })
    if (text === '') return events
    let start = this.#afterCR && text[0] === '\n' ? 1 : 0
    this.#afterCR = false
    const end = /[\r\n]/g
    end.lastIndex = start
    for (let at = end.exec(text); at; at = end.exec(text)) {
      this.#take(this.#line + text.slice(start, at.index), events)
      this.#line = ''
      start = at.index + 1
      if (at[0] === '\r') {
        if (start === text.length) this.#afterCR = true
        else if (text[start] === '\n') start++
      }
      end.lastIndex = start
    }
    this.#line += text.slice(start)
    if (this.#line.length > maxLine) throw new ProtocolError(`A line of the stream is longer than ${maxLine >> 20} MiB.`)
    return events
  }

  /** @param {string} line @param {{event: string, data: string}[]} events */
  #take(line, events) {
    if (line === '') {
      if (this.#data.length > 0) events.push({ event: this.#name || 'message', data: this.#data.join('\n') })
      this.#data = []
      this.#name = ''
      return
    }
    const colon = line.indexOf(':')
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
    if (field === 'data') this.#data.push(value)
    else if (field === 'event') this.#name = value
  }
}
