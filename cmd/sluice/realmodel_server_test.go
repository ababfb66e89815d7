//go:build prove

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	openai "github.com/sashabaranov/go-openai"
)

const (
	realModel            = "sluice-tiny"
	realKey              = "sk-test"
	realCompletionTokens = 40
	// go-openai leaves a temperature of 0 out; this one is greedy as well.
	realTemperature = 1e-5
)

var realSeed = 7

func realChat(maxTokens int) openai.ChatCompletionRequest {
	return openai.ChatCompletionRequest{
		//lint:ignore SA1019 local servers know only the old name
		Model: realModel, MaxTokens: maxTokens, Temperature: realTemperature, Seed: &realSeed,
		Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "hello world"}},
	}
}

func realBody(maxTokens int, stream bool) map[string]any {
	return map[string]any{
		"model": realModel, "max_tokens": maxTokens, "stream": stream,
		"messages": []openai.ChatCompletionMessage{{Role: "user", Content: "hello world"}},
	}
}

// realRoute is one way to the model: the server itself, or the gateway.
type realRoute struct {
	baseURL string
	client  *openai.Client
}

// realHTTP opens a connection per request. llama-server closes one after every
// streamed answer without having said so, and a request that is written on it
// at that moment is lost. Here that would spoil a check; the gateway must cope
// (see checkRealReuse).
var realHTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func newRealRoute(baseURL string) realRoute {
	config := openai.DefaultConfig(realKey)
	config.BaseURL = baseURL
	config.HTTPClient = realHTTP
	return realRoute{baseURL, openai.NewClientWithConfig(config)}
}

func (r realRoute) post(ctx context.Context, t *testing.T, path string, body map[string]any) *http.Response {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.baseURL+path, bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+realKey)
	response, err := realHTTP.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

// realAnswer is what must be the same on both routes.
type realAnswer struct {
	text, finish string
	usage        openai.Usage
}

func (a realAnswer) equals(b realAnswer) bool {
	return a.text == b.text && a.finish == b.finish && a.usage.PromptTokens == b.usage.PromptTokens &&
		a.usage.CompletionTokens == b.usage.CompletionTokens && a.usage.TotalTokens == b.usage.TotalTokens
}

func (r realRoute) chat(t *testing.T, request openai.ChatCompletionRequest) realAnswer {
	t.Helper()
	response, err := r.client.CreateChatCompletion(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	choice := response.Choices[0]
	return realAnswer{choice.Message.Content, string(choice.FinishReason), response.Usage}
}

func (r realRoute) streamChat(t *testing.T, request openai.ChatCompletionRequest) realAnswer {
	t.Helper()
	stream, err := r.client.CreateChatCompletionStream(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var answer realAnswer
	var id string
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return answer
		}
		if err != nil || id != "" && chunk.ID != id || answer.usage.TotalTokens != 0 {
			t.Fatalf("after %+v: chunk %+v, error %v", answer, chunk, err)
		}
		id = chunk.ID
		for _, choice := range chunk.Choices {
			answer.text += choice.Delta.Content
			answer.finish += string(choice.FinishReason)
		}
		if chunk.Usage != nil {
			answer.usage = *chunk.Usage
		}
	}
}

func realCompletion() openai.CompletionRequest {
	return openai.CompletionRequest{
		Model: realModel, Prompt: "one two", MaxTokens: realCompletionTokens, Temperature: realTemperature, Seed: &realSeed,
	}
}

func (r realRoute) complete(t *testing.T) realAnswer {
	t.Helper()
	response, err := r.client.CreateCompletion(t.Context(), realCompletion())
	if err != nil {
		t.Fatal(err)
	}
	return realAnswer{response.Choices[0].Text, response.Choices[0].FinishReason, *response.Usage}
}

func (r realRoute) streamCompletion(t *testing.T) realAnswer {
	t.Helper()
	stream, err := r.client.CreateCompletionStream(t.Context(), realCompletion())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var answer realAnswer
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return answer
		}
		if err != nil {
			t.Fatalf("after %+v: %v", answer, err)
		}
		for _, choice := range chunk.Choices {
			answer.text += choice.Text
			answer.finish += choice.FinishReason
		}
	}
}

// setUpRealModel builds the servers and the model, which takes minutes the
// first time and nothing later.
func setUpRealModel(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "testdata/realmodel/start.sh", "setup")
	command.WaitDelay = time.Second
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("setting up the model servers: %v\n%s", err, output)
	}
}

// startRealServer runs a model server until the test ends and returns the base
// URL of its API.
func startRealServer(t *testing.T, name string, args ...string) string {
	t.Helper()
	port := freeRealPort(t)
	command := exec.Command("testdata/realmodel/start.sh", append([]string{name, port}, args...)...)
	return startRealProcess(t, command, "http://127.0.0.1:"+port+"/v1")
}

// startRealGateway runs the gateway in front of one upstream until the test
// ends and returns the base URL of its API.
func startRealGateway(t *testing.T, upstream string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "sluice")
	if output, err := exec.Command("go", "build", "-o", binary, "sluice/cmd/sluice").CombinedOutput(); err != nil {
		t.Fatalf("building the gateway: %v\n%s", err, output)
	}
	listen := "127.0.0.1:" + freeRealPort(t)
	config := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, realGatewayConfig, listen, realKey, upstream), 0o600); err != nil {
		t.Fatal(err)
	}
	return startRealProcess(t, exec.Command(binary, "serve", "--config", config), "http://"+listen+"/v1")
}

const realGatewayConfig = `
[server]
listen = %q
admin_listen = ""
[drain]
delay = "0s"
timeout = "1s"
[demo]
enabled = false
[[keys]]
name = "test"
key = %q
[[upstreams]]
name = "llama"
kind = "openai"
base_url = %q
local = true
`

// startRealProcess runs command until the test ends, returns baseURL once the
// API there lists models, and shows what the command wrote if the test failed.
func startRealProcess(t *testing.T, command *exec.Cmd, baseURL string) string {
	t.Helper()
	log := new(bytes.Buffer) // read only after the process has ended
	command.Stdout, command.Stderr = log, log
	command.WaitDelay = time.Second
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = command.Wait() // how it ended is in its log
		close(exited)
	}()
	t.Cleanup(func() {
		stopRealProcess(command, exited)
		if t.Failed() {
			t.Logf("%s wrote:\n%s", command, realTail(log.String()))
		}
	})
	awaitRealProcess(t, newRealRoute(baseURL), exited)
	return baseURL
}

// awaitRealProcess polls the model list for at most a minute.
func awaitRealProcess(t *testing.T, route realRoute, exited <-chan struct{}) {
	t.Helper()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for range 1200 {
		select {
		case <-exited:
			t.Fatal("the server ended before it was ready")
		case <-poll.C:
		}
		if _, err := route.client.ListModels(t.Context()); err == nil {
			return
		}
	}
	t.Fatal("the server is not ready after a minute")
}

// stopRealProcess asks a server to end and kills it when it has not in 5 s.
func stopRealProcess(command *exec.Cmd, exited <-chan struct{}) {
	_ = command.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-exited:
	case <-time.After(5 * time.Second):
		_ = command.Process.Kill()
		<-exited
	}
}

// freeRealPort returns a loopback port that was free a moment ago.
func freeRealPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

// realTail is the end of a long text, for messages.
func realTail(text string) string { return text[max(0, len(text)-400):] }
