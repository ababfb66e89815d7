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

// fakeGemini is a server of the Gemini API whose models each do one thing.
type fakeGemini struct {
	t     *testing.T
	asked chan map[string]json.RawMessage
	gone  chan struct{}
}

func (f *fakeGemini) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Goog-Api-Key") != "key" || r.URL.Query().Get("key") != "" {
		geminiError(w, 400, "INVALID_ARGUMENT", "API key not valid.", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}`)
		return
	}
	if r.URL.Path == "/v1beta/models" {
		io.WriteString(w, `{"models":[{"name":"models/gemini-3-pro","supportedGenerationMethods":["generateContent"],"inputTokenLimit":5},{"name":"models/other","supportedGenerationMethods":["predict"]}]}`)
		return
	}
	var body map[string]json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		f.t.Error(err)
	}
	f.asked <- body
	model, method, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1beta/models/"), ":")
	switch method {
	case "batchEmbedContents":
		io.WriteString(w, `{"embeddings":[{"values":[0.5,-1]},{"values":[0.25,2]}]}`)
	case "generateContent":
		f.generate(w, r, model, false)
	case "streamGenerateContent":
		if r.URL.Query().Get("alt") != "sse" {
			f.t.Errorf("asked %s", r.URL)
		}
		f.generate(w, r, model, true)
	}
}

func geminiError(w http.ResponseWriter, code int, status, message, details string) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(code)
	fmt.Fprintf(w, "{\n  \"error\": {\"code\": %d, \"message\": %q, \"status\": %q, \"details\": [%s]}\n}\n", code, message, status, details)
}

const geminiUsage = `"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":4,"thoughtsTokenCount":3,"totalTokenCount":12}`

// geminiParts are the parts of the answers of models, a streamed chunk each.
var geminiParts = map[string][]string{
	"gemini-3-pro": {`{"text":"hm","thought":true}`, `{"text":"Grüße "}`, `{"text":"🚀","thoughtSignature":"Zz"}`},
	"gemini-tools": {`{"functionCall":{"name":"f","args":{"a":1}},"thoughtSignature":"Sig"},{"functionCall":{"name":"g"}}`},
}

func (f *fakeGemini) generate(w http.ResponseWriter, r *http.Request, model string, stream bool) {
	chunk := func(parts, more string) string {
		return `{"candidates":[{"content":{"role":"model","parts":[` + parts + `]},"index":0` + more + `}],` + geminiUsage + `,"modelVersion":"` + model + `","responseId":"r1"}`
	}
	parts, known := geminiParts[model]
	switch {
	case known && !stream:
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		io.WriteString(w, chunk(strings.Join(parts, ","), `,"finishReason":"STOP"`))
	case known:
		for i, p := range parts {
			geminiEvents(w, chunk(p, map[bool]string{true: `,"finishReason":"STOP"`}[i == len(parts)-1]))
		}
	case model == "gemini-blocked":
		geminiEvents(w, `{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":5,"totalTokenCount":5}}`)
	case model == "gemini-dies":
		geminiEvents(w, chunk(`{"text":"Hel"}`, ""))
		io.WriteString(w, "{\n  \"error\": {\n    \"code\": 500,\n    \"message\": \"Internal error encountered.\",\n    \"status\": \"INTERNAL\"\n  }\n}\n")
	case model == "gemini-ends":
		geminiEvents(w, chunk(`{"text":"Hel"}`, ""))
	case model == "gemini-waits":
		geminiEvents(w, chunk(`{"text":"Hel"}`, ""))
		<-r.Context().Done()
		close(f.gone)
	default:
		geminiError(w, 404, "NOT_FOUND", "models/"+model+" is not found", "")
	}
}

func geminiEvents(w http.ResponseWriter, events ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, e := range events {
		fmt.Fprintf(w, "data: %s\r\n\r\n", e)
		w.(http.Flusher).Flush()
	}
}

