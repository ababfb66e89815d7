// The reader of server-sent events against the rules of the HTML standard.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EventStreamParser, ProtocolError } from '../static/sluice-client.js'

const bytes = (text) => new TextEncoder().encode(text)
const message = (...data) => data.map((d) => ({ event: 'message', data: d }))

const cases = {
  'one event': ['data: a\n\n', message('a')],
  'CRLF': ['data: a\r\n\r\ndata: b\r\n\r\n', message('a', 'b')],
  'CR': ['data: a\r\rdata: b\r\r', message('a', 'b')],
  'mixed line ends': ['data: a\n\r\ndata: b\r\r\ndata: c\r\n\n', message('a', 'b', 'c')],
  'no space after the colon': ['data:a\n\n', message('a')],
  'one space belongs to the colon': ['data:  a \n\n', message(' a ')],
  'several data lines': ['data: a\ndata\ndata: b\n\n', message('a\n\nb')],
  'empty data': ['data\n\n', message('')],
  'comments': [': x\n:\ndata: a\n: keep-alive\ndata: b\n\n: y\n\n', message('a\nb')],
  'blank lines': ['\n\n\ndata: a\n\n\n\n', message('a')],
  'event name': ['event: error\ndata: a\n\ndata: b\n\n', [{ event: 'error', data: 'a' }, { event: 'message', data: 'b' }]],
  'event name without data': ['event: ping\n\ndata: a\n\n', message('a')],
  'other fields': ['id: 7\nretry: 10\nfoo: bar\nbar\ndata: a\n\n', message('a')],
  'colons in the value': ['data: {"a":1}\n\n', message('{"a":1}')],
  'byte order mark': ['\uFEFFdata: a\n\n', message('a')],
  'a later byte order mark is text': ['data: \uFEFFa\n\n', message('\uFEFFa')],
  'characters of two to four bytes': ['data: é水🦭\n\n', message('é水🦭')],
  'U+2028 and U+0085 end no line': ['data: a\u2028b\u0085c\n\n', message('a\u2028b\u0085c')],
  'unfinished event': ['data: a\n\ndata: b\n', message('a')],
  'unfinished line': ['data: a\n\ndata: b', message('a')],
}

for (const [name, [text, want]] of Object.entries(cases)) {
  test(`${name}, cut everywhere`, () => {
    const all = bytes(text)
    const read = (...pieces) => {
      const parser = new EventStreamParser()
      return pieces.flatMap((piece) => parser.push(piece))
    }
    assert.deepEqual(read(all), want, 'whole')
    assert.deepEqual(read(...Array.from(all, (b) => Uint8Array.of(b))), want, 'byte by byte')
    for (let i = 0; i <= all.length; i++) {
      for (let j = i; j <= all.length; j++) {
        assert.deepEqual(read(all.subarray(0, i), all.subarray(i, j), all.subarray(j)), want, `cut at ${i} and ${j}`)
      }
    }
  })
}

test('an event comes as soon as its blank line has begun', () => {
  const parser = new EventStreamParser()
  assert.deepEqual(parser.push(bytes('data: a\r\n\r')), message('a'))
  assert.deepEqual(parser.push(bytes('\ndata: b\n\n')), message('b'))
})

test('a line of 16 MiB in small pieces takes time in proportion', () => {
  const parser = new EventStreamParser()
  const piece = bytes('x'.repeat(4096))
  parser.push(bytes('data: '))
  const start = performance.now()
  for (let i = 0; i < 4096; i++) assert.deepEqual(parser.push(piece), [])
  const [event] = parser.push(bytes('\n\n'))
  assert.equal(event.data.length, 4096 * 4096)
  assert.ok(performance.now() - start < 3000, `it took ${performance.now() - start} ms`)
})

test('a line without an end is an error', () => {
  const parser = new EventStreamParser()
  const piece = bytes('x'.repeat(1 << 20))
  assert.throws(() => {
    for (let i = 0; i < 40; i++) parser.push(piece)
  }, ProtocolError)
})
