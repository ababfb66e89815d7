// What the programs in this folder share: tasks come as JSON on standard
// input, run side by side, and each is answered by one line of JSON.

// run performs every task by the function of its operation.
export async function run(operations) {
  let input = ''
  for await (const piece of process.stdin.setEncoding('utf8')) input += piece
  await Promise.all(JSON.parse(input).map((task) => perform(operations, task)))
}

async function perform(operations, task) {
  const report = { name: task.name }
  try {
    await operations[task.op](task, report)
  } catch (e) {
    report.error = describe(e)
  }
  process.stdout.write(JSON.stringify(report) + '\n')
}

// describe tells what a caller can know of an error, in the words of openai or of the AI SDK.
export function describe(e) {
  const inside = e.data?.error ?? {}
  return {
    kind: e.constructor?.name ?? typeof e,
    message: String(e.message ?? e),
    status: e.status ?? e.statusCode ?? 0,
    code: String(e.code ?? inside.code ?? ''),
    type: String(e.type ?? inside.type ?? ''),
    left: e.headers?.get?.('x-ratelimit-remaining-requests') ?? '',
    full: e.headers?.get?.('x-ratelimit-limit-requests') ?? '',
  }
}

// Leaving is a client that goes when its task says so.
export class Leaving {
  #task
  #report
  #controller = new AbortController()
  #pieces = 0

  constructor(task, report) {
    this.#task = task
    this.#report = report
    // The answer there comes when the upstream has been asked.
    if (task.leave_when) fetch(task.leave_when).then(() => this.#leaveSoon())
  }

  get signal() {
    return this.#controller.signal
  }

  // piece counts a piece of content; true means that the loop must break now.
  piece() {
    this.#pieces++
    if (!this.#task.leave || this.#pieces !== this.#task.leave_after) return false
    if (this.#task.leave === 'break') {
      this.#report.left_at = Date.now()
      return true
    }
    this.#leaveSoon()
    return false
  }

  #leaveSoon() {
    setTimeout(() => {
      this.#report.left_at = Date.now()
      this.#controller.abort()
    }, this.#task.leave_pause_ms ?? 0)
  }
}

// parameters is the schema of the tools' arguments.
export const parameters = {
  type: 'object',
  properties: { chain: { type: 'string' } },
  required: ['chain'],
  additionalProperties: false,
}

// decode reads an embedding in base64, which is little-endian float32.
export const decode = (text) => Array.from(new Float32Array(new Uint8Array(Buffer.from(text, 'base64')).buffer))
