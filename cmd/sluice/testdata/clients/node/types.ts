// What TypeScript knows of the browser's client, from the comments of its modules.
import { ConnectionError, SluiceError, createClient } from './static/sluice-client.js'

const client = createClient({ apiKey: async () => 'key', transport: 'sse', onLimits: (l) => l.tokens?.remaining.toFixed() })

// @ts-expect-error: there is no such transport.
createClient({ transport: 'pigeon' })

// @ts-expect-error: a request needs messages.
client.chat({ model: 'm' })

try {
  const answer = await client.chat(
    { model: 'm', messages: [{ role: 'user', content: 'Hello' }], temperature: 0 },
    { onDelta: (text, { index }) => text.slice(index), signal: AbortSignal.timeout(1000) },
  )
  const text: string = answer.content
  const used: number | undefined = answer.usage?.completion_tokens
  const argument: string | undefined = answer.tool_calls[0]?.function.arguments
  console.log(text, used, argument)
  // @ts-expect-error: the content is text.
  const wrong: number = answer.content
  console.log(wrong)
} catch (e) {
  if (e instanceof ConnectionError) console.log(e.closeCode?.toFixed())
  else if (e instanceof SluiceError) console.log(e.status?.toFixed(), e.code, e.retryAfterMs, e.partial?.content.length)
  else throw e
}
client.close()
