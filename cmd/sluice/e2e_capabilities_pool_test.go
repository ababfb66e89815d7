package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Pools whose upstreams are of several kinds answer one and the same request the same way
// each time: what one adapter refuses, or would leave out, goes to another that need not.
func TestMixedPoolsEndToEnd(t *testing.T) {
	whole, wholeAsked := countingServer(t)
	other, _ := countingServer(t)
	var toml strings.Builder
	for _, u := range []struct{ name, kind, base, more string }{
		{"whole", "openai", whole, ""}, {"mii", "mii", other, "[upstreams.mii]\ntransport = \"rest\"\ndeployment = \"d\""}, {"ollama", "ollama", other, ""},
		{"claude", "anthropic", other, ""}, {"drops", "ollama", other, "unsupported = \"drop\""},
	} {
		fmt.Fprintf(&toml, "[[upstreams]]\nname = %q\nkind = %q\nbase_url = %q\nlist_models = false\nmodels = [\"%s-*\"]\n%s\n", u.name, u.kind, u.base, u.name, u.more)
	}
	for _, name := range []string{"mii", "ollama", "claude", "drops"} {
		fmt.Fprintf(&toml, "[[models]]\nname = \"with-%s\"\ntargets = [{ upstream = %q, model = \"x\", weight = 9 }, { upstream = \"whole\", model = \"x\" }]\n", name, name)
	}
	toml.WriteString("[[models]]\nname = \"neither\"\ntargets = [{ upstream = \"mii\", model = \"x\" }, { upstream = \"claude\", model = \"x\" }]\n")
	g := boot(t, toml.String())
	const required = toolMember + `,"tool_choice":"required"`
	for model, members := range map[string]string{
		"with-mii": message + `,"top_k":3`, "with-ollama": required, "with-claude": message + `,"seed":1`, "with-drops": required,
	} {
		before := wholeAsked.Load()
		for range 8 {
			if a := g.do(t, http.MethodPost, chatPath, fmt.Sprintf(`{"model":%q,%s}`, model, members)); a.status != http.StatusOK || a.header.Get("X-Sluice-Target") != "whole/x" {
				t.Errorf("%s: %d %s", model, a.status, a.body)
			}
		}
		if n := wholeAsked.Load() - before; n != 8 {
			t.Errorf("%s: %d calls", model, n)
		}
	}
	want := ""
	for range 8 {
		a := g.do(t, http.MethodPost, chatPath, `{"model":"neither",`+message+`,"logit_bias":{"1":1}}`)
		if want == "" {
			want = a.body
		}
		if a.status != http.StatusBadRequest || a.body != want || !strings.Contains(a.body, "None of the model's 2 targets") {
			t.Errorf("%d %s, want 400 %s", a.status, a.body, want)
		}
	}
}

// An upstream with a wrong base URL is no fault of the caller's, and in a pool none at all.
func TestWrongBaseURLEndToEnd(t *testing.T) {
	good, _ := countingServer(t)
	nowhere := pageServer(t, http.StatusNotFound, "application/json", `{"detail":"Not Found"}`)
	var toml strings.Builder
	for _, kind := range []string{"openai", "anthropic", "gemini"} {
		fmt.Fprintf(&toml, "[[upstreams]]\nname = %q\nkind = %q\nbase_url = %q\nlist_models = false\nmodels = [\"%s-*\"]\n", kind, kind, nowhere, kind)
		fmt.Fprintf(&toml, "[[models]]\nname = \"pool-%s\"\ntargets = [{ upstream = %q, model = \"x\", weight = 9 }, { upstream = \"good\", model = \"x\" }]\n", kind, kind)
	}
	fmt.Fprintf(&toml, "[[upstreams]]\nname = \"good\"\nbase_url = %q\nlist_models = false\nmodels = [\"good\"]\n[retry]\nbudget_per_second = 100\n", good)
	g := boot(t, toml.String())
	for _, kind := range []string{"openai", "anthropic", "gemini"} {
		a := g.do(t, http.MethodPost, chatPath, fmt.Sprintf(`{"model":"%s-x",%s}`, kind, message))
		if a.status != http.StatusBadGateway || !strings.Contains(a.body, "was expected, and the upstream sent status 404 Not Found") {
			t.Errorf("%s: %d %s", kind, a.status, a.body)
		}
		for range 4 {
			if a := g.do(t, http.MethodPost, chatPath, fmt.Sprintf(`{"model":"pool-%s",%s}`, kind, message)); a.status != http.StatusOK {
				t.Errorf("a pool with %s: %d %s", kind, a.status, a.body)
			}
		}
	}
}

// pageServer always answers the same.
func pageServer(t *testing.T, status int, kind, body string) (baseURL string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}
