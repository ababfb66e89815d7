// What a page of the tests does with the gateway's client: answers are started and
// awaited by name, and told as plain values.
const { createClient } = await import(new URL(import.meta.url).searchParams.get('client'))

const clients = new Map()
const running = new Map()
const faults = []

addEventListener('error', (e) => faults.push(e.message))
addEventListener('unhandledrejection', (e) => faults.push(`nobody handled ${e.reason}`))

function clientFor(options) {
  const key = JSON.stringify(options)
  if (!clients.has(key)) {
    const { ticketFrom, ...rest } = options
    if (ticketFrom) rest.getTicket = async (signal) => (await fetch(ticketFrom, { method: 'POST', signal })).text()
    clients.set(key, createClient(rest))
  }
  return clients.get(key)
}

function describe(e) {
  const { name, message, status, type, code, param, retryAfterMs, requestId, closeCode, partial } = e
  return { name, message, status: status ?? 0, type, code, param, retry_after_ms: retryAfterMs ?? 0, request_id: requestId, close_code: closeCode ?? 0, partial: partial?.content ?? null }
}

// start begins an answer. leave_after: after so many deltas the caller stops it.
function start(name, { options, request, leave_after, complete = false }) {
  const stop = new AbortController()
  const report = { deltas: [], at: [], chunks: 0, accepted: [], left_at: 0, answer: null, error: null }
  let begun
  const first = new Promise((resolve) => (begun = resolve))
  const leave = () => {
    report.left_at = Date.now()
    stop.abort()
  }
  const hooks = {
    signal: stop.signal,
    onAccepted: (at) => report.accepted.push(at),
    onChunk: () => report.chunks++,
    onDelta: (text) => {
      report.at.push(Math.round(performance.now()))
      report.deltas.push(text)
      begun()
      if (report.deltas.length === leave_after) leave()
    },
  }
  const client = clientFor(options)
  const finished = (complete ? client.complete(request, hooks) : client.chat(request, hooks))
    .then((answer) => (report.answer = answer), (e) => (report.error = describe(e)))
    .then(() => report)
  running.set(name, { first: Promise.race([first, finished]).then(() => true), finished, leave })
}

globalThis.page = {
  start,
  begun: (name) => running.get(name).first,
  finished: (name) => running.get(name).finished,
  leave: (name) => running.get(name).leave(),
  faults: () => faults,
  close: () => clients.forEach((c) => c.close()),
}
