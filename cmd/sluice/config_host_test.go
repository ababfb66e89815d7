package main

import (
	"strings"
	"testing"
)

// A base URL without a path is an error at hosts whose API begins elsewhere; adapters
// that know the path add it themselves, and other servers may have it at their root.
func TestConfigAPIPaths(t *testing.T) {
	for _, c := range []struct{ kind, base, want string }{
		{"openai", "https://api.anthropic.com", "the API begins at https://api.anthropic.com/v1 there"},
		{"openai", "https://api.openai.com/", "the API begins at https://api.openai.com/v1 there"},
		{"openai", "https://generativelanguage.googleapis.com", "/v1beta/openai"},
		{"openai", "https://api.openai.com/v1", ""},
		{"openai", "http://127.0.0.1:8080", ""},
		{"anthropic", "https://api.anthropic.com", ""},
	} {
		_, _, err := loadText(t, "[[upstreams]]\nname = \"a\"\nkind = \""+c.kind+"\"\nbase_url = \""+c.base+"\"\n", nil)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "base_url")) {
			t.Errorf("%s at %s: %v", c.kind, c.base, err)
		}
	}
}
