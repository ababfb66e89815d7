package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	openai "github.com/sashabaranov/go-openai"
)

// fakeTGI is a server that does what the prompt says.
type fakeTGI struct {
	asked chan tgiCall
	gone  chan struct{}
}

type tgiCall struct {
	Inputs     string
	Parameters map[string]json.RawMessage
}

func (f *fakeTGI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call tgiCall
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			http.Error(w, "Failed to deserialize the JSON body into the target type", http.StatusUnprocessableEntity)
			return
		}
	}
	switch r.URL.Path {
	case "/info":
		io.WriteString(w, `{"model_id":"org/tiny","max_total_tokens":2048,"version":"3.3.6"}`)
	case "/generate":
		w.Header().Set("Content-Type", "application/json")
		f.asked <- call
		if strings.Contains(call.Inputs, "invalid") {
			w.WriteHeader(http.StatusUnprocessableEntity)
			io.WriteString(w, `{"error":"Input validation error","error_type":"validation"}`)
			return
		}
		w.Header().Set("X-Prompt-Tokens", "6")
		io.WriteString(w, `{"generated_text":"Grüße END","details":{"finish_reason":"stop_sequence","generated_tokens":3,"seed":7,"prefill":[],"tokens":[]}}`)
	case "/generate_stream":
		f.asked <- call
		f.stream(w, r, call.Inputs)
	default:
		http.NotFound(w, r)
	}
}

// stream answers with status 200 whatever happens, as the server does.
func (f *fakeTGI) stream(w http.ResponseWriter, r *http.Request, prompt string) {
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(event string) {
		fmt.Fprintf(w, "data:%s\n\n", event)
		w.(http.Flusher).Flush()
	}
	if strings.Contains(prompt, "invalid") {
		send(`{"error":"Input validation error","error_type":"validation"}`)
		return
	}
	send(`{"index":1,"token":{"id":5,"text":"Grüße","logprob":-1,"special":false},"generated_text":null,"details":null}`)
	switch {
	case strings.Contains(prompt, "dies"):
		send(`{"error":"CUDA out of memory","error_type":"generation"}`)
	case strings.Contains(prompt, "waits"):
		<-r.Context().Done()
		close(f.gone)
	default:
		send(`{"index":2,"token":{"id":6,"text":" 🚀","logprob":-1,"special":false},"generated_text":null,"details":null}`)
		send(`{"index":3,"token":{"id":2,"text":"</s>","logprob":-1,"special":true},"generated_text":"Grüße 🚀","details":{"finish_reason":"eos_token","generated_tokens":3,"seed":null,"input_length":6}}`)
	}
}

func bootTGI(t *testing.T) (*fakeTGI, *openai.Client) {
	t.Helper()
	f := &fakeTGI{asked: make(chan tgiCall, 64), gone: make(chan struct{})}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return f, sdkOf(boot(t, fmt.Sprintf("[demo]\nenabled = false\n[[upstreams]]\nname = \"t\"\nkind = \"tgi\"\nbase_url = %q\nlocal = true\n[upstreams.tgi]\ntemplate = \"llama3\"\nparameters = '{ \"max_new_tokens\": 99 }'\n", srv.URL)))
}

func TestTGIChat(t *testing.T) {
	f, c := bootTGI(t)
	got, err := sdkStream(t, c, chatOf("org/tiny"))
	if err != nil || got.text != "Grüße 🚀" || got.finish != "stop" || got.usage == nil || got.usage.PromptTokens != 6 || got.usage.CompletionTokens != 3 {
		t.Errorf("streamed: %+v, %v", got, err)
	}
	call := <-f.asked
	if !strings.Contains(call.Inputs, "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>") || string(call.Parameters["max_new_tokens"]) != "99" || string(call.Parameters["details"]) != "true" {
		t.Errorf("sent %q %s", call.Inputs, call.Parameters)
	}
	req := chatOf("org/tiny")
	req.Stop = []string{"🚀"} // made of a stream, for the server would stop in thoughts too
	whole, err := c.CreateChatCompletion(t.Context(), req)
	if err != nil || whole.Choices[0].Message.Content != "Grüße " || whole.Choices[0].FinishReason != "stop" || whole.Usage.CompletionTokens != 2 || whole.Usage.PromptTokens == 0 {
		t.Errorf("whole: %+v, %v", whole, err)
	}
	completion, err := c.CreateCompletion(t.Context(), openai.CompletionRequest{Model: "org/tiny", Prompt: "x"})
	if err != nil || completion.Choices[0].Text != "Grüße END" {
		t.Errorf("completion: %+v, %v", completion, err)
	}
	models, err := c.ListModels(t.Context())
	if err != nil || len(models.Models) != 1 || models.Models[0].ID != "org/tiny" || models.Models[0].OwnedBy != "tgi" {
		t.Errorf("models: %+v, %v", models, err)
	}
}

func TestTGIFailures(t *testing.T) {
	f, c := bootTGI(t)
	var failed *openai.APIError
	ask := func(text string) openai.ChatCompletionRequest {
		req := chatOf("org/tiny")
		req.Messages[0].Content = text
		return req
	}
	if _, err := sdkStream(t, c, ask("invalid")); !errors.As(err, &failed) || failed.HTTPStatusCode != 422 || failed.Message != "Input validation error" {
		t.Errorf("invalid, streamed: %v", err)
	}
	if _, err := c.CreateChatCompletion(t.Context(), ask("invalid")); !errors.As(err, &failed) || failed.HTTPStatusCode != 422 {
		t.Errorf("invalid, whole: %v", err)
	}
	if got, err := sdkStream(t, c, ask("dies")); !errors.As(err, &failed) || failed.Message != "CUDA out of memory" || got.text != "Grüße" || got.finish != "" {
		t.Errorf("dies: %+v, %v", got, err)
	}
	for len(f.asked) > 0 {
		<-f.asked
	}
	req := ask("x")
	req.Tools = []openai.Tool{{Type: "function", Function: &openai.FunctionDefinition{Name: "f"}}}
	if _, err := sdkStream(t, c, req); !errors.As(err, &failed) || failed.HTTPStatusCode != 400 || failed.Param == nil || *failed.Param != "tools" || len(f.asked) > 0 {
		t.Errorf("tools: %v", err)
	}
}

// A caller who leaves frees the server within a second.
func TestTGICancel(t *testing.T) {
	f, c := bootTGI(t)
	req := chatOf("org/tiny")
	req.Messages[0].Content = "waits"
	stream, err := c.CreateChatCompletionStream(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for text := ""; text == ""; {
		chunk, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		text = chunk.Choices[0].Delta.Content
	}
	stream.Close()
	select {
	case <-f.gone:
	case <-time.After(time.Second):
		t.Error("the server still works after a second")
	}
}
