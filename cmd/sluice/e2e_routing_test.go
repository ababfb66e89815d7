package main

import (
	"fmt"
	"net/http"
	"testing"

	"sluice/providers/providertest/wall"
)

// TestRouting asks for models by all the names that they have, and looks at who answers.
func TestRouting(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, fmt.Sprintf(`
[[upstreams]]
name = "up"
base_url = %q
models = ["unused"]
health = "token"

[[upstreams]]
name = "gone"
base_url = "http://127.0.0.1:1/v1"
models = ["unused"]
list_models = false

[[models]]
name = "assistant"
aliases = ["default"]
balance = "round_robin"
targets = [{ upstream = "up", model = "one", version = "v1" }, { upstream = "up", model = "two", version = "v2" }]

[[models]]
name = "down"
fallback = ["nobody-home", "default"]
targets = [{ upstream = "gone" }]

[[models]]
name = "nobody-home"
targets = [{ upstream = "gone", drained = true }]

[[models]]
name = "gpt-*"
balance = "hash"
targets = [{ upstream = "up" }, { upstream = "gone", priority = 1 }]
`, base))
	for _, c := range []struct {
		model, version string
		status         int
		target         string // "" is any
	}{
		{"assistant", "", 200, ""}, {"default", "", 200, ""}, {"assistant@v1", "", 200, "up/one"}, {"default@v2", "", 200, "up/two"},
		{"assistant", "v2", 200, "up/two"}, {"assistant", "v3", 404, ""}, {"assistant@v3", "", 404, ""}, {"gpt-x", "", 200, "up/gpt-x"},
		{"gpt-a/b", "", 200, "up/gpt-a/b"}, {"down", "", 200, ""}, {"nobody-home", "", 503, ""}, {"asistant", "", 404, ""},
	} {
		var headers []string
		if c.version != "" {
			headers = []string{"X-Model-Version: " + c.version}
		}
		a := g.do(t, http.MethodPost, "/chat/completions", fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hi"}]}`, c.model), headers...)
		if got := a.header.Get("X-Sluice-Target"); a.status != c.status || c.target != "" && got != c.target {
			t.Errorf("%s %s: status %d from %q, want %d from %q", c.model, c.version, a.status, got, c.status, c.target)
		}
	}
}
