package main

import (
	"encoding/base64"
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

// sdkOf is OpenAI's API as an application sees it.
func sdkOf(g *gatewayUnderTest) *openai.Client {
	c := openai.DefaultConfig(g.Key)
	c.BaseURL, c.HTTPClient = g.URL, g.Client
	return openai.NewClientWithConfig(c)
}

// sdkAnswer is a streamed answer, put together as an application does.
type sdkAnswer struct {
	text, thought, finish string
	calls                 []openai.ToolCall
	usage                 *openai.Usage
}

// sdkStream reads a stream to its end.
func sdkStream(t *testing.T, c *openai.Client, req openai.ChatCompletionRequest) (s sdkAnswer, failed error) {
	t.Helper()
	req.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	stream, err := c.CreateChatCompletionStream(t.Context(), req)
	if err != nil {
		return s, err
	}
	defer stream.Close()
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		if chunk.Usage != nil {
			s.usage = chunk.Usage
		}
		for _, choice := range chunk.Choices {
			s.text += choice.Delta.Content
			s.thought += choice.Delta.ReasoningContent
			s.finish += string(choice.FinishReason)
			s.addCalls(choice.Delta.ToolCalls)
		}
	}
}

func (s *sdkAnswer) addCalls(deltas []openai.ToolCall) {
	for _, d := range deltas {
		for *d.Index >= len(s.calls) {
			s.calls = append(s.calls, openai.ToolCall{})
		}
		c := &s.calls[*d.Index]
		c.ID, c.Function.Name, c.Function.Arguments = c.ID+d.ID, c.Function.Name+d.Function.Name, c.Function.Arguments+d.Function.Arguments
	}
}

// fakeOllama is a server whose models each do one thing.
type fakeOllama struct {
	asked chan map[string]json.RawMessage
	gone  chan struct{}
}

func (f *fakeOllama) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body map[string]json.RawMessage
	var model string
	if r.Method == http.MethodPost {
		if json.NewDecoder(r.Body).Decode(&body) == nil {
			_ = json.Unmarshal(body["model"], &model) // "" is an unknown model
		}
	}
	switch r.URL.Path {
	case "/api/tags":
		io.WriteString(w, `{"models":[{"name":"plain","modified_at":"2026-01-01T00:00:00Z","size":5},{"name":"tools","modified_at":"2026-01-01T00:00:00Z"}]}`)
	case "/api/show":
		fmt.Fprintf(w, `{"capabilities":["completion"%s],"details":{"family":"llama"}}`, map[bool]string{true: `,"tools","vision","thinking"`}[model != "plain"])
	case "/api/embed":
		io.WriteString(w, `{"model":"plain","embeddings":[[0.5,-1],[0.25,2]],"prompt_eval_count":4}`)
	case "/api/generate":
		f.asked <- body
		ollamaLines(w, `"response":"once"`, `"response":" more","context":[`+strings.Repeat("1,", 50_000)+`1],"done":true,"done_reason":"length","prompt_eval_count":2,"eval_count":3`)
	case "/api/chat":
		f.asked <- body
		f.chat(w, r, model)
	default:
		http.Error(w, "404 page not found", http.StatusNotFound)
	}
}

// ollamaLines sends lines of a stream, one by one.
func ollamaLines(w http.ResponseWriter, members ...string) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	for _, m := range members {
		fmt.Fprintf(w, `{"model":"m","created_at":"2026-01-01T00:00:00Z",%s}`+"\n", m)
		w.(http.Flusher).Flush()
	}
}

const ollamaEnd = `"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":9,"prompt_eval_count":5,"eval_count":7`

