//go:build prove

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	openai "github.com/sashabaranov/go-openai"
)

// The real servers under test, as testdata/realmodel/start.sh names them. Both
// run llama.cpp on a tiny random-weights model; what they send is their own.
var realServers = []struct {
	name        string
	args        []string
	streamUsage bool // the server reports usage in streams when asked
}{
	// Without this switch a new request ends the running stream (see
	// TestRealModelInterruptedStream), and a server that was never freed would
	// still answer at once.
	{"llama-cpp-python", []string{"--interrupt_requests", "false"}, false},
	{"llama-server", nil, true},
}

// TestRealModel asks real servers directly and through the gateway, and wants
// the same answers. The direct answer is the oracle: greedy decoding of fixed
// weights is deterministic.
func TestRealModel(t *testing.T) {
	setUpRealModel(t)
	for _, server := range realServers {
		t.Run(server.name, func(t *testing.T) {
			direct := newRealRoute(startRealServer(t, server.name, server.args...))
			gateway := newRealRoute(startRealGateway(t, direct.baseURL))
			t.Run("models", func(t *testing.T) { checkRealModels(t, gateway) })
			t.Run("chat", func(t *testing.T) { checkRealChat(t, direct, gateway, server.streamUsage) })
			t.Run("stop", func(t *testing.T) { checkRealStop(t, direct, gateway) })
			t.Run("completion", func(t *testing.T) { checkRealCompletion(t, direct, gateway) })
			t.Run("true end", func(t *testing.T) { checkRealEnd(t, gateway) })
			t.Run("reuse", func(t *testing.T) { checkRealReuse(t, gateway) })
			t.Run("abort", func(t *testing.T) { checkRealAbort(t, gateway) })
			t.Run("overflow", func(t *testing.T) { checkRealOverflow(t, direct, gateway) })
		})
	}
}

// TestRealModelInterruptedStream lets llama-cpp-python do what it does by
// default: a second request ends the running stream with [DONE] and no
// finish_reason, then cuts the connection. Through the gateway that must be an
// error event at the end of a complete body.
func TestRealModelInterruptedStream(t *testing.T) {
	setUpRealModel(t)
	direct := newRealRoute(startRealServer(t, "llama-cpp-python", "--interrupt_requests", "true"))
	gateway := newRealRoute(startRealGateway(t, direct.baseURL))

	got, _ := realInterruptedStream(t, direct)
	if !strings.HasSuffix(got, "data: [DONE]\n\n") || strings.Contains(got, `"finish_reason": "`) {
		t.Fatalf("the server did not interrupt its stream; it ends with %q", realTail(got))
	}
	got, err := realInterruptedStream(t, gateway)
	if err != nil || strings.Contains(got, "[DONE]") || !strings.Contains(realTail(got), "\n\ndata: {\"error\":{") {
		t.Errorf("the gateway ends an interrupted stream with %q (%v), want an error event and no [DONE]", realTail(got), err)
	}
}

