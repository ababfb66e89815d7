// A client of the protocol by means of the package ws. It sends what a task says and
// tells every frame that comes.
import WebSocket from 'ws'
import { run } from './tasks.mjs'

// over are the frames that end an answer.
const over = new Set(['done', 'cancelled', 'error'])

function connect(task) {
  const socket = new WebSocket(task.url, task.protocols ?? [], { headers: task.headers ?? {} })
  const opened = new Promise((resolve, reject) => {
    socket.once('open', resolve)
    socket.once('error', reject)
    socket.once('unexpected-response', (_, response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (piece) => (body += piece)).on('end', () => {
        reject(Object.assign(new Error(body), { status: response.statusCode }))
        socket.terminate()
      })
    })
  })
  return { socket, opened }
}

await run({
  async frames(task, report) {
    report.frames = []
    const { socket, opened } = connect(task)
    let left = task.until
    let chunks = 0
    socket.on('message', (data, binary) => {
      const text = data.toString()
      report.frames.push(binary ? 'binary!' : text)
      const { type, stream_id } = JSON.parse(text)
      if (type === 'chunk' && ++chunks === task.cancel_after) {
        report.left_at = Date.now()
        socket.send(JSON.stringify({ type: 'cancel', stream_id }))
      }
      if (over.has(type) && --left === 0) socket.close(1000, 'thank you')
    })
    await opened
    socket.on('error', () => {}) // the close tells of it
    const closed = new Promise((resolve) => socket.once('close', (code, reason) => resolve([code, reason.toString()])))
    report.protocol = socket.protocol
    report.extensions = socket.extensions
    if (task.ping) {
      const pong = new Promise((resolve) => socket.once('pong', (data) => resolve(data.toString())))
      socket.ping('are you there?')
      report.pong = await pong
    }
    for (const text of task.send) socket.send(text)
    for (let n = 0; n < (task.binary ?? 0); n++) socket.send(Buffer.from('{}'))
    ;[report.close_code, report.close_reason] = await closed
  },
})
