// Answers over WebSocket, with a socket that the tests play.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AbortError, ConnectionError, ProtocolError, SluiceError, createClient } from '../static/sluice-client.js'
import { chunk, fakeFetch, fakeSockets, json, usage } from './fakes.js'

const request = { model: 'm', messages: [] }
const unreachable = fakeFetch(new TypeError('Failed to fetch')).fetch
const client = (sockets, more = {}) =>
  createClient({ baseURL: 'https://gateway/v1', apiKey: 'sk-1', backoffMin: 1, backoffMax: 2, WebSocket: sockets.WebSocket, fetch: unreachable, ...more })

const accepted = (stream_id, position = 0) => ({ type: 'accepted', stream_id, request_id: `req_${stream_id}`, position })
const said = (stream_id, text) => ({ type: 'chunk', stream_id, data: chunk({ content: text }) })
const done = (stream_id, more = {}) => ({ type: 'done', stream_id, finish_reason: 'stop', usage, ttft_ms: 7, total_ms: 9, ...more })
const failure = (e) => e

test('a whole answer', async () => {
  const sockets = fakeSockets()
  const deltas = [], seen = []
  const result = client(sockets).chat({ ...request, stream: true }, { onDelta: (text) => deltas.push(text), onAccepted: (a) => seen.push(a) })
  const s = await sockets.next()
  assert.equal(s.url, 'wss://gateway/v1/chat/completions')
  assert.deepEqual(s.protocols, ['sluice.v1', 'openai-insecure-api-key.sk-1'])
  assert.deepEqual(await s.frame(0), { type: 'create', stream_id: '0', request: { ...request, stream_options: { include_usage: true } } })
  for (const f of [accepted('0', 1), accepted('0'), said('0', 'Hel'), { type: 'news', stream_id: '0' }, { type: 'limits' }, said('0', 'lo'), done('0')]) s.says(f)
  const { content, finish_reason, ttft_ms, total_ms, request_id, usage: used } = await result
  assert.deepEqual({ content, finish_reason, ttft_ms, total_ms, request_id, used }, { content: 'Hello', finish_reason: 'stop', ttft_ms: 7, total_ms: 9, request_id: 'req_0', used: usage })
  assert.deepEqual(deltas, ['Hel', 'lo'])
  assert.deepEqual(seen, [{ request_id: 'req_0', position: 1 }, { request_id: 'req_0', position: 0 }])
})

test('many at once on one socket', async () => {
  const sockets = fakeSockets()
  const c = client(sockets, { maxLanes: 3 })
  const results = ['a', 'b', 'c'].map((model) => c.chat({ ...request, model }))
  const s = await sockets.next()
  for (let i = 0; i < 3; i++) assert.equal((await s.frame(i)).stream_id, String(i))
  for (const f of [said('2', 'C'), said('0', 'A'), done('2'), said('1', 'B')]) s.says(f)
  assert.equal((await results[2]).content, 'C')
  const fourth = c.chat(request)
  assert.equal((await s.frame(3)).stream_id, '3')
  const fifth = c.chat(request) // the socket is full
  const more = await sockets.next()
  assert.equal((await more.frame(0)).stream_id, '0')
  for (const f of [done('0'), done('1'), said('3', 'D'), done('3')]) s.says(f)
  for (const f of [said('0', 'E'), done('0')]) more.says(f)
  assert.deepEqual((await Promise.all([...results, fourth, fifth])).map((a) => a.content), ['A', 'B', 'C', 'D', 'E'])
  assert.equal(sockets.all.length, 2)
})

test('a gateway with fewer lanes than expected', async () => {
  const sockets = fakeSockets()
  const c = client(sockets)
  const results = [c.chat(request), c.chat(request)]
  const first = await sockets.next()
  await first.frame(1)
  first.says({ type: 'error', stream_id: '1', request_id: 'req_9', status: 429, error: { message: 'full', type: 'rate_limit_error', param: 'stream_id', code: 'websocket_stream_limit_reached' } })
  const second = await sockets.next()
  await second.frame(0)
  first.says(done('0'))
  second.says(done('0'))
  await Promise.all(results)
  assert.equal(sockets.all.length, 2)
})

test('chat and legacy completions have a socket each', async () => {
  const sockets = fakeSockets()
  const c = client(sockets)
  const results = [c.chat(request), c.complete({ model: 'm', prompt: '' })]
  for (const path of ['/chat/completions', '/completions']) {
    const s = await sockets.next()
    assert.equal(new URL(s.url).pathname, '/v1' + path)
    await s.frame(0)
    s.says(done('0'))
  }
  await Promise.all(results)
})

