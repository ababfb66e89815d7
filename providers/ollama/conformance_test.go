package ollama

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/providertest"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// newTarget is an adapter of a server under test.
func newTarget(baseURL string, change func(*Options)) target {
	o := Options{Upstream: upstream.Options{Name: "up", BaseURL: baseURL}, Think: &kit.Think{}, MaxEvent: providertest.MaxEvent, MaxAnswer: providertest.MaxAnswer}
	if change != nil {
		change(&o)
	}
	return New(o).Target(providertest.Model).(target)
}

// play reads a body as an answer.
func play(req *providers.Request, p *streaming.Progress, body io.Reader) streaming.Stream {
	t := newTarget("http://127.0.0.1:1", nil)
	return t.thinking(req, func(yield func([]streaming.Event, error) bool) {
		r, err := t.translate(req)
		if err != nil {
			yield(nil, err)
			return
		}
		if !yield([]streaming.Event{t.meta(req, r)}, nil) {
			return
		}
		if req.Op == providers.Embeddings {
			t.relayEmbeddings(req, r, body, yield)
		} else {
			t.relay(req, r, body, p, yield)
		}
	})
}

var suite = providertest.Suite{
	New:  func(_ testing.TB, baseURL string) providers.Provider { return newTarget(baseURL, nil) },
	Play: play, Ext: ".ndjson", Type: "application/x-ndjson", Lines: true, NoWhole: true,
	Large: func(size int) []byte {
		return fmt.Appendf(nil, `{"message":{"role":"assistant","content":%q},"done":true,"done_reason":"stop"}`+"\n", strings.Repeat("x", size))
	},
	Refusals: []providertest.Refusal{
		{Name: "unknown model", Status: 404, Body: `{"error":"model 'm' not found"}`, Want: providers.Error{Kind: providers.Passed, Status: 404, Code: "model_not_found", Message: "model 'm' not found"}},
		{Name: "bad request", Status: 400, Body: `{"error":"\"m\" does not support thinking"}`, Want: providers.Error{Kind: providers.Passed, Status: 400, Message: "does not support thinking"}},
		{Name: "wrong option", Status: 500, Body: `{"error":"option \"temperature\" must be of type float32"}`, Want: providers.Error{Kind: providers.Passed, Status: 400, Message: "must be of type float32"}},
		{Name: "wrong format", Status: 500, Body: `{"error":"invalid format: \"7\"; expected \"json\" or a valid JSON Schema object"}`, Want: providers.Error{Kind: providers.Passed, Status: 400, Message: "invalid format"}},
		{Name: "not signed in", Status: 401, Body: `{"error":"unauthorized","signin_url":"https://example.com/?key=secret"}`, Want: providers.Error{Kind: providers.UpstreamCredential, Status: 401, Message: "unauthorized"}},
		{Name: "host check", Status: 403, Type: "text/plain", Body: ``, Want: providers.Error{Kind: providers.Passed, Status: 403, Message: "status 403 Forbidden"}},
		{Name: "cloud off", Status: 403, Body: `{"error":"remote inference is unavailable"}`, Want: providers.Error{Kind: providers.Passed, Status: 403, Message: "remote inference"}},
		{Name: "cancelled there", Status: 499, Body: `{"error":"request canceled"}`, Want: providers.Error{Kind: providers.UpstreamFailed, Status: 499, Message: "request canceled"}},
		{Name: "fault", Status: 500, Body: `{"error":"llama runner process has terminated: exit status 2"}`, Want: providers.Error{Kind: providers.UpstreamFailed, Status: 500, Message: "terminated"}},
		{Name: "cloud fault", Status: 502, Body: `{"error":"bad gateway"}`, Want: providers.Error{Kind: providers.UpstreamFailed, Status: 502}},
		{Name: "queue full", Status: 503, Header: http.Header{"Retry-After": {"2"}}, Body: `{"error":"server busy, please try again.  maximum pending requests exceeded"}`,
			Want: providers.Error{Kind: providers.Overloaded, Status: 503, Message: "server busy", RetryAfter: 2 * time.Second}},
		{Name: "no such route", Status: 404, Type: "text/plain", Body: "404 page not found", Want: providers.Error{Kind: providers.Protocol, Status: 404, Message: "status 404 Not Found where Ollama's answer to /api/chat was expected"}},
		{Name: "no such method", Status: 405, Type: "text/plain", Body: "405 method not allowed", Want: providers.Error{Kind: providers.Protocol, Status: 405, Message: "base_url"}},
		{Name: "another server", Status: 404, Body: `{"detail":"Not Found"}`, Want: providers.Error{Kind: providers.Protocol, Status: 404, Message: "base_url"}},
	},
}

func TestConformance(t *testing.T) { suite.Run(t) }

// tokens is an answer of so many pieces of text.
func tokens(events int) []byte {
	var out strings.Builder
	for i := range events {
		fmt.Fprintf(&out, `{"model":"llama3.2:3b","created_at":"2026-01-01T00:00:00.%09dZ","message":{"role":"assistant","content":" word"},"done":false}`+"\n", i)
	}
	out.WriteString(`{"model":"llama3.2:3b","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":2}` + "\n")
	return []byte(out.String())
}

// A read costs one allocation, for the texts that it brought.
func TestAllocations(t *testing.T) { suite.Allocations(t, tokens, 1) }

func BenchmarkStream(b *testing.B) { suite.Bench(b, tokens, 0) }
