package kserve

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/kit/pixels"
	"sluice/providers/providertest"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// writerSchema is a model that writes text, as vLLM's backend of Triton declares one.
func writerSchema(t testing.TB) Model {
	t.Helper()
	chat, err := kit.NamedTemplate("chatml")
	if err != nil {
		t.Fatal(err)
	}
	m := Model{
		Name: providertest.Model, Decoupled: true, Think: &kit.Think{}, Template: chat,
		Inputs: []Input{
			{Name: "text_input", Datatype: "BYTES", Shape: []int64{1}, Source: FromText},
			{Name: "max_tokens", Datatype: "INT32", Shape: []int64{1}, Source: FromParam, Param: "max_tokens", Value: "256"},
			{Name: "temperature", Datatype: "FP32", Shape: []int64{1}, Source: FromParam, Param: "temperature"},
			{Name: "return_finish_reason", Datatype: "BOOL", Shape: []int64{1}, Source: FromValue, Value: "true"},
		},
		Outputs: []Output{
			{Name: "text_output", Meaning: AsText}, {Name: "finish_reason", Meaning: AsFinishReason},
			{Name: "num_input_tokens", Meaning: AsPromptTokens}, {Name: "num_output_tokens", Meaning: AsOutputTokens},
		},
	}
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	return m
}

var somePixels = pixels.Limits{Pixels: 1 << 20, Decoders: 2, Memory: 16 << 20, Waiting: 8}

// newProvider is an adapter of a server under test.
func newProvider(baseURL string, change func(*Options), models ...Model) *Provider {
	o := Options{
		Upstream: upstream.Options{Name: "up", BaseURL: baseURL}, Binary: true, Models: models,
		Images: pixels.NewPool(somePixels), MaxImages: 4, MaxEvent: providertest.MaxEvent, MaxAnswer: providertest.MaxAnswer,
	}
	if change != nil {
		change(&o)
	}
	return New(o)
}

// play reads a body as that of the generate extension.
func play(t testing.TB) func(*providers.Request, *streaming.Progress, io.Reader) streaming.Stream {
	return func(req *providers.Request, p *streaming.Progress, body io.Reader) streaming.Stream {
		provider := newProvider("http://127.0.0.1:1", nil, writerSchema(t))
		via := &bodyTransport{provider.via.(*overHTTP), body}
		provider.via = via
		return provider.Target(providertest.Model).Stream(t.Context(), req, p)
	}
}

// bodyTransport has the body of the answer at hand.
type bodyTransport struct {
	*overHTTP
	body io.Reader
}

func (b *bodyTransport) generate(_ context.Context, c *call, take func(*answer) bool) error {
	_, err := b.events(c, b.body, take)
	return err
}

func httpSuite(t testing.TB) providertest.Suite {
	const words = `{"error":"%s"}`
	return providertest.Suite{
		New: func(t testing.TB, baseURL string) providers.Provider {
			return newProvider(baseURL, nil, writerSchema(t)).Target(providertest.Model)
		},
		Play: play(t), Ext: ".sse", Type: "text/event-stream; charset=utf-8", Lines: true, NoWhole: true,
		Large: func(size int) []byte {
			return fmt.Appendf(nil, "data: {\"text_output\":%q,\"finish_reason\":\"stop\"}\n\n", strings.Repeat("x", size))
		},
		Refusals: []providertest.Refusal{
			{Name: "unknown model", Status: 404, Type: "text/plain", Body: fmt.Sprintf(words, "Request for unknown model: 'm' is not found"), Want: providers.Error{Kind: providers.Passed, Status: 404, Message: "unknown model"}},
			{Name: "invalid", Status: 400, Body: fmt.Sprintf(words, "unexpected inference input 'z' for model 'm'"), Want: providers.Error{Kind: providers.Passed, Status: 400, Message: "unexpected inference input"}},
			{Name: "invalid, as an event", Status: 400, Type: "text/event-stream", Body: "data: " + fmt.Sprintf(words, "Failed to process") + "\n\n", Want: providers.Error{Kind: providers.Passed, Status: 400, Message: "Failed to process"}},
			{Name: "internal", Status: 500, Body: fmt.Sprintf(words, "CUDA error"), Want: providers.Error{Kind: providers.UpstreamFailed, Status: 500, Message: "CUDA error"}},
			{Name: "internal, as an event", Status: 500, Type: "text/event-stream; charset=utf-8", Body: "data: " + fmt.Sprintf(words, "CUDA error") + "\n\n", Want: providers.Error{Kind: providers.UpstreamFailed, Status: 500, Message: "CUDA error"}},
			{Name: "unavailable", Status: 503, Body: fmt.Sprintf(words, "not ready"), Want: providers.Error{Kind: providers.Overloaded, Status: 503, Message: "not ready"}},
			{Name: "unsupported", Status: 501, Type: "text/plain", Body: fmt.Sprintf(words, "HTTP end point doesn't support models with decoupled transaction policy"), Want: providers.Error{Kind: providers.Protocol, Status: 501, Message: "decoupled"}},
			{Name: "restricted", Status: 403, Body: fmt.Sprintf(words, "This API is restricted, expecting header 'x'"), Want: providers.Error{Kind: providers.UpstreamCredential, Status: 403, Message: "restricted"}},
			{Name: "not signed in", Status: 401, Body: fmt.Sprintf(words, "no"), Want: providers.Error{Kind: providers.UpstreamCredential, Status: 401}},
			{Name: "too many", Status: 429, Header: http.Header{"Retry-After": {"2"}}, Body: fmt.Sprintf(words, "slow down"), Want: providers.Error{Kind: providers.RateLimited, Status: 429, RetryAfter: 2e9}},
			{Name: "error with status 200", Status: 200, Body: fmt.Sprintf(words, "generate expects model to produce exactly 1 response"), Want: providers.Error{Kind: providers.UpstreamFailed, Message: "exactly 1 response"}},
		},
		Lacks: []string{"tools"},
	}
}

func TestConformanceHTTP(t *testing.T) { httpSuite(t).Run(t) }

// tokens is an answer of so many pieces of text.
func tokens(events int) []byte {
	var out strings.Builder
	for range events {
		out.WriteString("data: {\"model_name\":\"m\",\"model_version\":\"1\",\"text_output\":\" word\"}\n\n")
	}
	out.WriteString("data: {\"model_name\":\"m\",\"model_version\":\"1\",\"text_output\":\"\",\"finish_reason\":\"stop\"}\n\n")
	return []byte(out.String())
}

// An event costs one allocation, for its text.
func TestAllocationsHTTP(t *testing.T) { httpSuite(t).Allocations(t, tokens, 1) }

func BenchmarkStreamHTTP(b *testing.B) { httpSuite(b).Bench(b, tokens, 1) }
