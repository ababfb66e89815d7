//go:build prove

package main_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestRealLlamaNative shows that what llama.cpp's server has beyond OpenAI's API reaches
// its OpenAI-compatible routes through the gateway, and comes back: grammars, slots,
// its samplers, prompts of token ids, timings. So it needs no adapter of its own. In a
// stream the server puts timings beside the usage, so they come to callers who ask for it.
func TestRealLlamaNative(t *testing.T) {
	setUpRealModel(t)
	direct := newRealRoute(startRealServer(t, "llama-server", "--parallel", "2"))
	gateway := newRealRoute(startRealGateway(t, direct.baseURL))
	for _, stream := range []bool{false, true} {
		body := realBody(8, stream)
		if stream {
			body["stream_options"] = map[string]bool{"include_usage": true}
		}
		body["grammar"], body["id_slot"], body["cache_prompt"] = `root ::= "yes" | "no"`, 1, true
		text, timings := realTimings(t, gateway, "/chat/completions", body)
		if text != "yes" && text != "no" || timings.Predicted == 0 || timings.Prompt+timings.Cached == 0 {
			t.Errorf("stream %t: text %q, timings %+v", stream, text, timings)
		}
	}
	// The second call of a prompt finds it in the slot's cache.
	body := realBody(2, true)
	body["stream_options"] = map[string]bool{"include_usage": true}
	body["id_slot"], body["cache_prompt"] = 0, true
	realTimings(t, gateway, "/chat/completions", body)
	if _, timings := realTimings(t, gateway, "/chat/completions", body); timings.Cached == 0 {
		t.Errorf("nothing of the prompt was cached: %+v", timings)
	}
	tokens := map[string]any{"model": realModel, "prompt": []int{1, 300, 301}, "max_tokens": 4, "top_k": 1}
	want, _ := realTimings(t, direct, "/completions", tokens)
	if got, _ := realTimings(t, gateway, "/completions", tokens); got != want || want == "" {
		t.Errorf("a prompt of token ids: %q, directly %q", got, want)
	}
	body["grammar"] = "root :: broken"
	if status, got := realPostForError(t, gateway, body); status != http.StatusBadRequest || !strings.Contains(got.Message, "grammar") {
		t.Errorf("a broken grammar: %d %+v", status, got)
	}
}

// realCounts is the part of llama.cpp's timings that counts tokens.
type realCounts struct {
	Cached    int `json:"cache_n"`
	Prompt    int `json:"prompt_n"`
	Predicted int `json:"predicted_n"`
}

// realTimings returns the text of an answer, streamed or not, and the timings in it.
func realTimings(t *testing.T, route realRoute, path string, request map[string]any) (text string, timings realCounts) {
	t.Helper()
	response := route.post(t.Context(), t, path, request)
	all, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v: %s", response.StatusCode, err, all)
	}
	for line := range bytes.SplitSeq(all, []byte("\n")) {
		line = bytes.TrimPrefix(line, []byte("data: "))
		var part struct {
			Timings *realCounts
			Choices []struct {
				Text           string
				Message, Delta struct{ Content string }
			}
		}
		if json.Unmarshal(line, &part) != nil {
			continue // a blank line, or [DONE]
		}
		if part.Timings != nil {
			timings = *part.Timings
		}
		for _, c := range part.Choices {
			text += c.Text + c.Message.Content + c.Delta.Content
		}
	}
	return text, timings
}
