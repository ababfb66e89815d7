package main

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"sluice/handlers/dialect"
	"sluice/providers"
	"sluice/providers/openai"
	"sluice/providers/router"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// BenchmarkRelayedEvent is what one token costs between the upstream's bytes and the
// client's, without sockets and HTTP: adapter, attempt, hold, relay, encoder and sink.
func BenchmarkRelayedEvent(b *testing.B) {
	const id = `"id":"chatcmpl-9fJ3kZb1XvQ8tRw2","object":"chat.completion.chunk","created":1794700000,"model":"bench","system_fingerprint":"fp_1"`
	token := []byte(`data: {` + id + `,"choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n")
	body := &tokens{token: token, n: b.N, end: []byte(`data: {` + id + `,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n")}
	src := openai.Replay(openai.Options{Upstream: upstream.Options{Name: "up"}, MaxEvent: 1 << 20}, body)
	pool := &router.Pool{Model: "bench", Targets: []*router.Target{{Name: "up/bench", Provider: src, Weight: 1,
		Phases: router.Phases{Headers: time.Minute, FirstToken: time.Minute, Between: time.Minute, Silence: time.Minute}}}}
	r := router.New(router.NewCatalog([]*router.Pool{pool}, nil, time.Second, time.Minute), router.Options{Tries: 1, HoldEvents: 64, HoldBytes: 1 << 18})
	req := &providers.Request{ID: "req_1", Op: providers.Chat, Model: "bench", Stream: true, Choices: 1, WantsUsage: true}
	enc := dialect.NewChat(streaming.SSEFraming, dialect.Options{ID: "req_1", Model: "bench", Choices: 1, WantsUsage: true})
	sink := streaming.NewSSE(discard{}, 1, enc, time.Minute, nil)
	p := streaming.NewProgress(time.Now())
	b.ReportAllocs()
	b.ResetTimer()
	err := streaming.Relay{Heartbeat: time.Minute}.Run(context.Background(), func(ctx context.Context) streaming.Stream { return r.Stream(ctx, req, p) }, sink, p)
	if err != nil {
		b.Fatal(err)
	}
}

// tokens is a body that brings one event a read.
type tokens struct {
	token, end []byte
	n          int
}

func (t *tokens) Read(p []byte) (int, error) {
	switch {
	case t.n > 0:
		t.n--
		return copy(p, t.token), nil
	case t.end != nil:
		n := copy(p, t.end)
		t.end = nil
		return n, nil
	}
	return 0, io.EOF
}

type discard struct{}

func (discard) Header() http.Header              { return http.Header{} }
func (discard) WriteHeader(int)                  {}
func (discard) Write(b []byte) (int, error)      { return len(b), nil }
func (discard) Flush()                           {}
func (discard) SetWriteDeadline(time.Time) error { return nil }