func checkRealModels(t *testing.T, gateway realRoute) {
	list, err := gateway.client.ListModels(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, model := range list.Models {
		if model.ID == realModel {
			return
		}
	}
	t.Errorf("models are %+v, want %s among them", list.Models, realModel)
}

func checkRealChat(t *testing.T, direct, gateway realRoute, streamUsage bool) {
	request := realChat(120)
	want := direct.chat(t, request)
	if want.text == "" || want.finish != "length" || want.usage.CompletionTokens != 120 {
		t.Fatalf("the server's own answer is %+v", want)
	}
	if got := gateway.chat(t, request); !got.equals(want) {
		t.Errorf("chat through the gateway:\n got %+v\nwant %+v", got, want)
	}
	request.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	if !streamUsage {
		want.usage = openai.Usage{}
	}
	if got := direct.streamChat(t, request); !got.equals(want) {
		t.Fatalf("the server streams another answer:\n got %+v\nwant %+v", got, want)
	}
	got := gateway.streamChat(t, request)
	if !streamUsage {
		checkRealEstimate(t, got.usage, 120)
		want.usage = got.usage
	}
	if !got.equals(want) {
		t.Errorf("stream through the gateway:\n got %+v\nwant %+v", got, want)
	}
	request.StreamOptions = nil
	if got := gateway.streamChat(t, request); got.usage.TotalTokens != 0 {
		t.Errorf("a stream that did not ask for usage has %+v", got.usage)
	}
}

// checkRealEstimate accepts what can be known without the server's own count.
func checkRealEstimate(t *testing.T, usage openai.Usage, tokens int) {
	t.Helper()
	if usage.CompletionTokens < tokens/2 || usage.CompletionTokens > tokens*2 || usage.PromptTokens < 1 ||
		usage.TotalTokens != usage.PromptTokens+usage.CompletionTokens {
		t.Errorf("estimated usage is %+v for %d streamed tokens", usage, tokens)
	}
}

// checkRealStop uses a word that the greedy answer is known to contain.
func checkRealStop(t *testing.T, direct, gateway realRoute) {
	words := strings.Fields(direct.chat(t, realChat(60)).text)
	request := realChat(60)
	request.Stop = []string{words[len(words)/2]}
	want := direct.chat(t, request)
	if want.finish != "stop" {
		t.Fatalf("the server's own answer with stop %q is %+v", request.Stop, want)
	}
	got := gateway.streamChat(t, request)
	want.usage = got.usage
	if !got.equals(want) {
		t.Errorf("stream with stop %q:\n got %+v\nwant %+v", request.Stop, got, want)
	}
}

func checkRealCompletion(t *testing.T, direct, gateway realRoute) {
	want := direct.complete(t)
	if want.text == "" || want.finish != "length" || want.usage.CompletionTokens != realCompletionTokens {
		t.Fatalf("the server's own completion is %+v", want)
	}
	if got := gateway.complete(t); !got.equals(want) {
		t.Errorf("completion through the gateway:\n got %+v\nwant %+v", got, want)
	}
	got := gateway.streamCompletion(t)
	want.usage = got.usage
	if !got.equals(want) {
		t.Errorf("completion stream through the gateway:\n got %+v\nwant %+v", got, want)
	}
}

func checkRealEnd(t *testing.T, gateway realRoute) {
	response := gateway.post(t.Context(), t, "/chat/completions", realBody(5, true))
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !bytes.HasSuffix(body, []byte("\n\ndata: [DONE]\n\n")) {
		t.Errorf("status %d, error %v, end %q", response.StatusCode, err, realTail(string(body)))
	}
}

// checkRealReuse lets streams follow each other closely, so that the gateway
// meets upstream connections that are closed as it takes them from its pool: a
// plain reverse proxy before llama-server loses some of these requests.
func checkRealReuse(t *testing.T, gateway realRoute) {
	for i := range 150 {
		if got := gateway.streamChat(t, realChat(2)); got.text == "" || got.finish != "length" {
			t.Fatalf("stream %d is %+v", i, got)
		}
	}
}

// checkRealAbort shows first that the server, which runs one answer at a time,
// is busy while a long stream runs, then that an aborted stream frees it.
func checkRealAbort(t *testing.T, route realRoute) {
	streaming, abort := context.WithCancel(t.Context())
	defer abort()
	response := route.post(streaming, t, "/chat/completions", realBody(15000, true))
	lines := bufio.NewScanner(response.Body)
	for range 10 {
		if !lines.Scan() {
			t.Fatalf("the stream ended early: %v", lines.Err())
		}
	}
	busy, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := route.client.CreateChatCompletion(busy, realChat(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a request beside a running stream got %v, want it to wait", err)
	}
	abort()
	// The abandoned answer would take many times as long.
	free, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := route.client.CreateChatCompletion(free, realChat(1)); err != nil {
		t.Errorf("the server is still busy after the abort: %v", err)
	}
}

// checkRealOverflow sends a prompt beyond the context. llama-cpp-python answers
// a streamed one with 200 and an empty body: a client must see a failure.
func checkRealOverflow(t *testing.T, direct, gateway realRoute) {
	request := realBody(5, false)
	request["messages"] = []openai.ChatCompletionMessage{{Role: "user", Content: strings.Repeat("a", 17000)}}
	wantStatus, want := realPostForError(t, direct, request)
	if wantStatus != http.StatusBadRequest || want.Message == "" {
		t.Fatalf("the server itself answers %d %+v", wantStatus, want)
	}
	if status, got := realPostForError(t, gateway, request); status != wantStatus || got != want {
		t.Errorf("too long a prompt: %d %+v, want %d %+v", status, got, wantStatus, want)
	}
	request["stream"] = true
	status, got := realPostForError(t, gateway, request)
	if status < 400 || got.Message == "" {
		t.Errorf("too long a prompt, streamed: %d %+v, want an error", status, got)
	}
}

type realError struct {
	Message, Type string
}

func realPostForError(t *testing.T, route realRoute, request map[string]any) (int, realError) {
	t.Helper()
	response := route.post(t.Context(), t, "/chat/completions", request)
	var body struct{ Error realError }
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		t.Logf("%d with a body that is not JSON: %v", response.StatusCode, err)
	}
	return response.StatusCode, body.Error
}

// realInterruptedStream returns the whole body of a long stream, and how reading it
// ended. After its first line a second request is sent to the same server.
func realInterruptedStream(t *testing.T, route realRoute) (string, error) {
	t.Helper()
	response := route.post(t.Context(), t, "/chat/completions", realBody(15000, true))
	reader := bufio.NewReader(response.Body)
	first, err := reader.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	route.chat(t, realChat(1))
	rest, err := io.ReadAll(reader)
	return first + string(rest), err
}
