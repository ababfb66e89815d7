// The tasks by means of the browser's own client, which runs in Node too.
import { WebSocket } from 'ws'
import { createClient } from './static/sluice-client.js'
import { run } from './tasks.mjs'

await run({
  async chat(task, report) {
    const client = createClient({ baseURL: task.base_url, apiKey: task.api_key, transport: task.transport, WebSocket: globalThis.WebSocket ?? WebSocket })
    const stop = new AbortController()
    report.deltas = []
    try {
      report.answer = await client.chat(
        { model: task.model, messages: [{ role: 'user', content: task.prompt }] },
        {
          signal: stop.signal,
          onDelta: (text) => {
            if (report.deltas.push(text) !== task.leave_after) return
            report.left_at = Date.now()
            stop.abort()
          },
        },
      )
    } finally {
      client.close()
    }
  },
})
