//go:build prove

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	openai "github.com/sashabaranov/go-openai"
)

// startRealOllama runs an Ollama with the tiny model until the test ends. Making it
// takes minutes the first time.
func startRealOllama(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	command := exec.Command("testdata/realmodel/ollama.sh", port)
	log := new(bytes.Buffer) // read only after the process has ended
	command.Stdout, command.Stderr, command.WaitDelay = log, log, time.Second
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = command.Wait() // how it ended is in its log
		close(exited)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGTERM) // it may have ended already
		select {
		case <-exited:
		case <-time.After(5 * time.Second):
			_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
			<-exited
		}
		if t.Failed() {
			t.Logf("ollama wrote:\n%s", log.String()[max(0, log.Len()-2000):])
		}
	})
	url = "http://127.0.0.1:" + port
	awaitRealOllama(t, url, exited)
	return url
}

// awaitRealOllama polls until both models are there; it may have to be built first.
func awaitRealOllama(t *testing.T, url string, exited <-chan struct{}) {
	t.Helper()
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	for end := time.Now().Add(30 * time.Minute); time.Now().Before(end); {
		select {
		case <-exited:
			t.Fatal("ollama ended before it was ready")
		case <-poll.C:
		}
		res, err := http.Get(url + "/api/tags")
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if bytes.Contains(text, []byte("sluice-tiny")) && bytes.Contains(text, []byte("sluice-tools")) {
			return
		}
	}
	t.Fatal("ollama is not ready")
}

// TestRealOllama asks a real Ollama in its own protocol and through the gateway, and
// wants the same answers: greedy decoding of fixed weights is deterministic.
func TestRealOllama(t *testing.T) {
	url := startRealOllama(t)
	g := boot(t, fmt.Sprintf("[demo]\nenabled = false\n[[upstreams]]\nname = \"o\"\nkind = \"ollama\"\nbase_url = %q\nlocal = true\n", url))
	c := sdkOf(g)
	t.Run("chat", func(t *testing.T) { checkOllamaChat(t, url, c) })
	t.Run("stop and format", func(t *testing.T) { checkOllamaForms(t, c) })
	t.Run("log probabilities", func(t *testing.T) { checkOllamaLogprobs(t, url, g) })
	t.Run("embeddings", func(t *testing.T) { checkOllamaEmbeddings(t, url, c) })
	t.Run("errors", func(t *testing.T) { checkOllamaErrors(t, c) })
	t.Run("abort", func(t *testing.T) { checkOllamaAbort(t, c) })
	t.Run("models", func(t *testing.T) {
		models, err := c.ListModels(t.Context())
		if err != nil || len(models.Models) != 4 || !strings.HasPrefix(models.Models[0].ID, "sluice-") {
			t.Errorf("%+v, %v", models, err)
		}
	})
}

func greedy(model string, tokens int) openai.ChatCompletionRequest {
	seed := 7
	return openai.ChatCompletionRequest{Model: model, MaxCompletionTokens: tokens, Temperature: 1e-5, Seed: &seed,
		Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "hello world"}}}
}

func checkOllamaChat(t *testing.T, url string, c *openai.Client) {
	var direct struct {
		Message struct{ Content string }
		Reason  string `json:"done_reason"`
		Prompt  int    `json:"prompt_eval_count"`
		Eval    int    `json:"eval_count"`
	}
	postOllama(t, url+"/api/chat", `{"model":"sluice-tiny","stream":false,"messages":[{"role":"user","content":"hello world"}],"options":{"num_predict":40,"temperature":0.00001,"seed":7}}`, &direct)
	if direct.Message.Content == "" || direct.Reason != "length" || direct.Eval != 40 {
		t.Fatalf("the server's own answer is %+v", direct)
	}
	got, err := sdkStream(t, c, greedy("sluice-tiny", 40))
	if err != nil || got.text != direct.Message.Content || got.finish != "length" || got.usage == nil || got.usage.PromptTokens != direct.Prompt || got.usage.CompletionTokens != 40 {
		t.Errorf("streamed %+v, %v\nwant %+v", got, err, direct)
	}
	whole, err := c.CreateChatCompletion(t.Context(), greedy("sluice-tiny", 40))
	if err != nil || whole.Choices[0].Message.Content != direct.Message.Content || whole.Usage.CompletionTokens != 40 {
		t.Errorf("whole %+v, %v", whole, err)
	}
}

// checkOllamaLogprobs wants the server's log probabilities in OpenAI's form, streamed and
// not, in chats and in legacy completions.
func checkOllamaLogprobs(t *testing.T, url string, g *gatewayUnderTest) {
	var direct struct {
		Logprobs []openai.LogProb
	}
	postOllama(t, url+"/api/chat", `{"model":"sluice-tiny","stream":false,"messages":[{"role":"user","content":"hello world"}],"logprobs":true,"top_logprobs":2,"options":{"num_predict":8,"temperature":0.00001,"seed":7}}`, &direct)
	if len(direct.Logprobs) != 8 || len(direct.Logprobs[0].TopLogProbs) != 2 {
		t.Fatalf("the server's own are %+v", direct)
	}
	want, _ := json.Marshal(direct.Logprobs)
	const members = `"model":"sluice-tiny","max_tokens":8,"temperature":0.00001,"seed":7`
	const chat = `,"messages":[{"role":"user","content":"hello world"}],"logprobs":true,"top_logprobs":2`
	type choices struct {
		Choices []struct {
			Logprobs *openai.LogProbs
		}
	}
	for _, stream := range []string{"", `,"stream":true`} {
		a := g.do(t, http.MethodPost, chatPath, "{"+members+chat+stream+"}")
		var all []openai.LogProb
		for line := range strings.Lines(a.body) {
			var c choices
			if json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &c) == nil && len(c.Choices) == 1 && c.Choices[0].Logprobs != nil {
				all = append(all, c.Choices[0].Logprobs.Content...)
			}
		}
		if got, _ := json.Marshal(all); !bytes.Equal(got, want) {
			t.Errorf("chat%s: %s\nwant %s", stream, got, want)
		}
	}
	a := g.do(t, http.MethodPost, "/completions", "{"+members+`,"prompt":"hello world","logprobs":1}`)
	var legacy openai.CompletionResponse
	if err := json.Unmarshal([]byte(a.body), &legacy); err != nil || len(legacy.Choices) != 1 || len(legacy.Choices[0].LogProbs.Tokens) != 8 ||
		strings.Join(legacy.Choices[0].LogProbs.Tokens, "") != legacy.Choices[0].Text || len(legacy.Choices[0].LogProbs.TextOffset) != 8 {
		t.Errorf("completions: %v, %s", err, a.body)
	}
}

