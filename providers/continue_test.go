package providers

import (
	"encoding/json"
	"testing"
)

func TestContinued(t *testing.T) {
	const user = `{"role":"user","content":"hi"}`
	for body, want := range map[string]string{
		`{"model":"m","stream":true,"messages":[` + user + `]}`:                                              `{"model":"m","stream":true,"messages":[` + user + `,{"role":"assistant","content":"so \"far\"\n"}]}`,
		`{"messages": [ ` + user + ` ] ,"max_tokens":100,"model":"m","stream":true,"x":1}`:                   `{"messages": [ ` + user + ` ,{"role":"assistant","content":"so \"far\"\n"}] ,"max_tokens":90,"model":"m","stream":true,"x":1}`,
		`{"model":"m","stream":true,"max_completion_tokens":11,"max_tokens":null,"messages":[` + user + `]}`: `{"model":"m","stream":true,"max_completion_tokens":1,"max_tokens":null,"messages":[` + user + `,{"role":"assistant","content":"so \"far\"\n"}]}`,
		`{"model":"m","stream":true,"max_tokens":10,"messages":[` + user + `]}`:                              "",
		`{"model":"m","stream":true,"max_tokens":1e3,"messages":[` + user + `]}`:                             "",
		`{"model":"m","stream":true,"stop":[],"modalities":["text"],"messages":[` + user + `]}`:              `{"model":"m","stream":true,"stop":[],"modalities":["text"],"messages":[` + user + `,{"role":"assistant","content":"so \"far\"\n"}]}`,
		`{"model":"m","stream":true,"stop":"x","messages":[` + user + `]}`:                                   "",
		`{"model":"m","stream":true,"modalities":["text","audio"],"messages":[` + user + `]}`:                "",
		`{"model":"m","stream":true,"n":2,"messages":[` + user + `]}`:                                        "",
		`{"model":"m","messages":[` + user + `]}`:                                                            "", // nobody reads it as a stream
		`{"model":"m","stream":true,"messages":[` + user + `,{"role":"assistant","content":"I"}]}`:           "",
		`{"model":"m","stream":true,"response_format":{"type":"json_object"},"messages":[` + user + `]}`:     "",
	} {
		check(t, Chat, "/chat/completions", body, want)
	}
	for body, want := range map[string]string{
		`{"model":"m","stream":true,"prompt":"one\u00e9"}`:                    `{"model":"m","stream":true,"prompt":"oneéso \"far\"\n"}`,
		`{"model":"m","stream":true,"prompt":["one"]}`:                        "",
		`{"model":"m","stream":true,"prompt":[1,2]}`:                          "",
		`{"model":"m","stream":true,"prompt":"one","echo":true}`:              "",
		`{"model":"m","stream":true,"prompt":"one","best_of":2}`:              "",
		`{"model":"m","stream":true,"prompt":"one","suffix":"end"}`:           "",
		`{"model":"m","stream":true,"prompt":"one","logprobs":2}`:             "",
		`{"model":"m","stream":true,"prompt":"one","echo":false,"best_of":1}`: `{"model":"m","stream":true,"prompt":"oneso \"far\"\n","echo":false,"best_of":1}`,
	} {
		check(t, Completions, "/completions", body, want)
	}
}

func check(t *testing.T, op Op, path, body, want string) {
	t.Helper()
	r, err := Parse(op, path, "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	r.ID, r.PresentAs, r.Hints.Session = "id", "shown", "s"
	rest, ok := r.Continued("so \"far\"\n", 10)
	if ok != (want != "") || ok && string(rest.Body) != want {
		t.Errorf("%s\nbecomes %q\nwant    %q", body, bodyOf(rest), want)
	}
	if ok && (rest.ID != "id" || rest.PresentAs != "shown" || rest.Hints.Session != "s" || rest.Model != r.Model || !rest.Stream) {
		t.Errorf("%s: %+v", body, rest)
	}
	if string(r.Body) != body {
		t.Errorf("the request itself has changed: %s", r.Body)
	}
}

func bodyOf(r *Request) string {
	if r == nil {
		return ""
	}
	return string(r.Body)
}

func FuzzContinued(f *testing.F) {
	f.Add(`{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`, "so far", true)
	f.Add(`{"model":"m","stream":true,"prompt":"one\ud83d","max_tokens":20}`, "\xff\x00", false)
	f.Fuzz(func(t *testing.T, body, text string, chat bool) {
		op := Completions
		if chat {
			op = Chat
		}
		r, err := Parse(op, "/x", "application/json", []byte(body), 64)
		if err != nil {
			return
		}
		if rest, ok := r.Continued(text, 3); ok && (!json.Valid(rest.Body) || rest.Model != r.Model || len(rest.Body) < len(text)) {
			t.Errorf("%q becomes %q", body, rest.Body)
		}
	})
}