func bootGemini(t *testing.T, more string) (*fakeGemini, *openai.Client, *gatewayUnderTest) {
	t.Helper()
	f := &fakeGemini{t: t, asked: make(chan map[string]json.RawMessage, 64), gone: make(chan struct{})}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	g := boot(t, fmt.Sprintf("[demo]\nenabled = false\n[[upstreams]]\nname = \"g\"\nkind = \"gemini\"\nbase_url = %q\napi_key = \"key\"\nmodels = [\"gemini-*\"]\n%s", srv.URL, more))
	return f, sdkOf(g), g
}

func TestGeminiChat(t *testing.T) {
	f, c, _ := bootGemini(t, "[upstreams.gemini]\nsafety = \"BLOCK_NONE\"\n")
	req := chatOf("gemini-3-pro")
	req.Stop, req.MaxCompletionTokens, req.ReasoningEffort = []string{"END"}, 9, "low"
	got, err := sdkStream(t, c, req)
	if err != nil || got.text != "Grüße 🚀" || got.thought != "hm" || got.finish != "stop" || got.usage == nil || got.usage.PromptTokens != 5 || got.usage.CompletionTokens != 7 || got.usage.CompletionTokensDetails.ReasoningTokens != 3 {
		t.Errorf("streamed: %+v, %v", got, err)
	}
	body := <-f.asked
	if string(body["generationConfig"]) != `{"maxOutputTokens":9,"stopSequences":["END"],"thinkingConfig":{"includeThoughts":true,"thinkingLevel":"LOW"}}` || !strings.Contains(string(body["safetySettings"]), `{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_NONE"}`) {
		t.Errorf("sent %s", body)
	}
	whole, err := c.CreateChatCompletion(t.Context(), chatOf("gemini-3-pro"))
	if err != nil || whole.Choices[0].Message.Content != "Grüße 🚀" || whole.Choices[0].Message.ReasoningContent != "hm" || whole.Usage.TotalTokens != 12 || whole.Model != "gemini-3-pro" {
		t.Errorf("whole: %+v, %v", whole, err)
	}
	once, err := c.CreateCompletion(t.Context(), openai.CompletionRequest{Model: "gemini-3-pro", Prompt: "Hi", MaxTokens: 5})
	if err != nil || once.Choices[0].Text != "Grüße 🚀" {
		t.Errorf("completion: %+v, %v", once, err)
	}
}

// TestGeminiTools goes twice around the loop: the signature of the first call is sent
// back although the client knows nothing of it, and the result gets its name and form.
func TestGeminiTools(t *testing.T) {
	f, c, _ := bootGemini(t, "")
	req := chatOf("gemini-tools")
	req.Tools = []openai.Tool{{Type: "function", Function: &openai.FunctionDefinition{Name: "f", Parameters: map[string]any{"type": "object"}}}}
	got, err := sdkStream(t, c, req)
	if err != nil || got.finish != "tool_calls" || len(got.calls) != 2 || got.calls[0].Function.Arguments != `{"a":1}` || got.calls[1].Function.Arguments != "{}" || got.calls[0].ID == got.calls[1].ID {
		t.Fatalf("streamed: %+v, %v", got, err)
	}
	whole, err := c.CreateChatCompletion(t.Context(), req)
	if err != nil || len(whole.Choices[0].Message.ToolCalls) != 2 || whole.Choices[0].FinishReason != "tool_calls" {
		t.Fatalf("whole: %+v, %v", whole, err)
	}
	<-f.asked
	<-f.asked
	req.Messages = append(req.Messages, openai.ChatCompletionMessage{Role: "assistant", ToolCalls: got.calls},
		openai.ChatCompletionMessage{Role: "tool", ToolCallID: got.calls[1].ID, Content: "43"}, openai.ChatCompletionMessage{Role: "tool", ToolCallID: got.calls[0].ID, Content: `{"x":42}`})
	if _, err := sdkStream(t, c, req); err != nil {
		t.Fatal(err)
	}
	want := `{"role":"model","parts":[{"functionCall":{"name":"f","args":{"a":1}},"thoughtSignature":"Sig"},{"functionCall":{"name":"g","args":{}}}]},` +
		`{"role":"user","parts":[{"functionResponse":{"name":"f","response":{"x":42}}},{"functionResponse":{"name":"g","response":{"output":"43"}}}]}]`
	if sent := string((<-f.asked)["contents"]); !strings.HasSuffix(sent, want) {
		t.Errorf("sent %s, want %s", sent, want)
	}
}

