// The tasks by means of the package @langchain/openai.
import { ChatOpenAI, OpenAI, OpenAIEmbeddings } from '@langchain/openai'
import { Leaving, decode, parameters, run } from './tasks.mjs'

const settings = (task) => ({
  model: task.model,
  apiKey: task.api_key,
  configuration: { baseURL: task.base_url },
  maxRetries: 0,
})

function connect(task) {
  const chat = new ChatOpenAI(settings(task))
  if (!task.tools) return chat
  return chat.bindTools(task.tools.map((name) => ({ type: 'function', function: { name, parameters } })))
}

function read(report, message) {
  report.text = [message.content]
  report.finish = [message.response_metadata.finish_reason]
  const u = message.usage_metadata
  if (u) report.usage = { prompt: u.input_tokens, completion: u.output_tokens, total: u.total_tokens }
  if (message.tool_call_chunks?.length) {
    report.tools = message.tool_call_chunks.map((t) => ({ id: t.id, name: t.name, arguments: t.args }))
  }
}

await run({
  async chat(task, report) {
    const leaving = new Leaving(task, report)
    read(report, await connect(task).invoke(task.prompt, { signal: leaving.signal }))
  },
  async stream(task, report) {
    const leaving = new Leaving(task, report)
    let message
    try {
      for await (const chunk of await connect(task).stream(task.prompt, { signal: leaving.signal })) {
        message = message ? message.concat(chunk) : chunk
        if (chunk.content && leaving.piece()) break
      }
    } finally {
      if (message) read(report, message)
    }
  },
  async completion(task, report) {
    report.text = [await new OpenAI(settings(task)).invoke(task.prompt)]
  },
  async completion_stream(task, report) {
    report.text = ['']
    for await (const text of await new OpenAI(settings(task)).stream(task.prompt)) report.text[0] += text
  },
  async embeddings(task, report) {
    const model = new OpenAIEmbeddings({ ...settings(task), encodingFormat: task.encoding || undefined })
    // What was asked for in base64 by name is handed on as it came.
    report.vectors = (await model.embedDocuments(task.input)).map((v) => (typeof v === 'string' ? decode(v) : v))
  },
})
