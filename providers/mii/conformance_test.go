package mii

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/providertest"
	"sluice/providers/upstream"
)

func template(t testing.TB, name string) *kit.Template {
	t.Helper()
	tmpl, err := kit.NamedTemplate(name)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func options(t testing.TB, baseURL string) Options {
	return Options{
		Upstream: upstream.Options{Name: "up", BaseURL: baseURL, Connect: time.Second, TLS: time.Second, Header: http.Header{"X-Extra": {"1"}}},
		Template: template(t, "chatml"), EOS: []string{"</s>"},
		MaxNewTokens: 64, MaxNewTokensLimit: 128, Temperature: 1, TopP: 1, MaxPrompt: 4 << 10,
		MaxEvent: providertest.MaxEvent, MaxAnswer: providertest.MaxAnswer,
	}
}

// open makes a provider that is closed when the test ends.
func open(t testing.TB, o Options) *Provider {
	t.Helper()
	p := New(o)
	t.Cleanup(p.Close)
	return p
}

func message(text, finish string, n int) string {
	return fmt.Sprintf(`{"response":[{"response":%q,"finish_reason":%q,"prompt_tokens":"3","generated_tokens":"%d","time_taken":-1,"model_time_taken":-1}]}`+"\n", text, finish, n)
}

var suite = providertest.Suite{
	New: func(t testing.TB, baseURL string) providers.Provider {
		return open(t, options(t, baseURL)).Target(providertest.Model)
	},
	Serve: serve, Ext: ".jsonl", Messages: true,
	Large: func(size int) []byte {
		return []byte(message(strings.Repeat("x", size), "none", 1) + message("", "stop", 1))
	},
	// The status is gRPC's, the body its message.
	Refusals: []providertest.Refusal{
		{Name: "prompt too long", Status: int(codes.Unknown), Body: "Exception calling application: max_length (8) must be greater than prompt_length (9)",
			Want: providers.Error{Kind: providers.Passed, Status: 400, Code: "context_length_exceeded", Message: "max_length (8) must"}},
		{Name: "prompt too long, 0.1", Status: int(codes.Unknown), Body: "Exception iterating responses: prompt length must be less than max_length",
			Want: providers.Error{Kind: providers.Passed, Status: 400, Code: "context_length_exceeded"}},
		{Name: "parameter", Status: int(codes.Unknown), Body: "Exception calling application: Extra inputs are not permitted",
			Want: providers.Error{Kind: providers.UpstreamFailed, Message: "Extra inputs are not permitted"}},
		{Name: "no such method, at the load balancer", Status: int(codes.Unknown), Body: "Error in service handler!", Want: providers.Error{Kind: providers.Protocol, Message: "mii.generation"}},
		{Name: "no such method, at a replica", Status: int(codes.Unimplemented), Body: "Method not found!", Want: providers.Error{Kind: providers.Protocol, Message: "UNIMPLEMENTED"}},
		{Name: "unavailable", Status: int(codes.Unavailable), Body: "failed to connect to all addresses", Want: providers.Error{Kind: providers.Overloaded}},
		{Name: "too large a request", Status: int(codes.ResourceExhausted), Body: "SERVER: Received message larger than max (134217729 vs. 134217728)", Want: providers.Error{Kind: providers.TooLarge}},
		{Name: "no more", Status: int(codes.ResourceExhausted), Body: "Concurrent RPC limit exceeded!", Want: providers.Error{Kind: providers.RateLimited}},
		{Name: "too late", Status: int(codes.DeadlineExceeded), Body: "Deadline Exceeded", Want: providers.Error{Kind: providers.Timeout}},
		{Name: "without a word", Status: int(codes.Unknown), Want: providers.Error{Kind: providers.UpstreamFailed, Message: "without a word"}},
	},
	// The server speaks text only, counts always, and its encoding allows no broken message.
	Lacks: []string{"no usage", "tools", "reasoning", "malformed"},
}

func TestConformance(t *testing.T) { suite.Run(t) }
