package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	openai "github.com/sashabaranov/go-openai"
)

// scoringServer has the native APIs of Ollama, TGI and Gemini, and says "Yes!" in each.
func scoringServer(w http.ResponseWriter, r *http.Request) {
	const gemini = `{"candidates":[{"content":{"role":"model","parts":[{"text":"Yes!"}]},"finishReason":"STOP","logprobsResult":{"chosenCandidates":[{"token":"Yes","logProbability":-0.25},{"token":"!","logProbability":-1.5}],` +
		`"topCandidates":[{"candidates":[{"token":"Yes","logProbability":-0.25},{"token":"No","logProbability":-2}]},{"candidates":[]}]}}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2,"totalTokenCount":3},"modelVersion":"g","responseId":"r"}`
	switch {
	case r.URL.Path == "/api/chat" || r.URL.Path == "/api/generate":
		text := func(s string) string {
			return fmt.Sprintf(`"message":{"role":"assistant","content":%q},"response":%q`, s, s)
		}
		ollamaLines(w, text("Yes")+`,"logprobs":[{"token":"Yes","logprob":-0.25,"bytes":[89,101,115],"top_logprobs":[{"token":"Yes","logprob":-0.25},{"token":"No","logprob":-2}]}]`,
			text("!")+`,"logprobs":[{"token":"!","logprob":-1.5,"bytes":[33]}]`, text("")+`,"done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":2`)
	case r.URL.Path == "/generate_stream":
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, `data:{"index":1,"token":{"id":1,"text":"Yes","logprob":-0.25,"special":false},"top_tokens":[{"id":1,"text":"Yes","logprob":-0.25,"special":false},{"id":2,"text":"No","logprob":-2,"special":false}],"generated_text":null,"details":null}`+"\n\n"+
			`data:{"index":2,"token":{"id":3,"text":"!","logprob":-1.5,"special":false},"generated_text":"Yes!","details":{"finish_reason":"length","generated_tokens":2,"input_length":1}}`+"\n\n")
	case r.URL.Path == "/generate":
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"generated_text":"Yes!","details":{"finish_reason":"length","generated_tokens":2,"tokens":[{"id":1,"text":"Yes","logprob":-0.25,"special":false},{"id":3,"text":"!","logprob":-1.5,"special":false}],`+
			`"top_tokens":[[{"id":1,"text":"Yes","logprob":-0.25,"special":false},{"id":2,"text":"No","logprob":-2,"special":false}],[]]}}`)
	case strings.HasSuffix(r.URL.Path, ":streamGenerateContent"):
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"error":{"code":400,"message":"Logprobs is not supported in streams","status":"INVALID_ARGUMENT"}}`)
	case strings.HasSuffix(r.URL.Path, ":generateContent"):
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, gemini)
	default:
		http.NotFound(w, r)
	}
}

// scores are tokens with their log probabilities, as one text.
func scores(all []openai.LogProb) string {
	var out strings.Builder
	for _, t := range all {
		fmt.Fprintf(&out, "%s%v", t.Token, t.LogProb)
		for _, top := range t.TopLogProbs {
			fmt.Fprintf(&out, " or %s%v", top.Token, top.LogProb)
		}
		out.WriteString("; ")
	}
	return out.String()
}

// TestLogprobs: whoever asks for log probabilities gets them in OpenAI's form, whatever the
// protocol of the upstream calls them; who does not gets none.
func TestLogprobs(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(scoringServer))
	t.Cleanup(srv.Close)
	var config strings.Builder
	config.WriteString("[demo]\nenabled = false\n")
	for _, kind := range []string{"ollama", "tgi", "gemini"} {
		fmt.Fprintf(&config, "[[upstreams]]\nname = %q\nkind = %q\nbase_url = %q\nlocal = true\nlist_models = false\nmodels = [%q]\n", kind, kind, srv.URL, kind+"-m")
	}
	g := boot(t, config.String())
	c := sdkOf(g)
	const want = "Yes-0.25 or Yes-0.25 or No-2; !-1.5; "
	for _, kind := range []string{"ollama", "tgi", "gemini"} {
		req := chatOf(kind + "-m")
		req.LogProbs, req.TopLogProbs = true, 2
		whole, err := c.CreateChatCompletion(t.Context(), req)
		if err != nil || whole.Choices[0].LogProbs == nil || scores(whole.Choices[0].LogProbs.Content) != want {
			t.Errorf("%s, whole: %v, %+v", kind, err, whole)
		}
		if got := streamedScores(t, c, req); got != want {
			t.Errorf("%s, streamed: %s, want %s", kind, got, want)
		}
		req.LogProbs, req.TopLogProbs = false, 0
		if kind == "tgi" { // which tells them without being asked
			if got := streamedScores(t, c, req); got != "" {
				t.Errorf("%s tells %s to who does not ask", kind, got)
			}
		}
		a := g.do(t, http.MethodPost, "/completions", fmt.Sprintf(`{"model":%q,"prompt":"Hi","logprobs":2}`, kind+"-m"))
		if a.status != http.StatusOK || !strings.Contains(a.body, `"logprobs":{"tokens":["Yes","!"],"token_logprobs":[-0.25,-1.5],"top_logprobs":[{"Yes":-0.25,"No":-2},{"!":-1.5}],"text_offset":[0,3]}`) {
			t.Errorf("%s, completions: %d %s", kind, a.status, a.body)
		}
	}
	// A stop sequence takes the log probabilities of its text with it.
	req := chatOf("tgi-m")
	req.LogProbs, req.Stop = true, []string{"!"}
	if got := streamedScores(t, c, req); got != "Yes-0.25 or Yes-0.25 or No-2; " {
		t.Errorf("stopped: %s", got)
	}
}

func streamedScores(t *testing.T, c *openai.Client, req openai.ChatCompletionRequest) string {
	t.Helper()
	stream, err := c.CreateChatCompletionStream(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var all []openai.LogProb
	for {
		chunk, err := stream.Recv()
		if err != nil {
			return scores(all)
		}
		for _, choice := range chunk.Choices {
			if choice.Logprobs == nil {
				continue
			}
			for _, p := range choice.Logprobs.Content {
				one := openai.LogProb{Token: p.Token, LogProb: p.Logprob}
				for _, top := range p.TopLogprobs {
					one.TopLogProbs = append(one.TopLogProbs, openai.TopLogProbs{Token: top.Token, LogProb: top.Logprob})
				}
				all = append(all, one)
			}
		}
	}
}

// TestOllamaThink: what the server leaves in the text is told apart as the key says.
func TestOllamaThink(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/chat" {
			http.NotFound(w, r)
			return
		}
		ollamaLines(w, `"message":{"role":"assistant","content":"<think>a</think>b"},"done":false`, ollamaEnd)
	}))
	t.Cleanup(srv.Close)
	var config strings.Builder
	config.WriteString("[demo]\nenabled = false\n")
	modes := map[string][2]string{"split": {"a", "b"}, "begun": {"<think>a", "b"}, "off": {"", "<think>a</think>b"}}
	for mode := range modes {
		fmt.Fprintf(&config, "[[upstreams]]\nname = %q\nkind = \"ollama\"\nbase_url = %q\nlist_models = false\nmodels = [%q]\n[upstreams.ollama]\nthink = %q\n", mode, srv.URL, mode, mode)
	}
	c := sdkOf(boot(t, config.String()))
	for mode, want := range modes {
		if got, err := sdkStream(t, c, chatOf(mode)); err != nil || got.thought != want[0] || got.text != want[1] {
			t.Errorf("%s: %+v, %v", mode, got, err)
		}
	}
}
