// Answers over SSE, with a fetch that the tests play.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AbortError, ConnectionError, ProtocolError, SluiceError, createClient } from '../static/sluice-client.js'
import { chunk, deferred, events, fakeFetch, json, usage } from './fakes.js'

const request = { model: 'm', messages: [] }
const client = (fetch, more = {}) =>
  createClient({ baseURL: 'http://gateway/v1/', apiKey: 'sk-1', transport: 'sse', backoffMin: 1, backoffMax: 2, fetch, ...more })

const good = [chunk({ role: 'assistant', content: '' }), chunk({ content: 'Hel' }), chunk({ content: 'lo' }), chunk({}, 'stop'), { choices: [], usage }, '[DONE]']

test('a whole answer', async () => {
  const { fetch, calls } = fakeFetch(events(good))
  const deltas = [], chunks = [], accepted = []
  const answer = await client(fetch).chat(
    { ...request, stream: false, temperature: 0 },
    { onDelta: (text, at) => deltas.push([text, at.index]), onChunk: (c) => chunks.push(c), onAccepted: (a) => accepted.push(a) },
  )
  assert.equal(calls[0].url, 'http://gateway/v1/chat/completions')
  assert.equal(calls[0].headers.Authorization, 'Bearer sk-1')
  assert.deepEqual(JSON.parse(calls[0].body), { ...request, temperature: 0, stream: true, stream_options: { include_usage: true } })
  assert.deepEqual(deltas, [['Hel', 0], ['lo', 0]])
  assert.deepEqual(chunks, good.slice(0, -1))
  assert.deepEqual(accepted, [{ request_id: 'req_1', position: 0 }])
  const { ttft_ms, total_ms, ...rest } = answer
  assert.ok(ttft_ms >= 0 && total_ms >= ttft_ms)
  const choice = { content: 'Hello', reasoning: '', refusal: '', tool_calls: [], finish_reason: 'stop' }
  assert.deepEqual(rest, { id: 'chatcmpl-1', model: 'm', ...choice, choices: [{ index: 0, ...choice }], usage, request_id: 'req_1' })
})

test('reasoning, refusal, tools, two choices', async () => {
  const tool = (index, more) => chunk({ tool_calls: [{ index, ...more }] })
  const { fetch } = fakeFetch(events([
    chunk({ role: 'assistant' }), chunk({ reasoning_content: 'hm' }), chunk({ reasoning: 'm' }), chunk({ refusal: 'no' }),
    tool(0, { id: 'a', type: 'function', function: { name: 'f', arguments: '' } }), tool(1, { id: 'b', type: 'function', function: { name: 'g', arguments: '{' } }),
    tool(0, { function: { arguments: '{"x"' } }), tool(1, { id: 'b', function: { name: 'g', arguments: '}' } }), tool(0, { function: { arguments: ':1}' } }),
    chunk({ content: 'second' }, null, 1), chunk({}, 'stop', 1), chunk({}, 'tool_calls'), '[DONE]',
  ]))
  const thoughts = []
  const answer = await client(fetch).chat(request, { onReasoning: (text) => thoughts.push(text) })
  assert.deepEqual(thoughts, ['hm', 'm'])
  assert.equal(answer.reasoning, 'hmm')
  assert.equal(answer.refusal, 'no')
  assert.equal(answer.finish_reason, 'tool_calls')
  assert.deepEqual(answer.tool_calls, [
    { id: 'a', type: 'function', function: { name: 'f', arguments: '{"x":1}' } },
    { id: 'b', type: 'function', function: { name: 'g', arguments: '{}' } },
  ])
  assert.deepEqual(answer.choices.map((c) => [c.index, c.content, c.finish_reason]), [[0, '', 'tool_calls'], [1, 'second', 'stop']])
  assert.equal(answer.usage, null)
})

test('a legacy completion', async () => {
  const piece = (text, finish_reason = null) => ({ id: 'c', model: 'm', choices: [{ index: 0, text, finish_reason }] })
  const { fetch, calls } = fakeFetch(events([piece('a'), piece('b'), piece('', 'length'), '[DONE]']))
  const answer = await client(fetch).complete({ model: 'm', prompt: 'x' })
  assert.equal(calls[0].url, 'http://gateway/v1/completions')
  assert.deepEqual([answer.content, answer.finish_reason], ['ab', 'length'])
})