func (f *fakeOllama) chat(w http.ResponseWriter, r *http.Request, model string) {
	message := func(m string) string { return `"message":{"role":"assistant",` + m + `},"done":false` }
	switch model {
	case "plain":
		ollamaLines(w, message(`"content":"","thinking":"hm"`), message(`"content":"Grüße "`), message(`"content":"🚀"`), ollamaEnd)
	case "tools":
		ollamaLines(w, message(`"content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]`),
			message(`"content":"","tool_calls":[{"function":{"name":"g","arguments":{}}}]`), ollamaEnd)
	case "dies":
		ollamaLines(w, message(`"content":"Hel"`))
		fmt.Fprintln(w, `{"error":"llama runner process no longer running: 2"}`)
	case "ends":
		ollamaLines(w, message(`"content":"Hel"`))
	case "waits":
		ollamaLines(w, message(`"content":"Hel"`))
		<-r.Context().Done()
		close(f.gone)
	default:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"error":"model '%s' not found"}`, model)
	}
}

func bootOllama(t *testing.T) (*fakeOllama, *openai.Client, *gatewayUnderTest) {
	t.Helper()
	f := &fakeOllama{asked: make(chan map[string]json.RawMessage, 64), gone: make(chan struct{})}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	g := boot(t, fmt.Sprintf("[demo]\nenabled = false\n[[upstreams]]\nname = \"o\"\nkind = \"ollama\"\nbase_url = %q\nlocal = true\nmodels = [\"*\"]\n[upstreams.ollama]\nkeep_alive = \"5m\"\noptions = '{\"num_ctx\": 512}'\n", srv.URL))
	return f, sdkOf(g), g
}

func chatOf(model string) openai.ChatCompletionRequest {
	return openai.ChatCompletionRequest{Model: model, Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "Hi"}}}
}

func TestOllamaChat(t *testing.T) {
	f, c, _ := bootOllama(t)
	req := chatOf("plain")
	req.Stop, req.MaxCompletionTokens = []string{"END"}, 9
	got, err := sdkStream(t, c, req)
	if err != nil || got.text != "Grüße 🚀" || got.thought != "hm" || got.finish != "stop" || got.usage == nil || got.usage.PromptTokens != 5 || got.usage.CompletionTokens != 7 {
		t.Errorf("streamed: %+v, %v", got, err)
	}
	body := <-f.asked
	if string(body["keep_alive"]) != `"5m"` || string(body["options"]) != `{"num_ctx":512,"num_predict":9,"stop":["END"]}` || string(body["stream"]) != "true" {
		t.Errorf("sent %s", body)
	}
	whole, err := c.CreateChatCompletion(t.Context(), chatOf("plain"))
	if err != nil || whole.Choices[0].Message.Content != "Grüße 🚀" || whole.Choices[0].Message.ReasoningContent != "hm" || whole.Usage.TotalTokens != 12 || whole.Model != "plain" {
		t.Errorf("whole: %+v, %v", whole, err)
	}
}

func TestOllamaTools(t *testing.T) {
	f, c, _ := bootOllama(t)
	req := chatOf("tools")
	req.Tools = []openai.Tool{{Type: "function", Function: &openai.FunctionDefinition{Name: "f", Parameters: map[string]any{"type": "object"}}}}
	got, err := sdkStream(t, c, req)
	if err != nil || got.finish != "tool_calls" || len(got.calls) != 2 || got.calls[0].Function.Arguments != `{"a":1}` || got.calls[1].Function.Name != "g" ||
		got.calls[0].ID == "" || got.calls[0].ID == got.calls[1].ID {
		t.Fatalf("streamed: %+v, %v", got, err)
	}
	whole, err := c.CreateChatCompletion(t.Context(), req)
	if err != nil || len(whole.Choices[0].Message.ToolCalls) != 2 || whole.Choices[0].FinishReason != "tool_calls" {
		t.Fatalf("whole: %+v, %v", whole, err)
	}
	<-f.asked
	<-f.asked
	// The next turn tells which tool has answered.
	req.Messages = append(req.Messages, openai.ChatCompletionMessage{Role: "assistant", ToolCalls: got.calls},
		openai.ChatCompletionMessage{Role: "tool", ToolCallID: got.calls[1].ID, Content: "42"})
	if _, err := sdkStream(t, c, req); err != nil {
		t.Fatal(err)
	}
	if sent := string((<-f.asked)["messages"]); !strings.Contains(sent, `"tool_name":"g"`) || !strings.Contains(sent, `"arguments":{"a":1}`) {
		t.Errorf("sent %s", sent)
	}
	req.Model = "plain"
	var refused *openai.APIError
	if _, err := c.CreateChatCompletion(t.Context(), req); !errors.As(err, &refused) || refused.HTTPStatusCode != 400 || refused.Param == nil || *refused.Param != "tools" {
		t.Errorf("tools for a model without: %v", err)
	}
}

func TestOllamaImages(t *testing.T) {
	f, c, _ := bootOllama(t)
	req := chatOf("tools")
	req.Messages[0] = openai.ChatCompletionMessage{Role: "user", MultiContent: []openai.ChatMessagePart{
		{Type: "text", Text: "What?"}, {Type: "image_url", ImageURL: &openai.ChatMessageImageURL{URL: "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte("\x89PNG\r\n\x1a\n"))}}}}
	if _, err := sdkStream(t, c, req); err != nil {
		t.Fatal(err)
	}
	if sent := string((<-f.asked)["messages"]); sent != `[{"role":"user","content":"What?","images":["iVBORw0KGgo="]}]` {
		t.Errorf("sent %s", sent)
	}
	req.Messages[0].MultiContent[1].ImageURL.URL = "http://127.0.0.1/x.png"
	var refused *openai.APIError
	if _, err := sdkStream(t, c, req); !errors.As(err, &refused) || refused.HTTPStatusCode != 400 || len(f.asked) > 0 {
		t.Errorf("an address: %v", err)
	}
}

func TestOllamaOthers(t *testing.T) {
	f, c, _ := bootOllama(t)
	completion, err := c.CreateCompletion(t.Context(), openai.CompletionRequest{Model: "plain", Prompt: "x", Suffix: ""})
	if err != nil || completion.Choices[0].Text != "once more" || completion.Choices[0].FinishReason != "length" || completion.Usage.TotalTokens != 5 {
		t.Errorf("completion: %+v, %v", completion, err)
	}
	<-f.asked
	vectors, err := c.CreateEmbeddings(t.Context(), openai.EmbeddingRequestStrings{Model: "plain", Input: []string{"a", "b"}, EncodingFormat: "base64"})
	if err != nil || len(vectors.Data) != 2 || fmt.Sprint(vectors.Data[1].Embedding) != "[0.25 2]" || vectors.Usage.TotalTokens != 4 {
		t.Errorf("embeddings: %+v, %v", vectors, err)
	}
	models, err := c.ListModels(t.Context())
	if err != nil || len(models.Models) != 2 || models.Models[0].ID != "plain" || models.Models[0].OwnedBy != "ollama" {
		t.Errorf("models: %+v, %v", models, err)
	}
}

func TestOllamaFailures(t *testing.T) {
	_, c, _ := bootOllama(t)
	var failed *openai.APIError
	if _, err := c.CreateChatCompletion(t.Context(), chatOf("missing")); !errors.As(err, &failed) || failed.HTTPStatusCode != 404 || failed.Code != "model_not_found" || !strings.Contains(failed.Message, "'missing' not found") {
		t.Errorf("unknown model: %v", err)
	}
	for model, says := range map[string]string{"dies": "no longer running", "ends": "before its last line"} {
		got, err := sdkStream(t, c, chatOf(model))
		if !errors.As(err, &failed) || !strings.Contains(failed.Message, says) || got.text != "Hel" || got.finish != "" {
			t.Errorf("%s: %+v, %v", model, got, err)
		}
		if _, err := c.CreateChatCompletion(t.Context(), chatOf(model)); !errors.As(err, &failed) || failed.HTTPStatusCode != 502 {
			t.Errorf("%s, whole: %v", model, err)
		}
	}
}

// A caller who leaves frees the server within a second.
func TestOllamaCancel(t *testing.T) {
	f, c, _ := bootOllama(t)
	stream, err := c.CreateChatCompletionStream(t.Context(), chatOf("waits"))
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