func TestGeminiEmbeddings(t *testing.T) {
	f, c, _ := bootGemini(t, "")
	got, err := c.CreateEmbeddings(t.Context(), openai.EmbeddingRequestStrings{Model: "gemini-embedding", Input: []string{"a", "b"}, Dimensions: 2})
	if err != nil || len(got.Data) != 2 || got.Data[0].Embedding[1] != -1 || got.Data[1].Index != 1 || string(got.Model) != "gemini-embedding" {
		t.Errorf("%+v, %v", got, err)
	}
	if sent := string((<-f.asked)["requests"]); sent != `[{"model":"models/gemini-embedding","content":{"parts":[{"text":"a"}]},"outputDimensionality":2},{"model":"models/gemini-embedding","content":{"parts":[{"text":"b"}]},"outputDimensionality":2}]` {
		t.Errorf("sent %s", sent)
	}
}

func TestGeminiFails(t *testing.T) {
	_, c, _ := bootGemini(t, "")
	if got, err := sdkStream(t, c, chatOf("gemini-blocked")); err != nil || got.finish != "content_filter" || got.text != "" {
		t.Errorf("a blocked prompt: %+v, %v", got, err)
	}
	var refused *openai.APIError
	if got, err := sdkStream(t, c, chatOf("gemini-dies")); !errors.As(err, &refused) || refused.Message != "Internal error encountered." || got.text != "Hel" {
		t.Errorf("an error in the middle: %+v, %v", got, err)
	}
	if got, err := sdkStream(t, c, chatOf("gemini-ends")); err == nil || got.finish != "" {
		t.Errorf("a cut answer: %+v, %v", got, err)
	}
	if _, err := c.CreateChatCompletion(t.Context(), chatOf("gemini-0")); !errors.As(err, &refused) || refused.HTTPStatusCode != 404 || refused.Code != "model_not_found" {
		t.Errorf("an unknown model: %v", err)
	}
	req := chatOf("gemini-3-pro")
	req.LogitBias = map[string]int{"1": 5}
	if _, err := c.CreateChatCompletion(t.Context(), req); !errors.As(err, &refused) || refused.HTTPStatusCode != 400 || refused.Param == nil || *refused.Param != "logit_bias" {
		t.Errorf("logit_bias: %v", err)
	}
	_, c, _ = bootGemini(t, "auth = \"bearer\"\n")
	if _, err := c.CreateChatCompletion(t.Context(), chatOf("gemini-3-pro")); !errors.As(err, &refused) || refused.HTTPStatusCode != 502 {
		t.Errorf("a refused key: %v", err)
	}
}

func TestGeminiCancel(t *testing.T) {
	f, c, _ := bootGemini(t, "")
	stream, err := c.CreateChatCompletionStream(t.Context(), chatOf("gemini-waits"))
	if err != nil {
		t.Fatal(err)
	}
	for {
		chunk, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			break
		}
	}
	stream.Close()
	select {
	case <-f.gone:
	case <-time.After(soon):
		t.Error("the upstream does not know that the client has gone")
	}
}

func TestGeminiModels(t *testing.T) {
	_, c, _ := bootGemini(t, "")
	list, err := c.ListModels(t.Context())
	if err != nil || len(list.Models) != 1 || list.Models[0].ID != "gemini-3-pro" || list.Models[0].OwnedBy != "google" {
		t.Errorf("%+v, %v", list.Models, err)
	}
}
