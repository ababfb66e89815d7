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

// fakeAnthropic is a server of the Messages API whose models each do one thing.
type fakeAnthropic struct {
	t     *testing.T
	asked chan map[string]json.RawMessage
	gone  chan struct{}
	tries int
}

func (f *fakeAnthropic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Api-Key") != "sk-ant" || r.Header.Get("Anthropic-Version") != "2023-06-01" || r.Header.Get("Authorization") != "" {
		anthropicError(w, http.StatusUnauthorized, "authentication_error", "invalid x-api-key")
		return
	}
	switch r.URL.Path {
	case "/v1/models":
		io.WriteString(w, `{"data":[{"type":"model","id":"claude-opus-5","display_name":"Opus","created_at":"2026-01-01T00:00:00Z"}],"has_more":false}`)
	case "/v1/messages":
		var body map[string]json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			f.t.Error(err)
		}
		f.asked <- body
		var model string
		_ = json.Unmarshal(body["model"], &model) // "" is an unknown model
		f.message(w, r, model, string(body["stream"]) == "true")
	default:
		anthropicError(w, http.StatusNotFound, "not_found_error", "no such route")
	}
}

func anthropicError(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", "req_1")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"error","error":{"type":%q,"message":%q},"request_id":"req_1"}`, kind, message)
}

// anthropicBlocks are the contents of the answers of models: how each is streamed, and
// how it stands in a whole one.
var anthropicBlocks = map[string]struct{ deltas, whole, stop string }{
	"claude-opus-5": {
		deltas: `start 0 {"type":"thinking","thinking":"","signature":""}|delta 0 {"type":"thinking_delta","thinking":"hm"}|delta 0 {"type":"signature_delta","signature":"Eq"}|stop 0|` +
			`start 1 {"type":"text","text":""}|ping|delta 1 {"type":"text_delta","text":"Grüße "}|delta 1 {"type":"text_delta","text":"🚀"}|stop 1`,
		whole: `[{"type":"thinking","thinking":"hm","signature":"Eq"},{"type":"text","text":"Grüße 🚀"}]`, stop: "end_turn",
	},
	"claude-tools": {
		deltas: `start 0 {"type":"thinking","thinking":"","signature":""}|delta 0 {"type":"thinking_delta","thinking":"two"}|delta 0 {"type":"signature_delta","signature":"Sig"}|stop 0|` +
			`start 1 {"type":"tool_use","id":"toolu_1","name":"f","input":{}}|delta 1 {"type":"input_json_delta","partial_json":"{\"a\":"}|delta 1 {"type":"input_json_delta","partial_json":"1}"}|stop 1|` +
			`start 2 {"type":"tool_use","id":"toolu_2","name":"g","input":{}}|stop 2`,
		whole: `[{"type":"tool_use","id":"toolu_3","name":"f","input":{"a":1}},{"type":"tool_use","id":"toolu_4","name":"g","input":{}}]`, stop: "tool_use",
	},
}

