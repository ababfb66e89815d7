// One answer, collected from its chunks.
import { HookError } from './errors.js'

/** @typedef {import('../sluice-client.js').Hooks} Hooks */
/** @typedef {import('../sluice-client.js').Answer} Answer */
/** @typedef {import('../sluice-client.js').Choice} Choice */
/** @typedef {import('../sluice-client.js').ToolCall} ToolCall */

/** Collects one try of an answer from its chunks and tells the hooks. */
export class Collector {
  begun = false // the caller has seen content
  requestId = /** @type {string | null} */ (null)
  #hooks
  #held = /** @type {any[]} */ ([])
  #choices = /** @type {Choice[]} */ ([])
  #id = ''
  #model = ''
  #usage = /** @type {any} */ (null)

  /** @param {Hooks} hooks */
  constructor(hooks) {
    this.#hooks = hooks
  }

  /** @param {{request_id: string, position: number}} at */
  accept({ request_id, position }) {
    this.requestId = request_id
    this.#tell(this.#hooks.onAccepted, { request_id, position })
  }

  /** @param {any} chunk */
  add(chunk) {
    if (!this.begun && !hasContent(chunk)) {
      this.#held.push(chunk)
      return
    }
    this.begun = true
    this.#flush()
    this.#take(chunk)
  }

  /**
   * @param {{finish_reason?: string | null, usage?: any, ttft_ms?: number | null, total_ms?: number | null}} end
   * @returns {Answer} the whole, when the true end has been seen
   */
  end(end) {
    this.#flush()
    const answer = this.partial()
    answer.usage = end.usage ?? answer.usage
    answer.finish_reason ??= end.finish_reason ?? null
    answer.ttft_ms = end.ttft_ms ?? null
    answer.total_ms = end.total_ms ?? null
    return answer
  }

  /** @returns {Answer} */
  partial() {
    const { content, reasoning, refusal, tool_calls, finish_reason } = this.#choices[0] ?? newChoice(0)
    return {
      id: this.#id, model: this.#model, content, reasoning, refusal, tool_calls, finish_reason,
      choices: this.#choices.filter(Boolean), usage: this.#usage, request_id: this.requestId, ttft_ms: null, total_ms: null,
    }
  }

  #flush() {
    for (const chunk of this.#held.splice(0)) this.#take(chunk)
  }

  /** @param {any} chunk */
  #take(chunk) {
    this.#id ||= chunk.id ?? ''
    this.#model ||= chunk.model ?? ''
    this.#usage = chunk.usage ?? this.#usage
    this.#tell(this.#hooks.onChunk, chunk)
    for (const c of chunk.choices ?? []) {
      const index = c.index ?? 0
      const choice = (this.#choices[index] ??= newChoice(index))
      const delta = c.delta ?? c // of a completion the text stands in the choice
      choice.finish_reason = c.finish_reason ?? choice.finish_reason
      choice.refusal += delta.refusal ?? ''
      for (const t of delta.tool_calls ?? []) addTool(choice.tool_calls, t)
      const reasoning = reasoningOf(delta)
      choice.reasoning += reasoning
      if (reasoning) this.#tell(this.#hooks.onReasoning, reasoning, { index })
      const text = delta.content ?? delta.text ?? ''
      choice.content += text
      if (text) this.#tell(this.#hooks.onDelta, text, { index })
    }
  }

  /** @param {((...args: any[]) => void) | undefined} hook @param {...any} args */
  #tell(hook, ...args) {
    if (this.#hooks.signal?.aborted) return // by another hook
    try {
      hook?.(...args)
    } catch (cause) {
      throw new HookError('', { cause })
    }
  }
}

/** @param {number} index @returns {Choice} */
const newChoice = (index) => ({ index, content: '', reasoning: '', refusal: '', tool_calls: [], finish_reason: null })

/** @param {any} delta @returns {string} under either of the two names that servers use */
const reasoningOf = (delta) => delta.reasoning_content ?? (typeof delta.reasoning === 'string' ? delta.reasoning : '')

/** @param {any} chunk */
function hasContent(chunk) {
  return (chunk.choices ?? []).some((/** @type {any} */ c) => {
    const d = c.delta ?? c
    return d.content || d.text || d.refusal || reasoningOf(d) || d.tool_calls?.length > 0
  })
}

/** @param {ToolCall[]} calls @param {any} t a delta of one of them */
function addTool(calls, t) {
  const call = (calls[t.index ?? 0] ??= { id: '', type: 'function', function: { name: '', arguments: '' } })
  call.id ||= t.id ?? ''
  call.type = t.type ?? call.type
  call.function.name ||= t.function?.name ?? ''
  call.function.arguments += t.function?.arguments ?? ''
}