test('the caller stops', async (t) => {
  await t.test('a running answer: what is late is nobody\'s', async () => {
    const sockets = fakeSockets()
    const c = client(sockets)
    const stop = new AbortController()
    const deltas = []
    const result = c.chat(request, { signal: stop.signal, onDelta: (text) => deltas.push(text) }).catch(failure)
    const s = await sockets.next()
    await s.frame(0)
    s.says(said('0', 'a'))
    stop.abort('enough')
    const error = await result
    assert.equal(error.constructor, AbortError)
    assert.deepEqual([error.cause, error.partial.content], ['enough', 'a'])
    assert.deepEqual(s.sent[1], { type: 'cancel', stream_id: '0' })
    s.says(said('0', 'late'))
    const second = c.chat(request)
    assert.equal((await s.frame(2)).stream_id, '1')
    s.says(done('0')) // it had crossed the cancel, which is answered all the same
    s.says({ type: 'cancelled', stream_id: '0', usage })
    s.says(done('1'))
    await second
    assert.deepEqual(deltas, ['a'])
    c.close()
  })
  await t.test('while it connects: the others go on', async () => {
    const sockets = fakeSockets({ open: false })
    const c = client(sockets)
    const stop = new AbortController()
    const left = c.chat(request, { signal: stop.signal }).catch(failure)
    const stays = c.chat(request)
    const s = await sockets.next()
    stop.abort()
    assert.equal((await left).name, 'AbortError')
    s.onopen({})
    assert.equal((await s.frame(0)).stream_id, '1')
    s.says(done('1'))
    await stays
    assert.equal(s.sent.length, 1)
  })
  await t.test('by a hook', async () => {
    const sockets = fakeSockets()
    const fault = new Error('mine')
    const result = client(sockets).chat(request, { onDelta: () => { throw fault } })
    const s = await sockets.next()
    await s.frame(0)
    s.says(said('0', 'a'))
    s.says(said('0', 'b'))
    await assert.rejects(result, (e) => e === fault)
    assert.deepEqual(s.sent[1], { type: 'cancel', stream_id: '0' })
    assert.equal(s.sent.length, 2)
    s.says({ type: 'cancelled', stream_id: '0', usage })
  })
  await t.test('by closing the client', async () => {
    const sockets = fakeSockets()
    const c = client(sockets)
    const result = c.chat(request).catch(failure)
    const s = await sockets.next()
    await s.frame(0)
    c.close()
    assert.equal((await result).name, 'AbortError')
    assert.equal(s.closedWith, 1000)
  })
})

test('an answer that failed', async () => {
  const sockets = fakeSockets()
  const result = client(sockets).chat(request).catch(failure)
  const s = await sockets.next()
  await s.frame(0)
  s.says(accepted('0'))
  s.says(said('0', 'a'))
  s.says({ type: 'error', stream_id: '0', status: 502, error: { message: 'cut', type: 'server_error', param: null, code: 'upstream_truncated' } })
  const e = await result
  assert.equal(e.constructor, SluiceError)
  assert.deepEqual([e.status, e.message, e.type, e.code, e.param, e.requestId, e.partial.content], [502, 'cut', 'server_error', 'upstream_truncated', null, 'req_0', 'a'])
})

test('a lost connection', async (t) => {
  await t.test('before the first delta is made anew', async () => {
    const sockets = fakeSockets()
    const chunks = []
    const result = client(sockets).chat(request, { onChunk: (c) => chunks.push(c) })
    const first = await sockets.next()
    await first.frame(0)
    first.says(accepted('0'))
    first.says({ type: 'chunk', stream_id: '0', data: chunk({ role: 'assistant', content: '' }) })
    first.ends(1006)
    const second = await sockets.next()
    await second.frame(0)
    second.says(said('0', 'again'))
    second.says(done('0'))
    assert.equal((await result).content, 'again')
    assert.equal(chunks.length, 1)
  })
  await t.test('after it is an error', async () => {
    const sockets = fakeSockets()
    const result = client(sockets).chat(request).catch(failure)
    const s = await sockets.next()
    await s.frame(0)
    s.says(said('0', 'a'))
    s.ends(1006)
    const e = await result
    assert.equal(e.constructor, ConnectionError)
    assert.match(e.message, /in the middle of the answer/)
    assert.deepEqual([e.closeCode, e.partial.content, sockets.all.length], [1006, 'a', 1])
  })
  await t.test('by a fault in what was sent: the guilty is told, the others are asked anew', async () => {
    const sockets = fakeSockets()
    const c = client(sockets)
    const innocent = c.chat(request)
    const guilty = c.chat(request).catch(failure)
    const later = c.chat(request)
    const first = await sockets.next()
    await first.frame(2)
    first.says(accepted('0'))
    first.says({ type: 'error', status: 413, error: { message: 'too large', type: 'invalid_request_error', param: null, code: 'request_too_large' } })
    first.ends(1009)
    const e = await guilty
    assert.equal(e.constructor, ProtocolError)
    assert.deepEqual([e.message, e.status, e.code, e.closeCode], ['too large', 413, 'request_too_large', 1009])
    const second = await sockets.next()
    await second.frame(1)
    second.says(done('0'))
    second.says(done('1'))
    await Promise.all([innocent, later])
  })
  await t.test('by what is no frame', async () => {
    const sockets = fakeSockets()
    const result = client(sockets).chat(request).catch(failure)
    const s = await sockets.next()
    await s.frame(0)
    s.says('<html>')
    assert.equal((await result).constructor, ProtocolError)
  })
})

