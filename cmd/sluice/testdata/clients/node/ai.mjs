// The tasks by means of the packages ai and @ai-sdk/openai-compatible.
import { embedMany, generateText, jsonSchema, streamText, tool } from 'ai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { Leaving, describe, parameters, run } from './tasks.mjs'

// Unused settings are told on standard error otherwise.
globalThis.AI_SDK_LOG_WARNINGS = false

const connect = (task) =>
  createOpenAICompatible({ name: 'gateway', baseURL: task.base_url, apiKey: task.api_key, includeUsage: true })

const usageOf = (u) => ({ prompt: u.inputTokens, completion: u.outputTokens, total: u.totalTokens })

function call(task, model, leaving) {
  const tools = task.tools?.map((name) => [name, tool({ inputSchema: jsonSchema(parameters) })])
  return { model, prompt: task.prompt, maxRetries: 0, abortSignal: leaving.signal, tools: tools && Object.fromEntries(tools) }
}

async function whole(task, report, model) {
  const answer = await generateText(call(task, model, new Leaving(task, report)))
  report.text = [answer.text]
  report.finish = [answer.rawFinishReason]
  report.usage = usageOf(answer.totalUsage)
}

async function stream(task, report, model) {
  const leaving = new Leaving(task, report)
  report.text = ['']
  const tools = {}
  // Errors come as parts of the stream; the default is to print them.
  for await (const part of streamText({ ...call(task, model, leaving), onError() {} }).stream) {
    switch (part.type) {
      case 'text-delta':
        report.text[0] += part.text
        leaving.piece()
        break
      case 'tool-input-start':
        tools[part.id] = { id: part.id, name: part.toolName, arguments: '' }
        break
      case 'tool-input-delta':
        tools[part.id].arguments += part.delta
        break
      case 'finish':
        report.finish = [part.rawFinishReason]
        report.usage = usageOf(part.totalUsage)
        break
      case 'error':
        report.error = describe(part.error)
    }
  }
  if (Object.keys(tools).length) report.tools = Object.values(tools)
}

await run({
  chat: (task, report) => whole(task, report, connect(task).chatModel(task.model)),
  stream: (task, report) => stream(task, report, connect(task).chatModel(task.model)),
  completion: (task, report) => whole(task, report, connect(task).completionModel(task.model)),
  completion_stream: (task, report) => stream(task, report, connect(task).completionModel(task.model)),
  async embeddings(task, report) {
    const model = connect(task).embeddingModel(task.model)
    report.vectors = (await embedMany({ model, values: task.input, maxRetries: 0 })).embeddings
  },
})