func postOllama(t *testing.T, url, body string, into any) {
	t.Helper()
	res, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}

func checkOllamaForms(t *testing.T, c *openai.Client) {
	full, err := sdkStream(t, c, greedy("sluice-tiny", 40))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(full.text)
	req := greedy("sluice-tiny", 40)
	req.Stop = []string{words[len(words)/2]}
	before, _, _ := strings.Cut(full.text, req.Stop[0])
	if got, err := sdkStream(t, c, req); err != nil || got.text != before || got.finish != "stop" {
		t.Errorf("stop %q: %+v, %v; want %q", req.Stop, got, err, before)
	}
	req = greedy("sluice-tools", 200)
	req.ResponseFormat = &openai.ChatCompletionResponseFormat{Type: "json_schema", JSONSchema: &openai.ChatCompletionResponseFormatJSONSchema{Name: "n",
		Schema: json.RawMessage(`{"type":"object","properties":{"name":{"const":"f"},"arguments":{"type":"object","properties":{"city":{"enum":["Oslo"]}},"required":["city"]}},"required":["name","arguments"]}`)}}
	got, err := sdkStream(t, c, req)
	var object struct{ Name string }
	if err != nil || json.Unmarshal([]byte(got.text), &object) != nil || object.Name != "f" {
		t.Errorf("format: %+v, %v", got, err)
	}
	// The same text is a call when there is a tool of that name.
	req.Tools = []openai.Tool{{Type: "function", Function: &openai.FunctionDefinition{Name: "f", Parameters: json.RawMessage(`{"type":"object","properties":{"city":{"type":"string"}}}`)}}}
	got, err = sdkStream(t, c, req)
	if err != nil || got.finish != "tool_calls" || len(got.calls) != 1 || got.calls[0].Function.Arguments != `{"city":"Oslo"}` || got.calls[0].ID == "" {
		t.Errorf("tools: %+v, %v", got, err)
	}
}

func checkOllamaEmbeddings(t *testing.T, url string, c *openai.Client) {
	var direct struct{ Embeddings [][]float32 }
	postOllama(t, url+"/api/embed", `{"model":"sluice-tiny","input":["one","two"]}`, &direct)
	for _, format := range []openai.EmbeddingEncodingFormat{"float", "base64"} {
		got, err := c.CreateEmbeddings(t.Context(), openai.EmbeddingRequestStrings{Model: "sluice-tiny", Input: []string{"one", "two"}, EncodingFormat: format})
		if err != nil || len(got.Data) != 2 || fmt.Sprint(got.Data[1].Embedding) != fmt.Sprint(direct.Embeddings[1]) || got.Usage.TotalTokens == 0 {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func checkOllamaErrors(t *testing.T, c *openai.Client) {
	var failed *openai.APIError
	if _, err := c.CreateChatCompletion(t.Context(), greedy("none", 1)); !errors.As(err, &failed) || failed.HTTPStatusCode != 404 {
		t.Errorf("unknown model: %v", err)
	}
	req := greedy("sluice-tiny", 1)
	req.ReasoningEffort = "high"
	if _, err := c.CreateChatCompletion(t.Context(), req); !errors.As(err, &failed) || failed.HTTPStatusCode != 400 || failed.Param == nil || *failed.Param != "reasoning_effort" {
		t.Errorf("thinking: %v", err)
	}
	// The server itself would leave the image out and answer.
	req = greedy("sluice-tiny", 1)
	req.Messages[0] = openai.ChatCompletionMessage{Role: "user", MultiContent: []openai.ChatMessagePart{{Type: "image_url", ImageURL: &openai.ChatMessageImageURL{URL: "data:image/png;base64,QUJD"}}}}
	if _, err := c.CreateChatCompletion(t.Context(), req); !errors.As(err, &failed) || failed.HTTPStatusCode != 400 || !strings.Contains(failed.Message, "images") {
		t.Errorf("an image: %v", err)
	}
}

// checkOllamaAbort: the server answers one call at a time; an aborted one frees it.
func checkOllamaAbort(t *testing.T, c *openai.Client) {
	stream, err := c.CreateChatCompletionStream(t.Context(), greedy("sluice-tiny", 15000))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	stream.Close()
	begin := time.Now()
	if _, err := c.CreateChatCompletion(t.Context(), greedy("sluice-tiny", 1)); err != nil || time.Since(begin) > 5*time.Second {
		t.Errorf("after an abort: %v in %s", err, time.Since(begin))
	}
}
