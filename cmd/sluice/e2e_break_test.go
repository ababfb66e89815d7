package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// breakStride is how far the offsets lie apart at which TestBreakEverywhere breaks.
var breakStride = 499

// brokenEvents is how many deltas the answer has.
const brokenEvents = 200

// brokenWord is a delta of it. They differ, and some need escapes in JSON.
func brokenWord(i int) string { return fmt.Sprintf("%03d\"é ", i) }

func brokenText(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(brokenWord(i))
	}
	return b.String()
}

// brokenBody is the stream from a delta on.
func brokenBody(from int) string {
	var b strings.Builder
	chunk := func(delta, finish string) {
		fmt.Fprintf(&b, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":%s,"finish_reason":%s}]}`+"\n\n", delta, finish)
	}
	chunk(`{"role":"assistant"}`, "null")
	for i := from; i < brokenEvents; i++ {
		word, _ := json.Marshal(brokenWord(i))
		chunk(`{"content":`+string(word)+`}`, "null")
	}
	chunk("{}", `"stop"`)
	fmt.Fprintf(&b, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":%d}}`+"\n\n", brokenEvents-from, brokenEvents-from+7)
	b.WriteString("data: [DONE]\n\n")
	return b.String()
}

// breakingServer is a server that breaks after the bytes that the first message names, when whole is
// false; else it goes on behind a last message of the assistant's.
func breakingServer(t *testing.T, whole bool) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Messages []struct{ Role, Content string }
		}
		text, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(text, &q) != nil || len(q.Messages) == 0 {
			http.Error(w, "what?", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		if whole {
			from := 0
			if last := q.Messages[len(q.Messages)-1]; last.Role == "assistant" {
				for from < brokenEvents && brokenText(0, from) != last.Content {
					from++
				}
			}
			_, _ = io.WriteString(w, brokenBody(from))
			return
		}
		var at int
		_, _ = fmt.Sscanf(q.Messages[0].Content, "break at %d", &at)
		_, _ = io.WriteString(w, brokenBody(0)[:at])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/v1"
}

// TestBreakEverywhere breaks a stream of two hundred events at every byte (make prove; make test
// takes some): no text comes twice, [DONE] stands only behind all of it, and there is one end.
func TestBreakEverywhere(t *testing.T) {
	t.Parallel()
	first, second := breakingServer(t, false), breakingServer(t, true)
	text := "[breaker]\nconsecutive = 0\n[retry]\nbackoff_min = \"1ms\"\nbackoff_max = \"1ms\"\n"
	for name, base := range map[string]string{"first": first, "second": second} {
		text += fmt.Sprintf("\n[[upstreams]]\nname = %q\nbase_url = %q\nmodels = [\"unused\"]\nlist_models = false\ncapabilities = { prefill = true }\n", name, base)
	}
	for name, on := range map[string]bool{"continued": true, "told": false} {
		text += fmt.Sprintf("\n[[models]]\nname = %q\ncontinuation = %t\ntargets = [{ upstream = \"first\", model = \"m\" }, { upstream = \"second\", model = \"m\", priority = 1 }]\n", name, on)
	}
	g := boot(t, text)
	whole, size := brokenText(0, brokenEvents), len(brokenBody(0))
	var next, continued, told atomic.Int64
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for !t.Failed() {
				at := int(next.Add(1)-1) * breakStride
				if at >= size {
					return
				}
				ask := func(model string) answer {
					return g.do(t, http.MethodPost, "/chat/completions", fmt.Sprintf(`{"model":%q,"stream":true%s,"messages":[{"role":"user","content":"break at %d"}]}`, model, askUsage, at))
				}
				a := ask("continued")
				if a.text[0] != whole || !a.done || strings.Count(a.body, "[DONE]") != 1 || len(a.errors) != 0 || a.finish[0] != "stop" || a.roles[0] != 1 || strings.Count(a.body, `"finish_reason":"stop"`) != 1 {
					t.Errorf("broken at %d and continued: %d bytes of %d, done %t, %+v\n%s", at, len(a.text[0]), len(whole), a.done, a.errors, a.body)
				}
				if strings.Contains(a.body, `"continued":true`) {
					continued.Add(1)
				}
				b := ask("told")
				complete := b.done && b.text[0] == whole && b.finish[0] == "stop" && len(b.errors) == 0
				broken := !b.done && strings.HasPrefix(whole, b.text[0]) && b.finish[0] == "" && len(b.errors) == 1
				if complete == broken {
					t.Errorf("broken at %d and told: %d bytes of %d, done %t, %+v\n%s", at, len(b.text[0]), len(whole), b.done, b.errors, b.body)
				}
				if broken {
					told.Add(1)
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d bytes, broken at every %d: %d answers continued, %d ended with an error", size, breakStride, continued.Load(), told.Load())
	if continued.Load() == 0 || continued.Load() != told.Load() {
		t.Errorf("%d answers continued, %d ended with an error: the same breaks, want the same number", continued.Load(), told.Load())
	}
}
