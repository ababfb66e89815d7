package anthropic

import (
	"fmt"
	"io"
	"net/http"
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
		Upstream: upstream.Options{Name: "up", BaseURL: baseURL}, APIKey: "sk-1", Version: "2023-06-01",
		Budgets: Budgets{Low: 2048, Medium: 8192, High: 24576}, Memory: 1 << 20,
		MaxEvent: providertest.MaxEvent, MaxAnswer: providertest.MaxAnswer,
	}
}

func newTarget(opt Options, model string) target { return New(opt).Target(model).(target) }

func play(req *providers.Request, p *streaming.Progress, body io.Reader) streaming.Stream {
	t := newTarget(options("http://up.test"), providertest.Model)
	return func(yield func([]streaming.Event, error) bool) {
		a, err := t.translate(req)
		if err != nil {
			yield(nil, err)
			return
		}
		if req.Stream {
			t.relay(a, body, p, yield)
		} else {
			t.relayWhole(a, body, p, yield)
		}
	}
}

var suite = providertest.Suite{
	New: func(_ testing.TB, baseURL string) providers.Provider {
		return New(options(baseURL)).Target(providertest.Model)
	},
	Play: play,
	Ext:  ".sse", Type: "text/event-stream; charset=utf-8", Lines: true,
	Large:    func(size int) []byte { return transcript(strings.Repeat("a", size)) },
	Refusals: refusals,
}

// transcript is a stream of these pieces of text.
func transcript(pieces ...string) []byte {
	var b strings.Builder
	event := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "event: %s\ndata: {\"type\":%q%s}\n\n", name, name, fmt.Sprintf(format, args...))
	}
	event("message_start", `,"message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],"usage":{"input_tokens":3,"output_tokens":1}}`)
	event("content_block_start", `,"index":0,"content_block":{"type":"text","text":""}`)
	for _, p := range pieces {
		event("content_block_delta", `,"index":0,"delta":{"type":"text_delta","text":%q}`, p)
	}
	event("content_block_stop", `,"index":0`)
	event("message_delta", `,"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":%d}`, len(pieces))
	event("message_stop", "")
	return []byte(b.String())
}

func refusal(status int, kind, message string, want providers.Error) providertest.Refusal {
	want.Status, want.Type, want.Message = status, kind, message
	return providertest.Refusal{
		Name: fmt.Sprintf("%d %s %s", status, kind, want.Code), Status: status,
		Body: fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q},"request_id":"req_1"}`, kind, message), Want: want,
	}
}

var refusals = []providertest.Refusal{
	refusal(400, "invalid_request_error", "max_tokens: too many", providers.Error{Kind: providers.Passed}),
	refusal(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", providers.Error{Kind: providers.Passed, Code: contextLength}),
	refusal(401, "authentication_error", "invalid x-api-key", providers.Error{Kind: providers.UpstreamCredential}),
	refusal(402, "billing_error", "no credit", providers.Error{Kind: providers.RateLimited, Code: insufficientQuota}),
	refusal(403, "permission_error", "not this model", providers.Error{Kind: providers.UpstreamCredential}),
	refusal(404, "not_found_error", "model: claude-0", providers.Error{Kind: providers.Passed, Code: modelNotFound}),
	{Name: "no such route", Status: 404, Body: `{"type":"error","error":{"type":"not_found_error","message":"Not Found"}}`, Want: providers.Error{Kind: providers.Protocol, Status: 404, Message: "Messages API to /messages was expected"}},
	{Name: "another API's 403", Status: 403, Body: `{"error":{"message":"no"}}`, Want: providers.Error{Kind: providers.Protocol, Status: 403}},
	refusal(409, "conflict_error", "busy", providers.Error{Kind: providers.Passed}),
	refusal(413, "request_too_large", "32 MB", providers.Error{Kind: providers.Passed}),
	refusal(500, "api_error", "Internal server error", providers.Error{Kind: providers.UpstreamFailed}),
	refusal(503, "api_error", "later", providers.Error{Kind: providers.Overloaded}),
	refusal(504, "timeout_error", "took too long", providers.Error{Kind: providers.UpstreamFailed}),
	refusal(529, "overloaded_error", "Overloaded", providers.Error{Kind: providers.Overloaded}),
	{
		Name: "429", Status: 429, Header: http.Header{"Retry-After": {"7"}},
		Body: `{"type":"error","error":{"type":"rate_limit_error","message":"slow down"},"request_id":null}`,
		Want: providers.Error{Kind: providers.RateLimited, Status: 429, Type: "rate_limit_error", Message: "slow down", RetryAfter: 7 * time.Second},
	},
	{
		Name: "429, spent", Status: 429,
		Body: `{"type":"error","error":{"type":"rate_limit_error","message":"spent","details":{"error_code":"enforced_spend_limit_reached"}}}`,
		Want: providers.Error{Kind: providers.RateLimited, Code: insufficientQuota, Message: "spent"},
	},
	{
		Name: "503 with a code", Status: 503,
		Body: `{"type":"error","error":{"type":"api_error","message":"key service","details":{"error_code":"cmek_unavailable"}}}`,
		Want: providers.Error{Kind: providers.Overloaded, Code: "cmek_unavailable", Message: "key service"},
	},
	{Name: "502 of a proxy", Status: 502, Type: "text/html", Body: "<html>Bad gateway</html>", Want: providers.Error{Kind: providers.UpstreamFailed, Status: 502}},
	{Name: "403 of a proxy", Status: 403, Type: "text/plain", Body: "blocked", Want: providers.Error{Kind: providers.Protocol, Status: 403, Message: "(blocked)"}},
	{Name: "408", Status: 408, Body: `{}`, Want: providers.Error{Kind: providers.Passed, Status: 408}},
	{Name: "302", Status: 302, Body: ``, Want: providers.Error{Kind: providers.Protocol, Status: 302, Message: "base_url"}},
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
