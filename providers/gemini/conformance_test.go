package gemini

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"sluice/providers"
	"sluice/providers/providertest"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// options are those of the shipped configuration.
func options(baseURL string) Options {
	return Options{
		Upstream: upstream.Options{Name: "up", BaseURL: baseURL}, APIKey: "key-1",
		Budgets: Budgets{Low: 1024, Medium: 8192, High: 24576}, Memory: 1 << 20, NamedFiles: true,
		MaxEvent: providertest.MaxEvent, MaxAnswer: providertest.MaxAnswer,
	}
}

func newTarget(opt Options, model string) target { return New(opt).Target(model).(target) }

func play(req *providers.Request, p *streaming.Progress, body io.Reader) streaming.Stream {
	t := newTarget(options("http://up.test"), providertest.Model)
	return func(yield func([]streaming.Event, error) bool) {
		r, err := t.translate(req)
		if err != nil {
			yield(nil, err)
			return
		}
		if req.Stream {
			t.relay(r, body, p, yield)
		} else {
			t.relayWhole(r, body, p, yield)
		}
	}
}

var suite = providertest.Suite{
	New: func(_ testing.TB, baseURL string) providers.Provider {
		return New(options(baseURL)).Target(providertest.Model)
	},
	Play: play,
	Ext:  ".sse", Type: "text/event-stream", Lines: true,
	Large:    func(size int) []byte { return transcript(strings.Repeat("a", size)) },
	Refusals: refusals,
}

// transcript is a stream of these pieces of text.
func transcript(pieces ...string) []byte {
	var b strings.Builder
	for i, p := range pieces {
		finish := ""
		if i == len(pieces)-1 {
			finish = `,"finishReason":"STOP"`
		}
		fmt.Fprintf(&b, `data: {"candidates":[{"content":{"parts":[{"text":%q}],"role":"model"}%s,"index":0}],`+
			`"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":%d,"totalTokenCount":%d},"modelVersion":"gemini-x","responseId":"abc"}`+"\r\n\r\n", p, finish, i+1, i+4)
	}
	return []byte(b.String())
}

func refusal(code int, status, message, details string, want providers.Error) providertest.Refusal {
	want.Status, want.Type, want.Message = code, status, message
	return providertest.Refusal{
		Name: fmt.Sprintf("%d %s %s", code, status, details), Status: code,
		Body: fmt.Sprintf(`{"error":{"code":%d,"message":%q,"status":%q,"details":[%s]}}`, code, message, status, details), Want: want,
	}
}

var refusals = []providertest.Refusal{
	refusal(400, "INVALID_ARGUMENT", "Unknown name", "", providers.Error{Kind: providers.Passed}),
	refusal(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8).", "", providers.Error{Kind: providers.Passed, Code: contextLength}),
	refusal(400, "INVALID_ARGUMENT", "API key not valid.", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}`, providers.Error{Kind: providers.UpstreamCredential}),
	refusal(400, "FAILED_PRECONDITION", "User location is not supported", "", providers.Error{Kind: providers.UpstreamCredential}),
	refusal(400, "OUT_OF_RANGE", "too much", "", providers.Error{Kind: providers.Passed}),
	refusal(401, "UNAUTHENTICATED", "no credentials", "", providers.Error{Kind: providers.UpstreamCredential}),
	refusal(403, "PERMISSION_DENIED", "not this file", "", providers.Error{Kind: providers.Passed}),
	refusal(403, "PERMISSION_DENIED", "the API is off", `{"reason":"SERVICE_DISABLED"}`, providers.Error{Kind: providers.UpstreamCredential}),
	refusal(404, "NOT_FOUND", "models/x is not found", "", providers.Error{Kind: providers.Passed, Code: modelNotFound}),
	refusal(409, "ABORTED", "conflict", "", providers.Error{Kind: providers.Passed}),
	refusal(429, "RESOURCE_EXHAUSTED", "quota", `{"@type":"type.googleapis.com/google.rpc.QuotaFailure"},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.5s"}`,
		providers.Error{Kind: providers.RateLimited, RetryAfter: 34500 * time.Millisecond}),
	refusal(499, "CANCELLED", "cancelled", "", providers.Error{Kind: providers.Passed}),
	refusal(500, "INTERNAL", "fault", "", providers.Error{Kind: providers.UpstreamFailed}),
	refusal(501, "UNIMPLEMENTED", "not here", "", providers.Error{Kind: providers.UpstreamFailed}),
	refusal(503, "UNAVAILABLE", "The model is overloaded.", "", providers.Error{Kind: providers.Overloaded}),
	refusal(504, "DEADLINE_EXCEEDED", "too slow", "", providers.Error{Kind: providers.UpstreamFailed}),
	{Name: "in a list", Status: 503, Body: "[{\n\"error\":{\"code\":503,\"message\":\"overloaded\",\"status\":\"UNAVAILABLE\"}}\n]\n", Want: providers.Error{Kind: providers.Overloaded, Status: 503, Message: "overloaded", Type: "UNAVAILABLE"}},
	{Name: "HTML", Status: 502, Type: "text/html", Body: "<html>Error 502</html>", Want: providers.Error{Kind: providers.UpstreamFailed, Status: 502}},
	{Name: "plain text", Status: 404, Type: "text/plain", Body: "not here", Want: providers.Error{Kind: providers.Protocol, Status: 404, Message: "the Gemini API to /models/"}},
	refusal(404, "", "Method not found.", "", providers.Error{Kind: providers.Protocol}),
	{Name: "too large for a proxy", Status: 413, Type: "text/html", Body: "<html>413</html>", Want: providers.Error{Kind: providers.Passed, Status: 413}},
	{Name: "302", Status: 302, Want: providers.Error{Kind: providers.Protocol, Status: 302, Message: "base_url"}},
}

func TestConformance(t *testing.T) { suite.Run(t) }

// tokens is an answer of so many pieces of text.
func tokens(events int) []byte {
	pieces := make([]string, events)
	for i := range pieces {
		pieces[i] = " token"
	}
	return transcript(pieces...)
}

// A read costs one allocation, for the texts that it brought.
func TestAllocations(t *testing.T) { suite.Allocations(t, tokens, 1) }

func BenchmarkStream(b *testing.B) { suite.Bench(b, tokens, 0) }
