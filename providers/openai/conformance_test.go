package openai

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"sluice/providers"
	"sluice/providers/providertest"
	"sluice/providers/upstream"
	"sluice/streaming"
)

const contentChunk = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{%s"content":%q},"logprobs":null,"finish_reason":%s}]}` + "\n\n"

var suite = providertest.Suite{
	New: func(_ testing.TB, baseURL string) providers.Provider {
		return New(options(baseURL)).Target(providertest.Model)
	},
	Play: func(req *providers.Request, p *streaming.Progress, body io.Reader) streaming.Stream {
		return func(yield func([]streaming.Event, error) bool) {
			New(options("http://unused")).relayEvents(req, &call{}, body, p, yield)
		}
	},
	Ext: ".sse", Type: "text/event-stream", Lines: true,
	Large: func(size int) []byte {
		return fmt.Appendf(nil, contentChunk+"data: [DONE]\n\n", `"role":"assistant",`, strings.Repeat("x", size), `"stop"`)
	},
	Refusals: []providertest.Refusal{
		{Name: "bad request", Status: 400, Body: `{"error":{"message":"no","type":"invalid_request_error","param":"n","code":"bad"}}`,
			Want: providers.Error{Kind: providers.Passed, Status: 400, Message: "no", Param: "n", Code: "bad", Type: "invalid_request_error"}},
		{Name: "credential", Status: 401, Body: `{"error":{"message":"who?"}}`, Want: providers.Error{Kind: providers.UpstreamCredential, Status: 401}},
		{Name: "forbidden", Status: 403, Body: `{"error":{"message":"no"}}`, Want: providers.Error{Kind: providers.Passed, Status: 403}},
		{Name: "no such model", Status: 404, Body: `{"error":{"message":"no model","code":"model_not_found"}}`, Want: providers.Error{Kind: providers.Passed, Status: 404, Code: "model_not_found"}},
		{Name: "no such model, by a detail", Status: 404, Body: `{"detail":"Model m not found"}`, Want: providers.Error{Kind: providers.Passed, Status: 404, Message: "Model m"}},
		{Name: "no such route, enveloped", Status: 404, Body: `{"error":{"message":"Not Found","type":"Not Found","code":404}}`, Want: providers.Error{Kind: providers.Protocol, Status: 404, Message: "OpenAI's API to /chat/completions was expected"}},
		{Name: "no such route, OpenAI", Status: 404, Body: `{"error":{"message":"Unknown request URL: POST /chat/completions.","type":"invalid_request_error","param":null,"code":"unknown_url"}}`, Want: providers.Error{Kind: providers.Protocol, Status: 404}},
		{Name: "no such method, enveloped", Status: 405, Body: `{"error":{"message":"Method Not Allowed"}}`, Want: providers.Error{Kind: providers.Protocol, Status: 405}},
		{Name: "wrong values, by a detail", Status: 422, Body: `{"detail":[{"loc":["body","n"]}]}`, Want: providers.Error{Kind: providers.Passed, Status: 422}},
		{Name: "too large for a proxy", Status: 413, Type: "text/html", Body: "<html>413</html>", Want: providers.Error{Kind: providers.Passed, Status: 413}},
		{Name: "busy", Status: 429, Body: `{"error":{"message":"slow down"}}`, Want: providers.Error{Kind: providers.RateLimited, Status: 429, Message: "slow down"}},
		{Name: "failed", Status: 500, Type: "text/plain", Body: "Internal Server Error", Want: providers.Error{Kind: providers.UpstreamFailed, Status: 500, Message: "Internal Server Error"}},
		{Name: "loading", Status: 503, Body: `{"error":{"message":"loading"}}`, Want: providers.Error{Kind: providers.Overloaded, Status: 503}},
	},
	// Bodies that are not streamed are judged in whole_test.go.
	Lacks: []string{"whole"},
}

func options(baseURL string) Options {
	return Options{Upstream: upstream.Options{Name: "up", BaseURL: baseURL}, MaxEvent: providertest.MaxEvent, MaxAnswer: providertest.MaxAnswer}
}

func TestConformance(t *testing.T) { suite.Run(t) }

// tokens is an answer of so many events.
func tokens(events int) []byte {
	text := fmt.Appendf(nil, contentChunk, `"role":"assistant",`, "", "null")
	for range events {
		text = fmt.Appendf(text, contentChunk, "", " token", "null")
	}
	text = fmt.Appendf(text, contentChunk, "", "", `"stop"`)
	return append(text, "data: [DONE]\n\n"...)
}

// BenchmarkStream is the raw relay, against which translations are measured.
func BenchmarkStream(b *testing.B) { suite.Bench(b, tokens, 0) }

// BenchmarkStreamSplit is the same with blocks of thoughts looked for, as by default.
func BenchmarkStreamSplit(b *testing.B) {
	s := suite
	s.Play = func(req *providers.Request, p *streaming.Progress, body io.Reader) streaming.Stream {
		return func(yield func([]streaming.Event, error) bool) {
			New(thinkOptions("http://unused")).relayEvents(req, &call{}, body, p, yield)
		}
	}
	s.Bench(b, tokens, 0)
}