test('the gateway goes away', async (t) => {
  await t.test('running answers finish, new ones have another socket', async () => {
    const sockets = fakeSockets()
    const c = client(sockets)
    const running = c.chat(request)
    const first = await sockets.next()
    await first.frame(0)
    first.says({ type: 'going_away', in_ms: 60_000, reason: 'drain' })
    const fresh = c.chat(request)
    const second = await sockets.next()
    await second.frame(0)
    second.says(done('0'))
    await fresh
    assert.equal(first.closedWith, undefined)
    first.says(said('0', 'to the end'))
    first.says(done('0'))
    assert.equal((await running).content, 'to the end')
    assert.equal(first.closedWith, 1000)
    assert.equal(second.closedWith, undefined)
    c.close()
  })
  await t.test('and refuses what crossed its word: asked anew', async () => {
    const sockets = fakeSockets()
    const result = client(sockets).chat(request)
    const first = await sockets.next()
    await first.frame(0)
    first.says({ type: 'going_away', in_ms: 60_000, reason: 'drain' })
    first.says({ type: 'error', stream_id: '0', status: 503, retry_after_ms: 2, error: { message: 'draining', type: 'service_unavailable_error', param: null, code: 'server_draining' } })
    const second = await sockets.next()
    await second.frame(0)
    second.says(done('0'))
    await result
    assert.equal(first.closedWith, 1000)
  })
})

test('a half-open connection', async (t) => {
  await t.test('is asked for a sign of life, and given up', async () => {
    const sockets = fakeSockets()
    const result = client(sockets, { silenceTimeout: 30, probeTimeout: 30 }).chat(request).catch(failure)
    const s = await sockets.next()
    await s.frame(0)
    s.says(said('0', 'a'))
    assert.deepEqual(await s.frame(1), { type: 'cancel', stream_id: 'probe' })
    const e = await result
    assert.equal(e.constructor, ConnectionError)
    assert.match(e.message, /no longer answers in the middle/)
    assert.equal(s.closedWith, 1000)
  })
  await t.test('is not, while it takes a long request', async () => {
    const sockets = fakeSockets()
    const result = client(sockets, { silenceTimeout: 20, probeTimeout: 20 }).chat(request)
    const s = await sockets.next()
    s.bufferedAmount = 1000
    await s.frame(0)
    for (let n = 0; n < 10; n++) {
      await new Promise((resolve) => setTimeout(resolve, 10))
      s.bufferedAmount -= 100
    }
    s.says(done('0'))
    await result
  })
  await t.test('is not, when it answers', async () => {
    const sockets = fakeSockets()
    const result = client(sockets, { silenceTimeout: 20, probeTimeout: 20 }).chat(request)
    const s = await sockets.next()
    await s.frame(0)
    for (let n = 1; n <= 4; n++) {
      assert.deepEqual(await s.frame(n), { type: 'cancel', stream_id: 'probe' })
      s.says({ type: 'cancelled', stream_id: 'probe', usage: null })
    }
    s.says(said('0', 'thought for long'))
    s.says(done('0'))
    assert.equal((await result).content, 'thought for long')
  })
})

test('an idle socket is closed', async () => {
  const sockets = fakeSockets()
  const c = client(sockets, { idleTimeout: 10 })
  for (let n = 0; n < 2; n++) {
    const result = c.chat(request)
    const s = await sockets.next()
    await s.frame(0)
    s.says(done('0'))
    await result
    await new Promise((resolve) => setTimeout(resolve, 40))
    assert.equal(s.closedWith, 1000)
  }
})

