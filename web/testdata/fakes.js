// Stand-ins for what the browser has, played by the tests.

/** A chunk of a chat answer. */
export const chunk = (delta, finish = null, index = 0) => ({
  id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index, delta, finish_reason: finish }],
})

export const usage = { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 }

/** A promise with its ends in other hands. */
export function deferred() {
  let resolve, reject
  const promise = new Promise((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

/** A fetch that answers each call with the next of the given answers, and keeps the calls. */
export function fakeFetch(...answers) {
  const calls = []
  const fetch = async (url, init) => {
    calls.push({ url: String(url), ...init })
    const answer = answers.length > 1 ? answers.shift() : answers[0]
    const response = typeof answer === 'function' ? await answer(init) : answer
    if (response instanceof Error) throw response
    return response
  }
  return { fetch, calls }
}

/** An answer in JSON. */
export const json = (status, body, headers = {}) =>
  new Response(JSON.stringify(body), { status, headers: { 'Content-Type': 'application/json', ...headers } })

/** A stream of events: strings are payloads, undefined cuts the connection, a promise is waited for. */
export const events = (steps, headers = {}) => (init) => {
  const rest = steps[Symbol.iterator]()
  const body = new ReadableStream({
    start(controller) {
      init.signal.addEventListener('abort', () => controller.error(init.signal.reason))
    },
    async pull(controller) {
      let { value, done } = rest.next()
      if (value instanceof Promise) {
        await value
        ;({ value, done } = rest.next())
      }
      if (done) controller.close()
      else if (value === undefined) controller.error(new TypeError('terminated'))
      else controller.enqueue(new TextEncoder().encode(`data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`))
    },
  })
  return new Response(body, { status: 200, headers: { 'Content-Type': 'text/event-stream', 'x-request-id': 'req_1', ...headers } })
}

/** WebSockets that the test opens, feeds and closes; opened gives them in order. */
export function fakeSockets({ open = true } = {}) {
  const all = []
  const waiting = []
  class FakeWebSocket {
    constructor(url, protocols) {
      Object.assign(this, { url, protocols, sent: [], closedWith: undefined, watchers: [] })
      all.push(this)
      waiting.shift()?.(this)
      if (open) queueMicrotask(() => this.onopen?.({}))
    }
    send(text) {
      this.sent.push(JSON.parse(text))
      for (const w of this.watchers.splice(0)) w()
    }
    close(code) {
      this.closedWith ??= code
    }
    /** The peer's frame. */
    says(frame) {
      this.onmessage?.({ data: typeof frame === 'string' ? frame : JSON.stringify(frame) })
    }
    /** The end as the browser sees it. */
    ends(code, reason = '') {
      this.onclose?.({ code, reason })
    }
    /** The nth frame that was sent, from 0. */
    async frame(n) {
      while (this.sent.length <= n) await new Promise((resolve) => this.watchers.push(resolve))
      return this.sent[n]
    }
  }
  let taken = 0
  const next = async () => {
    const n = taken++
    return all[n] ?? (await new Promise((resolve) => waiting.push(resolve)))
  }
  return { WebSocket: FakeWebSocket, next, all }
}
