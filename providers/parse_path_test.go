package providers

import (
	"encoding/json"
	"testing"
)

func TestParseFor(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       string // the body for the model "there"; "" is refused
	}{
		{"none", `{"messages":[{}]}`, `{"model":"there","messages":[{}]}`},
		{"none, spaced", " {\n \"messages\": [{}]}", " {\"model\":\"there\",\n \"messages\": [{}]}"},
		{"the same", `{"messages":[{}],"model":"org/one"}`, `{"messages":[{}],"model":"there"}`},
		{"another", `{"messages":[{}],"model":"two"}`, ""},
		{"null", `{"messages":[{}],"model":null}`, ""},
		{"twice", `{"messages":[{}],"Model":"two","model":"org/one"}`, ""},
	} {
		r, err := ParseFor("org/one", Chat, "/chat/completions", "application/json", []byte(c.body), 64)
		if err != nil {
			if e := AsError(err); c.want != "" || e == nil || e.Kind != BadRequest || e.Param != "model" {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if got := string(r.Rewrite("there", false)); r.Model != "org/one" || got != c.want || !json.Valid([]byte(got)) {
			t.Errorf("%s: %q gives %q, want %q", c.name, r.Model, got, c.want)
		}
	}
	r, err := ParseFor("m", Completions, "/completions", "application/json", []byte(`{ }`), 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(r.Rewrite("there", true)); got != `{"model":"there" }` {
		t.Error(got)
	}
	r, err = ParseFor("m", Completions, "/completions", "application/json", []byte(`{"stream":true}`), 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(r.Rewrite("m", true)); got != `{"model":"m","stream_options":{"include_usage":true},"stream":true}` {
		t.Error(got)
	}
	if _, err := ParseFor(string(make([]byte, 300)), Chat, "/chat/completions", "application/json", []byte(`{"messages":[{}]}`), 64); err == nil {
		t.Error("a long name is taken")
	}
}