test('who is calling', async (t) => {
  const finish = async (sockets, result) => {
    const s = await sockets.next()
    await s.frame(0)
    s.says(said('0', 'x'))
    s.says(done('0'))
    await result
    return s
  }
  await t.test('a ticket for each connection', async () => {
    const sockets = fakeSockets()
    let n = 0
    const c = client(sockets, { apiKey: undefined, getTicket: async () => `t${++n}` })
    for (const ticket of ['t1', 't2']) {
      const s = await finish(sockets, c.chat(request))
      assert.deepEqual(s.protocols, ['sluice.v1', 'sluice-ticket.' + ticket])
      s.ends(1012)
    }
  })
  await t.test('a ticket from a server of the page: it does not get the key', async () => {
    const sockets = fakeSockets()
    const { fetch, calls } = fakeFetch(json(200, { ticket: 'abc' }))
    const s = await finish(sockets, client(sockets, { fetch, ticketURL: 'https://shop/ticket' }).chat(request))
    assert.deepEqual(s.protocols, ['sluice.v1', 'sluice-ticket.abc'])
    assert.deepEqual([calls[0].url, calls[0].method, calls[0].headers], ['https://shop/ticket', 'POST', {}])
  })
  await t.test('a ticket from the gateway', async () => {
    const sockets = fakeSockets()
    const { fetch, calls } = fakeFetch(json(200, { ticket: 'abc' }))
    await finish(sockets, client(sockets, { fetch, ticketURL: '/v1/tickets' }).chat(request))
    assert.deepEqual([calls[0].url, calls[0].headers], ['https://gateway/v1/tickets', { Authorization: 'Bearer sk-1' }])
  })
  await t.test('a key that is no token is changed for a ticket', async () => {
    const sockets = fakeSockets()
    const { fetch, calls } = fakeFetch(json(200, { ticket: 'abc' }))
    const s = await finish(sockets, client(sockets, { fetch, apiKey: 'k/=1' }).chat(request))
    assert.deepEqual([s.protocols[1], calls[0].url], ['sluice-ticket.abc', 'https://gateway/v1/tickets'])
  })
  await t.test('nobody: whoever stands before the gateway knows', async () => {
    const sockets = fakeSockets()
    assert.deepEqual((await finish(sockets, client(sockets, { apiKey: undefined }).chat(request))).protocols, ['sluice.v1'])
  })
  await t.test('a ticket that is refused', async () => {
    const sockets = fakeSockets()
    const { fetch, calls } = fakeFetch(json(401, { error: { message: 'wrong key', type: 'invalid_request_error', param: null, code: 'invalid_api_key' } }))
    const e = await client(sockets, { fetch, ticketURL: '/v1/tickets' }).chat(request).catch(failure)
    assert.deepEqual([e.constructor, e.status, e.code, calls.length, sockets.all.length], [SluiceError, 401, 'invalid_api_key', 1, 0])
  })
})

test('a refused handshake', async (t) => {
  const refuse = async (sockets, fetch, tries, more) => {
    const result = client(sockets, { fetch, retries: 2, ...more }).chat(request).catch(failure)
    for (let n = 0; n < tries; n++) (await sockets.next()).ends(1006)
    return result
  }
  await t.test('for its key', async () => {
    const sockets = fakeSockets({ open: false })
    const { fetch, calls } = fakeFetch(json(401, { error: { message: 'wrong key', type: 'invalid_request_error', param: null, code: 'invalid_api_key' } }))
    const e = await refuse(sockets, fetch, 1)
    assert.deepEqual([e.constructor, e.status, e.code], [SluiceError, 401, 'invalid_api_key'])
    assert.deepEqual([calls[0].url, calls[0].headers], ['https://gateway/v1/tickets', { Authorization: 'Bearer sk-1' }])
  })
  await t.test('for another reason is tried again', async () => {
    const e = await refuse(fakeSockets({ open: false }), fakeFetch(() => json(200, { ticket: 't' })).fetch, 3)
    assert.equal(e.constructor, ConnectionError)
    assert.match(e.message, /websocket.origins/)
  })
  await t.test('with a ticket', async () => {
    const e = await refuse(fakeSockets({ open: false }), fakeFetch(() => assert.fail('nothing to ask')).fetch, 3, { apiKey: undefined, getTicket: () => 't' })
    assert.equal(e.constructor, ConnectionError)
  })
  await t.test('nobody is there', async () => {
    const e = await refuse(fakeSockets({ open: false }), unreachable, 3)
    assert.match(e.message, /could not be reached/)
  })
  await t.test('nothing happens', async () => {
    const sockets = fakeSockets({ open: false })
    const e = await client(sockets, { retries: 0, connectTimeout: 20 }).chat(request).catch(failure)
    assert.equal(e.constructor, ConnectionError)
    assert.equal((await sockets.next()).closedWith, 1000)
  })
  await t.test('a drain ends', async () => {
    const sockets = fakeSockets({ open: false })
    const result = client(sockets, { fetch: fakeFetch(json(503, {}, { 'retry-after-ms': '2' })).fetch }).chat(request)
    ;(await sockets.next()).ends(1006)
    const s = await sockets.next()
    s.onopen({})
    await s.frame(0)
    s.says(done('0'))
    await result
  })
})
