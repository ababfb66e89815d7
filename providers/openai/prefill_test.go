package openai

import (
	"testing"

	"sluice/providers"
)

// What a server needs to be told of a chat that ends with the assistant's words is told of no
// other, and never instead of what the caller says.
func TestPrefillParameters(t *testing.T) {
	p := New(Options{Prefill: []byte(` { "continue_final_message": true, "add_generation_prompt": false } `)})
	const user, assistant = `{"role":"user","content":"hi"}`, `{"role":"assistant","content":"He"}`
	const more = `"continue_final_message": true, "add_generation_prompt": false,`
	for body, want := range map[string]string{
		`{"model":"m","messages":[` + user + `]}`:                                                      `{"model":"m","messages":[` + user + `]}`,
		`{"model":"m","messages":[` + user + `,` + assistant + `]}`:                                    `{` + more + `"model":"m","messages":[` + user + `,` + assistant + `]}`,
		` { "model":"m","messages":[` + assistant + `],"add_generation_prompt":true}`:                  ` {` + more + ` "model":"m","messages":[` + assistant + `],"add_generation_prompt":true}`,
		`{"model":"m","messages":[` + assistant + `,{"role":"tool","tool_call_id":"x","content":""}]}`: `{"model":"m","messages":[` + assistant + `,{"role":"tool","tool_call_id":"x","content":""}]}`,
	} {
		req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(body), 64)
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.call(req, "m")
		if err != nil || string(c.body) != want {
			t.Errorf("%s becomes %s, want %s (%v)", body, c.body, want, err)
		}
	}
}