test('the end is the truth', async (t) => {
  const told = { error: { message: 'boom', type: 'server_error', param: null, code: 'upstream_truncated' } }
  const begun = good.slice(0, 2)
  const broken = {
    'the body ends without [DONE]': [[...begun], ConnectionError],
    'the body ends after the finish, without [DONE]': [good.slice(0, 5), ConnectionError],
    'the connection is lost': [[...begun, undefined], ConnectionError],
    'an error in the stream': [[...begun, told], SluiceError],
    'an error after the finish': [[...good.slice(0, 4), told, '[DONE]'], SluiceError],
    'no JSON': [[...begun, '{"choices":'], ProtocolError],
  }
  for (const [name, [steps, kind]] of Object.entries(broken)) {
    await t.test(name, async () => {
      const { fetch, calls } = fakeFetch(events(steps))
      const deltas = []
      const error = await client(fetch).chat(request, { onDelta: (text) => deltas.push(text) }).catch((e) => e)
      assert.equal(error.constructor, kind)
      assert.equal(error.partial.content, deltas.join(''))
      assert.equal(error.requestId, 'req_1')
      assert.equal(calls.length, 1, 'never again after the first delta')
      if (kind === SluiceError) assert.deepEqual([error.message, error.type, error.code, error.status], ['boom', 'server_error', 'upstream_truncated', undefined])
    })
  }
})

test('errors before the answer', async (t) => {
  const body = { error: { message: 'no such model', type: 'invalid_request_error', param: 'model', code: 'model_not_found' } }
  await t.test('are told', async () => {
    const { fetch, calls } = fakeFetch(json(404, body, { 'x-request-id': 'req_2' }))
    const error = await client(fetch).chat(request).catch((e) => e)
    assert.equal(error.constructor, SluiceError)
    const { message, status, type, code, param, requestId, retryAfterMs, partial } = error
    assert.deepEqual({ message, status, type, code, param, requestId, retryAfterMs, partial },
      { ...body.error, status: 404, requestId: 'req_2', retryAfterMs: undefined, partial: null })
    assert.equal(calls.length, 1)
  })
  await t.test('a page of a proxy', async () => {
    const { fetch } = fakeFetch(new Response('<html>', { status: 502, headers: { 'Content-Type': 'text/html' } }))
    const error = await client(fetch).chat(request).catch((e) => e)
    assert.deepEqual([error.status, error.code, error.message], [502, null, 'The gateway answered with status 502.'])
  })
  await t.test('200 without a stream', async () => {
    const { fetch } = fakeFetch(json(200, {}))
    assert.equal((await client(fetch).chat(request).catch((e) => e)).constructor, ProtocolError)
  })
  for (const [name, headers, calls] of [
    ['a short Retry-After is waited for', { 'retry-after-ms': '5' }, 2],
    ['a long one is not', { 'retry-after': '60' }, 1],
    ['none is not', {}, 1],
    ['nor where it is forbidden', { 'retry-after-ms': '5', 'x-should-retry': 'false' }, 1],
  ]) {
    await t.test(name, async () => {
      const fake = fakeFetch(json(429, body, headers), events(good))
      const result = await client(fake.fetch).chat(request).catch((e) => e)
      assert.equal(fake.calls.length, calls)
      assert.equal(calls === 2 ? result.content : result.status, calls === 2 ? 'Hello' : 429)
    })
  }
})

test('before the first delta it is tried again', async (t) => {
  for (const [name, first] of [
    ['no connection', () => new TypeError('Failed to fetch')],
    ['cut before content', events([good[0], chunk({}), undefined])],
    ['ended before content', events([good[0]])],
  ]) {
    await t.test(name, async () => {
      const { fetch, calls } = fakeFetch(first, first, events(good))
      const chunks = []
      const answer = await client(fetch).chat(request, { onChunk: (c) => chunks.push(c) })
      assert.equal(answer.content, 'Hello')
      assert.equal(calls.length, 3)
      assert.deepEqual(chunks, good.slice(0, -1), 'nothing of the tries that failed')
    })
  }
  await t.test('but not for ever', async () => {
    const { fetch, calls } = fakeFetch(new TypeError('Failed to fetch'))
    const error = await client(fetch, { retries: 2 }).chat(request).catch((e) => e)
    assert.equal(error.constructor, ConnectionError)
    assert.equal(calls.length, 3)
  })
})

