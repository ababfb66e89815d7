package mii

import (
	"testing"

	"sluice/providers"
	"sluice/providers/providertest"
)

func restOptions(t testing.TB, baseURL string) Options {
	o := options(t, baseURL)
	o.REST, o.Deployment, o.MaxAnswer = true, "org/the model-mii-deployment", providertest.MaxEvent
	return o
}

// rest is the suite over the RESTful gateway, whose answers come at once.
var rest = providertest.Suite{
	New: func(t testing.TB, baseURL string) providers.Provider {
		return open(t, restOptions(t, baseURL)).Target(providertest.Model)
	},
	Dir: "testdata/rest", Ext: ".rest", Type: "application/json", AtOnce: true,
	Large: func(size int) []byte {
		return append(append([]byte(`[{"finish_reason":"stop","generated_length":1,"prompt_length":1,"generated_text":"`), xs(size)...), `"}]`...)
	},
	Refusals: []providertest.Refusal{
		{Name: "anything raised", Status: 500, Body: `{"message": "Internal Server Error"}`, Want: providers.Error{Kind: providers.UpstreamFailed, Status: 500, Message: "Internal Server Error"}},
		{Name: "bad JSON", Status: 400, Body: `{"message": "Failed to decode JSON object"}`, Want: providers.Error{Kind: providers.Passed, Status: 400}},
		{Name: "no such deployment", Status: 404, Type: "text/html", Body: "<h1>Not Found</h1>", Want: providers.Error{Kind: providers.Protocol, Message: "org/the model-mii-deployment"}},
		{Name: "wrong method", Status: 405, Body: `{"message": "The method is not allowed for the requested URL."}`, Want: providers.Error{Kind: providers.Protocol}},
		{Name: "wrong type", Status: 415, Body: `{"message": "Did not attempt to load JSON data"}`, Want: providers.Error{Kind: providers.Passed, Status: 415}},
	},
	Lacks: []string{"truncated", "in-band error", "no usage", "tools", "reasoning", "malformed"},
}

// xs is text of so many bytes.
func xs(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = 'x'
	}
	return b
}

func TestConformanceREST(t *testing.T) { rest.Run(t) }
