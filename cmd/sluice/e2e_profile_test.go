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

// fakeMIIOpenAI answers as mii.entrypoints.openai_api_server does.
type fakeMIIOpenAI struct {
	asked chan map[string]json.RawMessage
	gone  chan struct{}
}

const miiRefusal = `{"object":"error","message":%q,"code":40001}`

func (f *fakeMIIOpenAI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/v1/models" {
		io.WriteString(w, `{"object":"list","data":[{"id":"org/tiny","object":"model","created":1700000000,"owned_by":"deepspeed-mii","root":"org/tiny","parent":null,"permission":[]}]}`)
		return
	}
	var body map[string]json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || string(body["model"]) != `"org/tiny"` {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, miiRefusal, "Only org/tiny allowed now")
		return
	}
	f.asked <- body
	var messages []map[string]string
	switch {
	case r.URL.Path == "/v1/chat/completions" && json.Unmarshal(body["messages"], &messages) != nil:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, miiRefusal, "messages: str type expected")
	case string(body["temperature"]) == "0":
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, "Internal Server Error")
	case string(body["stream"]) == "true":
		f.stream(w, r, string(body["messages"]))
	default:
		choices := `{"index": 0, "message": {"role": "assistant", "content": "One END two"}, "finish_reason": "length"}`
		if string(body["n"]) == "2" {
			choices += `, {"index": 1, "message": {"role": "assistant", "content": "Three"}, "finish_reason": "stop"}`
		}
		io.WriteString(w, `{"id": "chatcmpl-X", "object": "chat.completion", "created": 1700000000, "model": "org/tiny", "choices": [`+choices+`], "usage": {"prompt_tokens": 3, "total_tokens": 8, "completion_tokens": 5}}`)
	}
}

func (f *fakeMIIOpenAI) stream(w http.ResponseWriter, r *http.Request, messages string) {
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(delta, finish string) {
		fmt.Fprintf(w, `data: {"id": "chatcmpl-X", "model": "org/tiny", "choices": [{"index": 0, "delta": {%s}, "finish_reason": %s}]}`+"\n\n", delta, finish)
		w.(http.Flusher).Flush()
	}
	send(`"role": "assistant"`, "null")
	for _, token := range []string{"One ", "E", "ND", " two", "</s>"} {
		send(fmt.Sprintf(`"content": %q`, token), "null")
		switch {
		case strings.Contains(messages, "dies"):
			panic(http.ErrAbortHandler)
		case strings.Contains(messages, "waits"):
			<-r.Context().Done()
			close(f.gone)
			return
		}
	}
	if !strings.Contains(messages, "balancer") { // which gave up
		send(`"content": ""`, `"stop"`)
	}
	io.WriteString(w, "data: [DONE]\n\n")
}

func bootProfile(t *testing.T, more string) (*fakeMIIOpenAI, *openai.Client, *gatewayUnderTest) {
	t.Helper()
	f := &fakeMIIOpenAI{asked: make(chan map[string]json.RawMessage, 64), gone: make(chan struct{})}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	g := boot(t, fmt.Sprintf("[retry]\ntries = 1\n[demo]\nenabled = false\n[[upstreams]]\nname = \"m\"\nkind = \"openai\"\nprofile = \"mii\"\nbase_url = \"%s/v1\"\nlocal = true\n%s", srv.URL, more))
	return f, sdkOf(g), g
}

