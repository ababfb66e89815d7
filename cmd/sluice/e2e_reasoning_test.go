package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	openai "github.com/sashabaranov/go-openai"
)

// thinker is a server of several protocols whose model thinks "a b" and answers "Hi !".
type thinker struct{}

func (thinker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct{ Stream *bool }
	_ = json.NewDecoder(r.Body).Decode(&body)
	streamed := body.Stream != nil && *body.Stream
	const head = `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","x":1,"choices":[{"index":0,"delta":`
	chunks := func(deltas ...string) string {
		text := ""
		for i, d := range deltas {
			finish := "null"
			if i == len(deltas)-1 {
				finish = `"stop"`
			}
			text += "data: " + head + d + `,"logprobs":null,"finish_reason":` + finish + "}]}\n\n"
		}
		return text + "data: [DONE]\n\n"
	}
	whole := func(message string) string {
		return `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","x":1,"choices":[{"index":0,"message":{"role":"assistant",` + message + `},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":4,"total_tokens":5}}`
	}
	var kind, text string
	switch path := r.URL.Path; {
	case path == "/api/chat":
		kind, text = "application/x-ndjson", `{"model":"m","message":{"role":"assistant","content":"","thinking":"a"},"done":false}`+"\n"+
			`{"model":"m","message":{"role":"assistant","content":"","thinking":" b"},"done":false}`+"\n"+`{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}`+"\n"+
			`{"model":"m","message":{"role":"assistant","content":" !"},"done":false}`+"\n"+`{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":4}`+"\n"
		if !streamed {
			kind, text = "application/json", `{"model":"m","message":{"role":"assistant","content":"Hi !","thinking":"a b"},"done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":4}`
		}
	case strings.HasPrefix(path, "/named/") && streamed:
		kind, text = "text/event-stream", chunks(`{"role":"assistant","content":""}`, `{"reasoning":"a"}`, `{"reasoning":" b"}`, `{"content":"Hi"}`, `{"content":" !"}`, `{}`)
	case strings.HasPrefix(path, "/named/"):
		kind, text = "application/json", whole(`"content":"Hi !","reasoning":"a b"`)
	case streamed:
		kind, text = "text/event-stream", chunks(`{"role":"assistant","content":""}`, `{"content":"<thi"}`, `{"content":"nk>\na"}`, `{"content":" b</"}`, `{"content":"think>\n\nHi"}`, `{"content":" !"}`, `{}`)
	default:
		kind, text = "application/json", whole(`"content":"<think>\na b</think>\n\nHi !"`)
	}
	w.Header().Set("Content-Type", kind)
	_, _ = io.WriteString(w, text)
}

// thought is what a client saw of an answer.
type thought struct{ Content, Apart, Bare string }

func (t *thought) add(message json.RawMessage) {
	var m struct {
		Content, Reasoning string
		Apart              string `json:"reasoning_content"`
	}
	if json.Unmarshal(message, &m) == nil {
		t.Content, t.Apart, t.Bare = t.Content+m.Content, t.Apart+m.Apart, t.Bare+m.Reasoning
	}
}

// seen puts the payloads of a stream together, or takes one body.
func seen(t *testing.T, payloads ...string) (got thought) {
	t.Helper()
	for _, p := range payloads {
		var c struct {
			Choices []struct{ Delta, Message json.RawMessage }
		}
		if err := json.Unmarshal([]byte(p), &c); err != nil {
			t.Fatalf("%v in %s", err, p)
		}
		for _, choice := range c.Choices {
			got.add(choice.Delta)
			got.add(choice.Message)
		}
	}
	return got
}

// TestReasoning: whatever an upstream calls its reasoning, clients find it where the
// configuration says, streamed, whole and over WebSocket.
func TestReasoning(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(thinker{})
	t.Cleanup(srv.Close)
	config := "[demo]\nenabled = false\n"
	for kind, own := range map[string]string{
		"split": "kind = \"openai\"\nbase_url = %q\n%s\n", // which is the default
		"named": "kind = \"openai\"\nbase_url = %q\n%s\n", "native": "kind = \"ollama\"\nbase_url = %q\n%s\n",
	} {
		base := srv.URL
		if kind != "native" {
			base += "/" + kind + "/v1"
		}
		for how, key := range map[string]string{"usual": "", "both": `reasoning = "both"`, "inline": `reasoning = "inline"`} {
			config += fmt.Sprintf("[[upstreams]]\nname = %q\nmodels = [\"m\"]\nlist_models = false\n"+own, kind+"-"+how, base, key)
			config += fmt.Sprintf("[[models]]\nname = %q\ntargets = [{ upstream = %q, model = \"m\" }]\n", kind+"-"+how, kind+"-"+how)
		}
		config += fmt.Sprintf("[[models]]\nname = %q\nreasoning = \"reasoning_content\"\ntargets = [{ upstream = %q, model = \"m\" }]\n", kind+"-usual again", kind+"-inline")
		config += fmt.Sprintf("[[models]]\nname = %q\nreasoning = \"inline\"\ntargets = [{ upstream = %q, model = \"m\" }]\n", kind+"-inline again", kind+"-both")
	}
	config = strings.ReplaceAll(config, " again\"", "-again\"")
	g := boot(t, config)
	c := g.dial(t)
	for _, kind := range []string{"split", "named", "native"} {
		for _, how := range []string{"usual", "both", "inline", "usual-again", "inline-again"} {
			want, header := thought{"Hi !", "a b", ""}, ""
			switch {
			case strings.HasPrefix(how, "inline"):
				want, header = thought{"<think>\na b\n</think>\n\nHi !", "", ""}, "inline"
			case how == "both":
				want.Bare, header = "a b", "both"
			case kind == "named":
				want.Bare = "a b" // the upstream's own name stays
			}
			model := kind + "-" + how
			streamed := g.chat(t, model, "")
			if got := seen(t, streamed.payloads...); got != want || !streamed.done || streamed.header.Get("X-Sluice-Reasoning") != header {
				t.Errorf("%s, streamed: %q, want %q; %v\n%s", model, got, want, streamed.header, streamed.body)
			}
			whole := g.whole(t, model, "")
			if got := seen(t, whole.body); got != want || whole.status != 200 || whole.header.Get("X-Sluice-Reasoning") != header {
				t.Errorf("%s, whole: %q, want %q\n%s", model, got, want, whole.body)
			}
			if kind != "native" && !strings.Contains(whole.body, `"x":1`) {
				t.Errorf("%s: an unknown member is gone: %s", model, whole.body)
			}
			c.create(t, model, model, "")
			if over := c.read(t, model); seen(t, over.payloads...) != want || over.end.Type != "done" {
				t.Errorf("%s, over WebSocket: %q, want %q", model, over.payloads, want)
			}
		}
	}
	reasonedBySDK(t, sdkOf(g))
}

// reasonedBySDK: the library finds reasoning under the usual name, streamed and whole.
func reasonedBySDK(t *testing.T, c *openai.Client) {
	t.Helper()
	for _, model := range []string{"split-usual", "named-usual", "native-usual"} {
		whole, err := c.CreateChatCompletion(t.Context(), chatOf(model))
		if err != nil || whole.Choices[0].Message.ReasoningContent != "a b" || whole.Choices[0].Message.Content != "Hi !" {
			t.Errorf("%s: %+v, %v", model, whole, err)
		}
		if got, err := sdkStream(t, c, chatOf(model)); err != nil || got.text != "Hi !" || got.thought != "a b" {
			t.Errorf("%s: %+v, %v", model, got, err)
		}
	}
}