func (f *fakeAnthropic) message(w http.ResponseWriter, r *http.Request, model string, stream bool) {
	answer, known := anthropicBlocks[model]
	head := fmt.Sprintf(`"id":"msg_1","type":"message","role":"assistant","model":%q`, model)
	usage := `"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":3,"output_tokens":%d}`
	begin := "message_start " + `{"message":{` + head + `,"content":[],"stop_reason":null,` + fmt.Sprintf(usage, 1) + `}}`
	switch {
	case known && !stream:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{%s,"content":%s,"stop_reason":%q,`+usage+`}`, head, answer.whole, answer.stop, 7)
	case known:
		anthropicEvents(w, begin)
		anthropicEvents(w, strings.Split(answer.deltas, "|")...)
		anthropicEvents(w, fmt.Sprintf(`message_delta {"delta":{"stop_reason":%q,"stop_sequence":null},"usage":{"output_tokens":7}}`, answer.stop), "message_stop {}")
	case model == "claude-busy" && f.tries == 0: // the first event of a stream with status 200
		f.tries++
		anthropicEvents(w, `error {"error":{"type":"overloaded_error","message":"Overloaded"}}`)
	case model == "claude-busy":
		f.message(w, r, "claude-opus-5", stream)
	case model == "claude-dies":
		anthropicEvents(w, begin, `start 0 {"type":"text","text":""}`, `delta 0 {"type":"text_delta","text":"Hel"}`, `error {"error":{"type":"api_error","message":"Internal server error"}}`)
	case model == "claude-ends":
		anthropicEvents(w, begin, `start 0 {"type":"text","text":""}`, `delta 0 {"type":"text_delta","text":"Hel"}`)
	case model == "claude-waits":
		anthropicEvents(w, begin, `start 0 {"type":"text","text":""}`, `delta 0 {"type":"text_delta","text":"Hel"}`)
		<-r.Context().Done()
		close(f.gone)
	default:
		anthropicError(w, http.StatusNotFound, "not_found_error", "model: "+model)
	}
}

// anthropicEvents sends events of a stream, one by one. Blocks have short names here.
func anthropicEvents(w http.ResponseWriter, events ...string) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	for _, e := range events {
		name, rest, _ := strings.Cut(e, " ")
		index, data, _ := strings.Cut(rest, " ")
		switch name {
		case "start":
			name, rest = "content_block_start", `{"index":`+index+`,"content_block":`+data+`}`
		case "delta":
			name, rest = "content_block_delta", `{"index":`+index+`,"delta":`+data+`}`
		case "stop":
			name, rest = "content_block_stop", `{"index":`+index+`}`
		}
		members := strings.TrimPrefix(strings.TrimPrefix(rest, "{"), "}")
		if members == "" {
			members = "}"
		}
		fmt.Fprintf(w, "event: %s\ndata: {\"type\":%q%s%s\n\n", name, name, map[bool]string{true: ","}[members != "}"], members)
		w.(http.Flusher).Flush()
	}
}

func bootAnthropic(t *testing.T, more string) (*fakeAnthropic, *openai.Client, *gatewayUnderTest) {
	t.Helper()
	f := &fakeAnthropic{t: t, asked: make(chan map[string]json.RawMessage, 64), gone: make(chan struct{})}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	g := boot(t, fmt.Sprintf("[demo]\nenabled = false\n[[upstreams]]\nname = \"a\"\nkind = \"anthropic\"\nbase_url = %q\napi_key = \"sk-ant\"\nmodels = [\"claude-*\"]\n%s", srv.URL, more))
	return f, sdkOf(g), g
}

func TestAnthropicChat(t *testing.T) {
	f, c, _ := bootAnthropic(t, "")
	req := chatOf("claude-opus-5")
	req.Stop, req.MaxCompletionTokens, req.ReasoningEffort = []string{"END"}, 9, "high"
	got, err := sdkStream(t, c, req)
	if err != nil || got.text != "Grüße 🚀" || got.thought != "hm" || got.finish != "stop" || got.usage == nil || got.usage.PromptTokens != 5 || got.usage.CompletionTokens != 7 || got.usage.PromptTokensDetails.CachedTokens != 3 {
		t.Errorf("streamed: %+v, %v", got, err)
	}
	body := <-f.asked
	if string(body["max_tokens"]) != "9" || string(body["stop_sequences"]) != `["END"]` || string(body["output_config"]) != `{"effort":"high"}` || string(body["messages"]) != `[{"role":"user","content":[{"type":"text","text":"Hi"}]}]` {
		t.Errorf("sent %s", body)
	}
	whole, err := c.CreateChatCompletion(t.Context(), chatOf("claude-opus-5"))
	if err != nil || whole.Choices[0].Message.Content != "Grüße 🚀" || whole.Choices[0].Message.ReasoningContent != "hm" || whole.Usage.TotalTokens != 12 || whole.Model != "claude-opus-5" {
		t.Errorf("whole: %+v, %v", whole, err)
	}
	once, err := c.CreateCompletion(t.Context(), openai.CompletionRequest{Model: "claude-opus-5", Prompt: "Hi", MaxTokens: 5})
	if err != nil || once.Choices[0].Text != "Grüße 🚀" || once.Choices[0].FinishReason != "stop" {
		t.Errorf("completion: %+v, %v", once, err)
	}
}

// TestAnthropicTools goes twice around the loop: the thinking in front of the calls is
// sent back although the client knows nothing of it.
func TestAnthropicTools(t *testing.T) {
	f, c, _ := bootAnthropic(t, "")
	req := chatOf("claude-tools")
	req.Tools = []openai.Tool{{Type: "function", Function: &openai.FunctionDefinition{Name: "f", Parameters: map[string]any{"type": "object"}}}}
	got, err := sdkStream(t, c, req)
	if err != nil || got.finish != "tool_calls" || len(got.calls) != 2 || got.calls[0].Function.Arguments != `{"a":1}` || got.calls[1].Function.Arguments != "{}" || got.calls[1].ID != "toolu_2" {
		t.Fatalf("streamed: %+v, %v", got, err)
	}
	whole, err := c.CreateChatCompletion(t.Context(), req)
	if err != nil || len(whole.Choices[0].Message.ToolCalls) != 2 || whole.Choices[0].FinishReason != "tool_calls" {
		t.Fatalf("whole: %+v, %v", whole, err)
	}
	<-f.asked
	<-f.asked
	req.Messages = append(req.Messages, openai.ChatCompletionMessage{Role: "assistant", ToolCalls: got.calls},
		openai.ChatCompletionMessage{Role: "tool", ToolCallID: "toolu_1", Content: "42"}, openai.ChatCompletionMessage{Role: "tool", ToolCallID: "toolu_2", Content: "43"})
	if _, err := sdkStream(t, c, req); err != nil {
		t.Fatal(err)
	}
	sent := string((<-f.asked)["messages"])
	for _, want := range []string{`[{"type":"thinking","thinking":"two","signature":"Sig"},{"type":"tool_use","id":"toolu_1"`, `{"type":"tool_result","tool_use_id":"toolu_1","content":[{"type":"text","text":"42"}]},{"type":"tool_result"`} {
		if !strings.Contains(sent, want) {
			t.Errorf("sent %s, want %s", sent, want)
		}
	}
}

func TestAnthropicRefuses(t *testing.T) {
	_, c, _ := bootAnthropic(t, "")
	req := chatOf("claude-opus-5")
	req.LogProbs = true
	var refused *openai.APIError
	if _, err := c.CreateChatCompletion(t.Context(), req); !errors.As(err, &refused) || refused.HTTPStatusCode != 400 || refused.Param == nil || *refused.Param != "logprobs" || !strings.Contains(refused.Message, "claude-opus-5") {
		t.Errorf("logprobs: %v", err)
	}
	if _, err := c.CreateEmbeddings(t.Context(), openai.EmbeddingRequestStrings{Model: "claude-opus-5", Input: []string{"a"}}); !errors.As(err, &refused) || refused.HTTPStatusCode != 400 {
		t.Errorf("embeddings: %v", err)
	}
	dropping, c, g := bootAnthropic(t, "unsupported = \"drop\"\n")
	if _, err := c.CreateChatCompletion(t.Context(), req); err != nil {
		t.Errorf("dropped: %v", err)
	}
	<-dropping.asked
	if a := g.chat(t, "claude-opus-5", `,"logprobs":true,"seed":1`); a.header.Get("X-Sluice-Dropped-Params") != "logprobs, seed" && a.header.Get("X-Sluice-Dropped-Params") != "seed, logprobs" {
		t.Errorf("header %q", a.header.Get("X-Sluice-Dropped-Params"))
	}
}

func TestAnthropicFails(t *testing.T) {
	_, c, _ := bootAnthropic(t, "")
	if got, err := sdkStream(t, c, chatOf("claude-busy")); err != nil || got.text != "Grüße 🚀" {
		t.Errorf("overloaded in its first event: %+v, %v", got, err)
	}
	var refused *openai.APIError
	if got, err := sdkStream(t, c, chatOf("claude-dies")); !errors.As(err, &refused) || refused.Message != "Internal server error" || got.text != "Hel" {
		t.Errorf("an error in the middle: %+v, %v", got, err)
	}
	if got, err := sdkStream(t, c, chatOf("claude-ends")); err == nil || got.finish != "" {
		t.Errorf("a cut answer: %+v, %v", got, err)
	}
	if _, err := c.CreateChatCompletion(t.Context(), chatOf("claude-0")); !errors.As(err, &refused) || refused.HTTPStatusCode != 404 || refused.Code != "model_not_found" {
		t.Errorf("an unknown model: %v", err)
	}
	_, c, _ = bootAnthropic(t, "auth = \"bearer\"\n")
	if _, err := c.CreateChatCompletion(t.Context(), chatOf("claude-opus-5")); !errors.As(err, &refused) || refused.HTTPStatusCode != 502 || strings.Contains(refused.Message, "x-api-key") {
		t.Errorf("a refused key: %v", err)
	}
}

func TestAnthropicCancel(t *testing.T) {
	f, c, _ := bootAnthropic(t, "")
	stream, err := c.CreateChatCompletionStream(t.Context(), chatOf("claude-waits"))
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

func TestAnthropicModels(t *testing.T) {
	_, c, _ := bootAnthropic(t, "")
	list, err := c.ListModels(t.Context())
	if err != nil || len(list.Models) != 1 || list.Models[0].ID != "claude-opus-5" || list.Models[0].OwnedBy != "anthropic" || list.Models[0].CreatedAt != 1767225600 {
		t.Errorf("%+v, %v", list.Models, err)
	}
}
