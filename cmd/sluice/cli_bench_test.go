package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const benchUsage = "data: {\"choices\":[],\"usage\":{\"completion_tokens\":7}}\n\n"

func TestCLIBench(t *testing.T) {
	t.Chdir(t.TempDir())
	var n atomic.Int64
	srv := oneAnswer(t, func(w http.ResponseWriter, r *http.Request) {
		var sent struct {
			Model     string `json:"model"`
			MaxTokens int    `json:"max_tokens"`
		}
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil || sent.Model != "first" || sent.MaxTokens != 9 ||
			r.Header.Get("Authorization") != "Bearer k" {
			t.Errorf("sent %+v, %v", sent, err)
		}
		n.Add(1)
		events(w, delta("a"), ": keep-alive\n", delta("b"), finishStop, benchUsage, done)
	})
	code, stdout, stderr := cli{}.run(t, "bench", "--url", srv.URL, "--key", "k", "--streams", "3",
		"--duration", "400ms", "--stream-tokens", "9", "--json")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var r benchReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatal(err)
	}
	if r.Complete+r.Unfinished != n.Load() || r.Complete < 3 || r.Truncated != 0 || r.ErrorCount != 0 {
		t.Errorf("%d served: %+v", n.Load(), r)
	}
	if r.Tokens < 7*r.Complete || r.Events < 2*r.Complete || r.TTFT50 <= 0 || r.TTFT99 < r.TTFT50 || r.TokensPerSecond <= 0 {
		t.Errorf("figures: %+v", r)
	}
}

// TestBenchEnds judges every kind of end.
func TestBenchEnds(t *testing.T) {
	for want, scripts := range map[string][]func(w http.ResponseWriter){
		endComplete: {
			func(w http.ResponseWriter) { events(w, delta("a"), finishStop, done) },
			func(w http.ResponseWriter) { events(w, delta("a"), finishStop) },
		},
		endTruncated: {
			func(w http.ResponseWriter) { events(w, delta("a"), done) },
			func(w http.ResponseWriter) { events(w, delta("a")) },
			func(w http.ResponseWriter) { events(w, delta("a"), finishStop); panic(http.ErrAbortHandler) },
		},
		"error event: upstream_lost": {func(w http.ResponseWriter) { events(w, delta("a"), errorEvent) }},
		"error event: server_error": {func(w http.ResponseWriter) {
			events(w, strings.Replace(errorEvent, `"upstream_lost"`, "null", 1))
		}},
		"malformed chunk":                   {func(w http.ResponseWriter) { events(w, "data: {\"choices\n\n") }},
		"http 429":                          {func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) }},
		"connection broke before an answer": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }},
	} {
		for i, script := range scripts {
			srv := oneAnswer(t, func(w http.ResponseWriter, _ *http.Request) { script(w) })
			b, err := newBencher(target{base: srv.URL + "/v1"}, benchOptions{model: "m", streams: 1, tokens: 1})
			if err != nil {
				t.Fatal(err)
			}
			if end := b.stream(t.Context(), newBenchStats()); end != want {
				t.Errorf("%s, %d: got %q", want, i, end)
			}
			b.client.CloseIdleConnections()
			srv.Close()
			if end := b.stream(t.Context(), newBenchStats()); end != "cannot connect" {
				t.Errorf("closed server: got %q", end)
			}
		}
	}
}

func TestCLIBenchFailures(t *testing.T) {
	t.Chdir(t.TempDir())
	var n atomic.Int64
	srv := oneAnswer(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) > 1 {
			events(w, delta("a"), finishStop, done)
			return
		}
		w.WriteHeader(http.StatusTooManyRequests)
	})
	args := []string{"bench", "--url", srv.URL, "--model", "m", "--streams", "2", "--duration", "1ms"}
	code, stdout, stderr := cli{}.run(t, args...)
	if code != 1 || !strings.Contains(stderr, "0 answers were cut and 1 failed") || !strings.Contains(stdout, "1 × http 429") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	n.Store(-1 << 40)
	if code, _, stderr := (cli{}).run(t, args...); code != 1 || !strings.Contains(stderr, "not one answer was whole") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// TestBenchIsBounded shows that a server that never ends an answer does not
// hold the benchmark.
func TestBenchIsBounded(t *testing.T) {
	srv := oneAnswer(t, func(w http.ResponseWriter, r *http.Request) {
		events(w, delta("a"))
		<-r.Context().Done()
	})
	b, err := newBencher(target{base: srv.URL + "/v1"}, benchOptions{model: "m", streams: 2, tokens: 1, duration: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b.grace = 100 * time.Millisecond
	stats := b.run(t.Context())
	if stats.ends[endUnfinished] != 2 || len(stats.ends) != 1 {
		t.Errorf("got %v", stats.ends)
	}
}

func TestHistogram(t *testing.T) {
	h := histogram{buckets: map[int]int64{}}
	if h.quantile(0.5) != 0 {
		t.Error("nothing counted, something told")
	}
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.95: 950 * time.Millisecond, 0.99: 990 * time.Millisecond} {
		if got := h.quantile(q); got < want*98/100 || got > want*102/100 {
			t.Errorf("p%v: %v, want %v", q*100, got, want)
		}
	}
	other := histogram{buckets: map[int]int64{}}
	other.add(0)
	h.merge(&other)
	if h.count != 1001 || h.quantile(0) > 2*time.Microsecond {
		t.Errorf("merged: %d, %v", h.count, h.quantile(0))
	}
}

func TestReadAnswerLongLine(t *testing.T) {
	endless := io.MultiReader(strings.NewReader("data: "), io.LimitReader(zeros{}, 2*maxBenchLine))
	if end := readAnswer(endless, time.Now(), newBenchStats()); end != "event too large" {
		t.Errorf("got %q", end)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}
