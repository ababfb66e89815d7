package tgi

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/providertest"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// newTarget is an adapter of a server under test.
func newTarget(t testing.TB, baseURL string, change func(*Options)) target {
	t.Helper()
	template, err := kit.NamedTemplate("chatml")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Upstream: upstream.Options{Name: "up", BaseURL: baseURL}, Template: template, Think: &kit.Think{}, MaxEvent: providertest.MaxEvent, MaxAnswer: providertest.MaxAnswer}
	if change != nil {
		change(&o)
	}
	return New(o).Target(providertest.Model).(target)
}

var suite = providertest.Suite{
	New: func(t testing.TB, baseURL string) providers.Provider { return newTarget(t, baseURL, nil) },
	Play: func(req *providers.Request, p *streaming.Progress, body io.Reader) streaming.Stream {
		template, _ := kit.NamedTemplate("chatml")
		t := New(Options{Template: template, Think: &kit.Think{}, MaxEvent: providertest.MaxEvent, MaxAnswer: providertest.MaxAnswer}).Target(providertest.Model).(target)
		r, err := t.translate(req)
		if err != nil {
			return func(yield func([]streaming.Event, error) bool) { yield(nil, err) }
		}
		return t.thoughtful(r, func(yield func([]streaming.Event, error) bool) {
			switch {
			case !yield([]streaming.Event{t.meta(r)}, nil):
			case req.Stream: // a server may answer whole all the same
				t.relay(r, body, p, yield)
			default:
				t.relayWhole(r, "3", body, yield)
			}
		})
	},
	Ext: ".sse", Type: "text/event-stream", Lines: true, Lacks: []string{"tools"},
	Large: func(size int) []byte {
		return fmt.Appendf(nil, `data:{"index":1,"token":{"id":1,"text":%q,"special":false},"generated_text":"","details":{"finish_reason":"eos_token","generated_tokens":1,"input_length":1}}`+"\n\n", strings.Repeat("x", size))
	},
	Refusals: []providertest.Refusal{
		{Name: "validation", Status: 422, Body: `{"error":"Input validation error: temperature must be strictly positive","error_type":"validation"}`,
			Want: providers.Error{Kind: providers.Passed, Status: 422, Type: "invalid_request_error", Message: "temperature must be strictly positive"}},
		{Name: "template", Status: 422, Body: `{"error":"Template error","error_type":"template_error"}`, Want: providers.Error{Kind: providers.Passed, Status: 422}},
		{Name: "unreadable", Status: 422, Type: "text/plain; charset=utf-8", Body: "Failed to deserialize the JSON body into the target type: parameters: unknown field", Want: providers.Error{Kind: providers.Passed, Status: 422, Message: "unknown field"}},
		{Name: "too large", Status: 413, Type: "text/plain", Body: "length limit exceeded", Want: providers.Error{Kind: providers.Passed, Status: 413, Message: "length limit"}},
		{Name: "overloaded", Status: 429, Body: `{"error":"Model is overloaded","error_type":"overloaded"}`, Want: providers.Error{Kind: providers.Overloaded, Status: 429, Message: "Model is overloaded"}},
		{Name: "generation", Status: 424, Body: `{"error":"Request failed during generation: CUDA error","error_type":"generation"}`, Want: providers.Error{Kind: providers.UpstreamFailed, Status: 424, Message: "CUDA error"}},
		{Name: "incomplete", Status: 500, Body: `{"error":"Incomplete generation","error_type":"incomplete_generation"}`, Want: providers.Error{Kind: providers.UpstreamFailed, Status: 500}},
		{Name: "unhealthy", Status: 503, Body: `{"error":"unhealthy","error_type":"healthcheck"}`, Want: providers.Error{Kind: providers.Overloaded, Status: 503}},
		{Name: "key", Status: 401, Type: "text/plain", Body: "", Want: providers.Error{Kind: providers.UpstreamCredential, Status: 401}},
		{Name: "another server", Status: 404, Body: `{"detail":"Not Found"}`, Want: providers.Error{Kind: providers.Protocol, Status: 404, Message: "base_url"}},
		{Name: "redirect", Status: 307, Type: "text/html", Body: "<a>elsewhere</a>", Want: providers.Error{Kind: providers.Protocol, Status: 307, Message: "base_url"}},
	},
}

func TestConformance(t *testing.T) { suite.Run(t) }

// tokens is an answer of so many pieces of text.
func tokens(events int) []byte {
	var out strings.Builder
	for i := range events {
		fmt.Fprintf(&out, `data:{"index":%d,"token":{"id":%d,"text":" word","logprob":-0.30078125,"special":false},"generated_text":null,"details":null}`+"\n\n", i, 1000+i)
	}
	out.WriteString(`data:{"index":9,"token":{"id":2,"text":"</s>","logprob":-0.1,"special":true},"generated_text":"x","details":{"finish_reason":"eos_token","generated_tokens":9,"seed":null,"input_length":3}}` + "\n\n")
	return []byte(out.String())
}

// A read costs one allocation, for the texts that it brought.
func TestAllocations(t *testing.T) { suite.Allocations(t, tokens, 1) }

func BenchmarkStream(b *testing.B) { suite.Bench(b, tokens, 0) }
