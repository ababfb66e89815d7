// The tasks by means of the package openai.
import OpenAI from 'openai'
import { Leaving, decode, parameters, run } from './tasks.mjs'

const connect = (task) => new OpenAI({ baseURL: task.base_url, apiKey: task.api_key, maxRetries: 0 })

const usageOf = (u) => ({ prompt: u.prompt_tokens, completion: u.completion_tokens, total: u.total_tokens })

function chatBody(task, stream) {
  const body = { model: task.model, messages: [{ role: 'user', content: task.prompt }] }
  if (task.n) body.n = task.n
  if (task.tools) body.tools = task.tools.map((name) => ({ type: 'function', function: { name, parameters, strict: true } }))
  if (stream) Object.assign(body, { stream: true, stream_options: { include_usage: true } })
  return body
}

function readWhole(report, completion) {
  for (const c of completion.choices) {
    report.text = Object.assign(report.text ?? [], { [c.index]: c.message.content ?? '' })
    report.finish = Object.assign(report.finish ?? [], { [c.index]: c.finish_reason })
    for (const t of c.message.tool_calls ?? []) {
      (report.tools ??= []).push({ id: t.id, name: t.function.name, arguments: t.function.arguments })
    }
  }
  if (completion.usage) report.usage = usageOf(completion.usage)
}

function readTool(report, delta) {
  const tools = (report.tools ??= [])
  const t = (tools[delta.index] ??= { id: '', name: '', arguments: '' })
  t.id += delta.id ?? ''
  t.name += delta.function?.name ?? ''
  t.arguments += delta.function?.arguments ?? ''
}

// readChunk returns whether the chunk holds text.
function readChunk(report, chunk) {
  let piece = false
  for (const c of chunk.choices) {
    const text = c.delta?.content ?? c.text ?? ''
    report.text ??= []
    report.text[c.index] = (report.text[c.index] ?? '') + text
    if (c.finish_reason) Object.assign((report.finish ??= []), { [c.index]: c.finish_reason })
    for (const t of c.delta?.tool_calls ?? []) readTool(report, t)
    piece ||= text !== ''
  }
  if (chunk.usage) report.usage = usageOf(chunk.usage)
  return piece
}

async function readStream(task, report, open) {
  const leaving = new Leaving(task, report)
  for await (const chunk of await open(leaving.signal)) {
    if (readChunk(report, chunk) && leaving.piece()) break
  }
}

const embeddings = async (task, report) => {
  const body = { model: task.model, input: task.input }
  if (task.encoding) body.encoding_format = task.encoding
  const answer = await connect(task).embeddings.create(body)
  report.vectors = answer.data.map((d) => (typeof d.embedding === 'string' ? decode(d.embedding) : d.embedding))
}

await run({
  async models(task, report) {
    report.models = []
    for await (const m of connect(task).models.list()) report.models.push(m.id)
  },
  async model(task, report) {
    report.models = [(await connect(task).models.retrieve(task.model)).id]
  },
  async chat(task, report) {
    const leaving = new Leaving(task, report)
    readWhole(report, await connect(task).chat.completions.create(chatBody(task), { signal: leaving.signal }))
  },
  async stream(task, report) {
    await readStream(task, report, (signal) => connect(task).chat.completions.create(chatBody(task, true), { signal }))
  },
  // The assembling helper is stricter than the plain loop.
  async assemble(task, report) {
    readWhole(report, await connect(task).chat.completions.stream(chatBody(task, true)).finalChatCompletion())
  },
  async completion(task, report) {
    const answer = await connect(task).completions.create({ model: task.model, prompt: task.prompt })
    report.text = [answer.choices[0].text]
    report.finish = [answer.choices[0].finish_reason]
    report.usage = usageOf(answer.usage)
  },
  async completion_stream(task, report) {
    const body = { model: task.model, prompt: task.prompt, stream: true, stream_options: { include_usage: true } }
    await readStream(task, report, (signal) => connect(task).completions.create(body, { signal }))
  },
  embeddings,
})