func TestMIIProfile(t *testing.T) {
	t.Parallel()
	f, c, _ := bootProfile(t, "")
	req := chatOf("org/tiny")
	//lint:ignore SA1019 the server knows only the old name
	req.Temperature, req.MaxTokens = 0, 9
	got, err := sdkStream(t, c, req)
	if err != nil || got.text != "One END two" || got.finish != "stop" {
		t.Errorf("streamed: %+v, %v", got, err)
	}
	<-f.asked
	req.Stop = []string{"END"}
	req.Messages[0].Content, req.Messages[0].MultiContent = "", []openai.ChatMessagePart{{Type: "text", Text: "Hi"}, {Type: "text", Text: "you"}}
	if got, err = sdkStream(t, c, req); err != nil || got.text != "One " || got.finish != "stop" {
		t.Errorf("stopped: %+v, %v", got, err)
	}
	sent := <-f.asked
	if sent["stop"] != nil || sent["stream_options"] != nil || !strings.Contains(string(sent["messages"]), `"content":"Hi\nyou"`) {
		t.Errorf("sent %s", sent)
	}
	whole, err := c.CreateChatCompletion(t.Context(), req)
	if err != nil || whole.Choices[0].Message.Content != "One " || whole.Choices[0].FinishReason != "stop" || whole.Usage.TotalTokens != 8 {
		t.Errorf("whole: %+v, %v", whole, err)
	}
	if sent = <-f.asked; sent["stop"] != nil {
		t.Errorf("sent %s", sent)
	}
	req.Stop, req.N = nil, 2
	if got, err = sdkStream(t, c, req); err != nil || got.text != "One END twoThree" || got.finish != "lengthstop" {
		t.Errorf("several, streamed: %+v, %v", got, err)
	}
	if sent = <-f.asked; string(sent["stream"]) != "false" || string(sent["n"]) != "2" {
		t.Errorf("sent %s", sent)
	}
	models, err := c.ListModels(t.Context())
	if err != nil || len(models.Models) != 1 || models.Models[0].ID != "org/tiny" {
		t.Errorf("models: %+v, %v", models, err)
	}
}

// A temperature of 0, which the server fails on, is served.
func TestMIIProfileCold(t *testing.T) {
	t.Parallel()
	f, _, g := bootProfile(t, "")
	if a := g.whole(t, "org/tiny", `,"temperature":0`); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if sent := <-f.asked; string(sent["temperature"]) != "0.01" {
		t.Errorf("sent %s", sent)
	}
}

func TestMIIProfileRefuses(t *testing.T) {
	t.Parallel()
	f, c, g := bootProfile(t, "")
	for param, more := range map[string]string{
		"tools": `,"tools":[{"type":"function","function":{"name":"f"}}]`, "seed": `,"seed":1`, "logprobs": `,"logprobs":true`,
		"response_format": `,"response_format":{"type":"json_object"}`, "top_k": `,"top_k":3`, "presence_penalty": `,"presence_penalty":1`,
	} {
		a := g.chat(t, "org/tiny", more)
		if e := a.refused(t, 400); e.Param != param || !strings.Contains(e.Message, "org/tiny") {
			t.Errorf("%s: %+v", param, e)
		}
	}
	if len(f.asked) > 0 {
		t.Error("the server was asked all the same")
	}
	var failed *openai.APIError
	for text, part := range map[string]string{"dies": "broke", "balancer": "finish_reason"} {
		req := chatOf("org/tiny")
		req.Messages[0].Content = text
		if got, err := sdkStream(t, c, req); !errors.As(err, &failed) || !strings.Contains(failed.Message, part) || got.finish != "" {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	_, _, dropping := bootProfile(t, "unsupported = \"drop\"\n")
	a := dropping.chat(t, "org/tiny", `,"seed":1,"tools":[{"type":"function","function":{"name":"f"}}]`)
	if a.status != 200 || a.header.Get("X-Sluice-Dropped-Params") != "seed, tools" || !a.done {
		t.Errorf("dropping: %d %v %s", a.status, a.header, a.body)
	}
}

// A caller who leaves is told to the server at once, and what it may go on to make is counted.
func TestMIIProfileCancel(t *testing.T) {
	t.Parallel()
	f, c, g := bootProfile(t, "")
	req := chatOf("org/tiny")
	//lint:ignore SA1019 the server knows only the old name
	req.Messages[0].Content, req.MaxTokens = "waits", 50
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
		t.Error("the connection is still there after a second")
	}
	g.accessLine(t, "org/tiny")
	if n := g.metric(t, "gateway_tokens_unstopped_total"); n != 49 {
		t.Errorf("%v tokens may still be made", n)
	}
}
