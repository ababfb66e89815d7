package handlers

import (
	"net/http"
	"testing"

	"sluice/handlers/auth"
	"sluice/providers"
)

// TestAllows holds keys against names, of which assistant@v1 and big@x-mini are versions.
func TestAllows(t *testing.T) {
	versions := map[string]bool{"assistant@v1": true, "big@x-mini": true}
	r := Routing{Versioned: func(name string) bool { return versions[name] }}
	for _, c := range []struct {
		models []string
		name   string
		want   bool
	}{
		{nil, "big@x-mini", true},
		{[]string{"assistant"}, "assistant", true},
		{[]string{"assistant"}, "assistant@v1", true},
		{[]string{"assistant"}, "assistant@v9", false},
		{[]string{"assistant"}, "big@x-mini", false},
		{[]string{"assistant@v1"}, "assistant", false},
		{[]string{"assistant@v1"}, "assistant@v1", true},
		{[]string{"*@v1"}, "assistant@v1", true},
		{[]string{"*-mini"}, "gpt-mini", true},
		{[]string{"*-mini"}, "big@x-mini", false},
		{[]string{"*-mini"}, "big@y-mini", true}, // no version, but a name that has an @ in it
		{[]string{"*"}, "big@x-mini", true},
	} {
		who := auth.Principal{May: &auth.Permissions{Models: c.models}}
		if got := r.Allows(&who, c.name); got != c.want {
			t.Errorf("%v for %s: %v", c.models, c.name, got)
		}
	}
	if who := (auth.Principal{}); !r.Allows(&who, "big@x-mini") {
		t.Error("a key without bounds is bounded")
	}
}

// TestRoutingHeaders hands on what rules look at, and nothing else of the caller's.
func TestRoutingHeaders(t *testing.T) {
	r := Routing{Headers: []string{"X-Experiment"}}
	h := http.Header{"X-Experiment": {"a", "b"}, "Authorization": {"Bearer secret"}}
	req := &providers.Request{Model: "m"}
	r.Hint(req, &auth.Principal{Key: "app", Org: "acme", Team: "dev"}, h)
	if got := req.Hints.Header; len(got) != 1 || len(got["X-Experiment"]) != 2 || req.Hints.Org != "acme" || req.Hints.Team != "acme/dev" {
		t.Errorf("%+v", req.Hints)
	}
	if got := r.of(http.Header{"Authorization": {"x"}}); got != nil {
		t.Errorf("%v", got)
	}
}
