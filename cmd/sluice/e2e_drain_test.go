package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// gated is an upstream whose answers stop after their first token until the gate is
// opened; then they end well. Its address is for base_url.
func gated(t testing.TB) (baseURL string, open func()) {
	gate, ctx := context.WithCancel(context.Background())
	chunk := func(delta, finish string) string {
		return fmt.Sprintf("data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gated\",\"choices\":[{\"index\":0,\"delta\":{%s},\"finish_reason\":%s}]}\n\n", delta, finish)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		stream := strings.Contains(string(body), `"stream":true`)
		if stream {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, chunk(`"role":"assistant","content":"held "`, "null"))
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-gate.Done():
		case <-r.Context().Done():
			return
		}
		if !stream {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gated","choices":[]}`)
			return
		}
		_, _ = io.WriteString(w, chunk(`"content":"back"`, `"stop"`)+"data: [DONE]\n\n")
	}))
	t.Cleanup(s.Close)
	t.Cleanup(ctx)
	return s.URL + "/v1", ctx
}

// held is a running stream of a gated upstream that has brought its first token.
type held struct {
	g    *gatewayUnderTest
	body io.Reader
	got  string
}

func hold(t testing.TB, g *gatewayUnderTest, model string) *held {
	t.Helper()
	res := g.openStream(t.Context(), t, chatBody(model, true, ""))
	got := readUntil(t, res.Body, time.Now(), func(s string) bool { return strings.Contains(s, "held ") })
	return &held{g, res.Body, joined(got)}
}

// rest reads the stream to its clean end.
func (h *held) rest(t testing.TB) sse {
	t.Helper()
	return readSSE(t, h.got+joined(readUntil(t, h.body, time.Now(), nil)))
}

// draining sends SIGTERM and waits until the gateway has begun to drain.
func draining(t *testing.T, g *gatewayUnderTest) {
	t.Helper()
	g.Signal(t, syscall.SIGTERM)
	g.awaitLine(t, "the drain", func(l map[string]string) bool { return l["msg"] == "draining" })
}

// TestDrainDelay serves on while the balancer has not looked yet.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	g := bootProcess(t, overWall(base, "[drain]\ndelay = \"10m\"\ntimeout = \"10m\"\n"))
	early := hold(t, g, "early")
	health := func(status int) {
		t.Helper()
		for _, at := range []string{g.AdminURL, strings.TrimSuffix(g.URL, "/v1")} {
			if a := g.do(t, http.MethodGet, at+"/readyz", ""); a.status != status {
				t.Errorf("%s/readyz: %d, want %d", at, a.status, status)
			}
			if a := g.do(t, http.MethodGet, at+"/livez", ""); a.status != 200 {
				t.Errorf("%s/livez: %d", at, a.status)
			}
		}
	}
	health(200)
	draining(t, g)
	health(503)
	late := hold(t, g, "late")
	open()
	for _, s := range []*held{early, late} {
		if got := s.rest(t); got.text[0] != "held back" || !got.done {
			t.Errorf("an answer was not finished: %+v", got)
		}
	}
	for _, model := range []string{"early", "late"} {
		g.accessLine(t, model)
	}
	g.idle(t)
	g.Signal(t, syscall.SIGTERM)
	if code := g.Wait(); code != exitOK {
		t.Errorf("exit code %d with nothing left to cut\n%s", code, g.Logs())
	}
}

// TestDrain refuses whoever comes after the delay, and finishes what runs.
func TestDrain(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	g := bootProcess(t, overWall(base, "[drain]\ndelay = \"200ms\"\ntimeout = \"10m\"\n"))
	streams := []*held{hold(t, g, "one"), hold(t, g, "two"), hold(t, g, "three")}
	draining(t, g)
	var refused answer
	g.eventually(t, "new answers are never refused", func() bool {
		refused = g.do(t, http.MethodPost, chatPath, "")
		return refused.status != 400
	})
	if e := refused.refused(t, 503); e.Code != "server_draining" || refused.header.Get("Retry-After") == "" {
		t.Errorf("%+v, Retry-After %q", e, refused.header.Get("Retry-After"))
	}
	open()
	for _, s := range streams {
		if got := s.rest(t); got.text[0] != "held back" || !got.done || len(got.errors) != 0 {
			t.Errorf("a running answer was not finished: %+v", got)
		}
	}
	if code := g.Wait(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, g.Logs())
	}
}

// TestDrainTimeout cuts what still runs at the limit, and says so.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	base, _ := gated(t)
	g := bootProcess(t, overWall(base, "[drain]\ndelay = \"0s\"\ntimeout = \"300ms\"\n"))
	checkCut(t, g, func() { g.Signal(t, syscall.SIGTERM) })
}

// TestDrainSecondSignal cuts at once.
func TestDrainSecondSignal(t *testing.T) {
	t.Parallel()
	for _, delay := range []string{"10m", "0s"} {
		t.Run("delay "+delay, func(t *testing.T) {
			t.Parallel()
			base, _ := gated(t)
			g := bootProcess(t, overWall(base, "[drain]\ndelay = \""+delay+"\"\ntimeout = \"10m\"\n"))
			checkCut(t, g, func() {
				draining(t, g)
				g.Signal(t, syscall.SIGTERM)
			})
		})
	}
}

// checkCut starts answers, ends the gateway and wants each answer to tell why it ended.
func checkCut(t *testing.T, g *gatewayUnderTest, end func()) {
	t.Helper()
	stream := hold(t, g, "one")
	whole := make(chan answer, 1)
	go func() { whole <- g.do(t, http.MethodPost, "/chat/completions", chatBody("two", false, "")) }()
	g.eventually(t, "the second answer does not start", func() bool {
		return g.metric(t, `gateway_active_streams{transport="http"}`) == 1
	})
	end()
	got := stream.rest(t)
	if got.text[0] != "held " || got.done || len(got.errors) != 1 || got.errors[0].Code != "server_draining" {
		t.Errorf("the cut stream is %+v", got)
	}
	a := <-whole
	if e := a.refused(t, 503); e.Code != "server_draining" || a.header.Get("Retry-After") == "" {
		t.Errorf("the cut body is %+v", e)
	}
	if code := g.Wait(); code != exitDrained {
		t.Errorf("exit code %d, want %d", code, exitDrained)
	}
	for _, model := range []string{"one", "two"} {
		if line := g.accessLine(t, model); line["end"] != "draining" {
			t.Errorf("access line: %v", line)
		}
	}
}