test('the caller stops', async (t) => {
  await t.test('in the middle', async () => {
    const never = deferred()
    const { fetch, calls } = fakeFetch(events([...good.slice(0, 2), never.promise]))
    const stop = new AbortController()
    const error = await client(fetch).chat(request, { signal: stop.signal, onDelta: () => stop.abort('enough') }).catch((e) => e)
    assert.equal(error.constructor, AbortError)
    assert.equal(error.name, 'AbortError')
    assert.equal(error.cause, 'enough')
    assert.equal(error.partial.content, 'Hel')
    assert.ok(calls[0].signal.aborted)
  })
  await t.test('in a hook, with more in the same piece', async () => {
    const two = { ...chunk({ content: 'b' }), choices: [chunk({ content: 'b' }).choices[0], chunk({ content: 'B' }, null, 1).choices[0]] }
    const piece = [chunk({ content: 'a' }), two, chunk({ content: 'c' }), chunk({}, 'stop'), '[DONE]'].map((c) => (typeof c === 'string' ? c : JSON.stringify(c))).join('\n\ndata: ')
    const { fetch } = fakeFetch(events([piece]))
    const stop = new AbortController()
    const deltas = []
    const error = await client(fetch).chat(request, { signal: stop.signal, onDelta: (text) => deltas.push(text) === 2 && stop.abort() }).catch((e) => e)
    assert.deepEqual([error.name, deltas], ['AbortError', ['a', 'b']])
  })
  await t.test('before', async () => {
    const { fetch, calls } = fakeFetch(events(good))
    const error = await client(fetch).chat(request, { signal: AbortSignal.abort() }).catch((e) => e)
    assert.deepEqual([error.name, calls.length], ['AbortError', 0])
  })
  await t.test('in a pause', async () => {
    const { fetch, calls } = fakeFetch(json(503, {}, { 'retry-after': '9' }))
    const stop = new AbortController()
    const error = client(fetch).chat(request, { signal: stop.signal }).catch((e) => e)
    await new Promise((resolve) => setTimeout(resolve, 20))
    stop.abort()
    assert.equal((await error).name, 'AbortError')
    assert.equal(calls.length, 1)
  })
  await t.test('by closing the client', async () => {
    const never = deferred()
    const { fetch } = fakeFetch(events([...good.slice(0, 2), never.promise]))
    const c = client(fetch)
    const error = await c.chat(request, { onDelta: () => c.close() }).catch((e) => e)
    assert.equal(error.name, 'AbortError')
    assert.equal((await c.chat(request).catch((e) => e)).name, 'AbortError')
  })
  await t.test('by throwing in a hook', async () => {
    const fault = new Error('mine')
    const { fetch, calls } = fakeFetch(events(good))
    await assert.rejects(client(fetch).chat(request, { onDelta: () => { throw fault } }), (e) => e === fault)
    assert.ok(calls[0].signal.aborted)
    assert.equal(calls.length, 1)
  })
})

test('silence ends it', async () => {
  const never = deferred()
  const { fetch } = fakeFetch(events([...good.slice(0, 2), never.promise]))
  const error = await client(fetch, { silenceTimeout: 30 }).chat(request).catch((e) => e)
  assert.equal(error.constructor, ConnectionError)
  assert.match(error.message, /silent/)
  assert.equal(error.partial.content, 'Hel')
})

test('a key is asked for each time', async () => {
  let n = 0
  const { fetch, calls } = fakeFetch(events(good))
  const c = client(fetch, { apiKey: async () => `sk-${++n}` })
  await c.chat(request)
  await c.chat(request)
  assert.deepEqual(calls.map((call) => call.headers.Authorization), ['Bearer sk-1', 'Bearer sk-2'])
})

test('limits', async () => {
  const { fetch } = fakeFetch(events(good, {
    'x-ratelimit-limit-requests': '60', 'x-ratelimit-remaining-requests': '59', 'x-ratelimit-reset-requests': '1m0.5s',
    'x-ratelimit-limit-tokens': '1000', 'x-ratelimit-remaining-tokens': '990', 'x-ratelimit-reset-tokens': '20ms',
  }))
  const seen = []
  await client(fetch, { onLimits: (l) => seen.push(l) }).chat(request)
  assert.deepEqual(seen, [{ requests: { limit: 60, remaining: 59, reset_ms: 60_500 }, tokens: { limit: 1000, remaining: 990, reset_ms: 20 } }])
})

test('options that cannot work', () => {
  assert.throws(() => createClient({ apiKey: 'k' }), /baseURL/)
  assert.throws(() => createClient({ baseURL: 'http://x/v1', transport: 'carrier pigeon' }), /transport/)
  assert.throws(() => createClient({ baseURL: 'http://x/v1', transport: 'sse', ticketURL: '/t' }), /apiKey/)
})
