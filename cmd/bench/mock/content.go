package mock

import (
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
)

const (
	// Seeds is how many different contents there are, so that an answer given to
	// the wrong client shows.
	Seeds = 16
	// Period is after how many tokens a content repeats.
	Period = 1024
)

// Words returns the tokens of one content: token i is Words(seed)[i%Period].
// Each is a link of a hash chain, so a lost, doubled or moved token shows at
// once. None of them needs escaping in JSON. The slice is shared: do not change.
func Words(seed int) []string { return words[seed%Seeds]() }

var words = perSeed(func(seed int) []string {
	out := make([]string, Period)
	h := fnv.New64a()
	for i := range out {
		fmt.Fprintf(h, "%d/%d", seed, i) // never fails
		out[i] = fmt.Sprintf(" %012x", h.Sum64()&(1<<48-1))
	}
	return out
})

// Text is the content of a whole answer of n tokens.
func Text(seed, n int) string {
	var b strings.Builder
	w := Words(seed)
	for i := range n {
		b.WriteString(w[i%Period])
	}
	return b.String()
}

// script holds the bytes of one content, each event framed as an HTTP chunk of
// its own, the way token servers send them.
type script struct {
	role   []byte // response head and role event
	events []byte // Period events, one after another
	off    []int  // event i is events[off[i]:off[i+1]]
	finish []byte
	prefix string // of every event's JSON, up to the choices
}

// scripts[0] is without the usage field, scripts[1] with "usage":null in every
// event, as api.openai.com sends it when usage was asked for.
var scripts = [2][Seeds]func() *script{
	perSeed(func(seed int) *script { return newScript(seed, "") }),
	perSeed(func(seed int) *script { return newScript(seed, `,"usage":null`) }),
}

func scriptFor(s Shape) *script {
	if s.Usage {
		return scripts[1][s.Seed%Seeds]()
	}
	return scripts[0][s.Seed%Seeds]()
}

const streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n" +
	"X-Request-Id: req_0123456789abcdef\r\nTransfer-Encoding: chunked\r\n\r\n"

func newScript(seed int, usage string) *script {
	sc := &script{off: make([]int, 1, Period+1)}
	sc.prefix = fmt.Sprintf(`{"id":"chatcmpl-Bench%024d","object":"chat.completion.chunk","created":1794700000,`+
		`"model":"bench","service_tier":"default","system_fingerprint":"fp_%010x"`, seed, seed)
	event := func(dst []byte, delta, finish string) []byte {
		return appendChunk(dst, fmt.Appendf(nil, `data: %s,"choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]%s}`+"\n\n",
			sc.prefix, delta, finish, usage))
	}
	sc.role = event([]byte(streamHead), `{"role":"assistant","content":"","refusal":null}`, "null")
	for _, w := range Words(seed) {
		sc.events = event(sc.events, fmt.Sprintf(`{"content":%q}`, w), "null")
		sc.off = append(sc.off, len(sc.events))
	}
	sc.finish = event(nil, "{}", `"stop"`)
	return sc
}

// tail is what follows the last token: finish, usage if asked, the [DONE] mark
// and the end of the body.
func (sc *script) tail(dst []byte, s Shape) []byte {
	dst = append(dst, sc.finish...)
	if s.Usage {
		dst = appendChunk(dst, fmt.Appendf(nil, `data: %s,"choices":[],"usage":{"prompt_tokens":21,"completion_tokens":%d,"total_tokens":%d}}`+"\n\n",
			sc.prefix, s.Tokens, s.Tokens+21))
	}
	dst = appendChunk(dst, []byte("data: [DONE]\n\n"))
	return append(dst, "0\r\n\r\n"...)
}

// whole is a complete non-streamed response, about 1.2 KB of body for 50 tokens.
func whole(dst []byte, s Shape) []byte {
	body := fmt.Sprintf(`{"id":"chatcmpl-Bench%024d","object":"chat.completion","created":1794700000,"model":"bench","choices":[{"index":0,`+
		`"message":{"role":"assistant","content":%q,"refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],`+
		`"usage":{"prompt_tokens":21,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},`+
		`"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},`+
		`"service_tier":"default","system_fingerprint":"fp_%010x"}`+"\n", s.Seed, Text(s.Seed, s.Tokens), s.Tokens, s.Tokens+21, s.Seed)
	return response(dst, "200 OK", body)
}

func response(dst []byte, status, body string) []byte {
	return fmt.Appendf(dst, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nX-Request-Id: req_0123456789abcdef\r\nContent-Length: %d\r\n\r\n%s",
		status, len(body), body)
}

func appendChunk(dst, data []byte) []byte {
	dst = fmt.Appendf(dst, "%x\r\n", len(data))
	dst = append(dst, data...)
	return append(dst, "\r\n"...)
}

func perSeed[T any](build func(seed int) T) (out [Seeds]func() T) {
	for seed := range out {
		out[seed] = sync.OnceValue(func() T { return build(seed) })
	}
	return out
}
