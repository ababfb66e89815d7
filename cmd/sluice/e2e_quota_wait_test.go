package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// oneAtATime is a model with one place at the wall.
func oneAtATime(base, wait, more string) string {
	return overWall(base, more+fmt.Sprintf("\n[[models]]\nname = \"one\"\nmax_concurrent = 1\nqueue = 4\nqueue_wait = %q\ntargets = [{ upstream = \"wall\", model = %q }]\n",
		wait, wallModel("line", "tokens=4")))
}

// TestLineBeats: who waits in the line of a model has the status, its place and heartbeats before
// its turn comes.
func TestLineBeats(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, oneAtATime(base, "10m", beatTimes))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	g.openStream(ctx, t, prompted("one", "tokens=4 stall=1", "first"))
	res := g.openStream(t.Context(), t, prompted("one", "tokens=4", "second")) // has its status, and waits
	if res.Header.Get("X-Sluice-Queue-Position") != "1" {
		t.Errorf("headers %v", res.Header)
	}
	beats := readUntil(t, res.Body, time.Now(), func(s string) bool { return strings.Count(s, ": keep-alive\n") >= 3 })
	if n := calls(w, "second"); n != 0 {
		t.Errorf("the upstream was asked %d times for an answer that waits", n)
	}
	leave()
	a := answer{status: res.StatusCode, sse: readSSE(t, joined(beats)+joined(readUntil(t, res.Body, time.Now(), nil)))}
	a.complete(t, 4)
}

// TestLineIsBounded: who waits for longer than the line's time is told to come back, before a status is told.
func TestLineIsBounded(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, oneAtATime(base, "300ms", ""))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	g.openStream(ctx, t, prompted("one", "tokens=4 stall=1", "first"))
	asked := time.Now()
	a := g.do(t, http.MethodPost, chatPath, prompted("one", "tokens=4", "second"))
	if e := a.refused(t, http.StatusTooManyRequests); e.Code != "queue_timeout" || a.header.Get("Retry-After") == "" || time.Since(asked) < 300*time.Millisecond {
		t.Errorf("%+v, %v after %v", e, a.header, time.Since(asked))
	}
}

// TestLineWebSocket: lanes are told their place, again when it moves, and that their turn has come.
func TestLineWebSocket(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, oneAtATime(base, "10m", ""))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	first := g.openStream(ctx, t, prompted("one", "tokens=4 stall=1", "first"))
	defer first.Body.Close()
	c := g.dial(t)
	ask := func(stream, script string) {
		var body map[string]json.RawMessage
		if err := json.Unmarshal([]byte(prompted("one", script, stream)), &body); err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(body)
		c.send(t, `{"type":"create","stream_id":%q,"request":%s}`, stream, text)
	}
	place := func(stream string, want int) {
		t.Helper()
		for {
			m := c.next(t)
			if m.Stream == stream && m.Type == "accepted" && m.Position == want {
				return
			}
			if m.Type == "error" || m.close != 0 {
				t.Fatalf("%s, want place %d of %s", m.text, want, stream)
			}
		}
	}
	ask("second", "tokens=4 stall=2")
	place("second", 1)
	ask("third", "tokens=4")
	place("third", 2)
	leave()
	place("second", 0)
	place("third", 1)
	c.cancel(t, "second")
	place("third", 0)
	for {
		if m := c.next(t); m.Type == "done" && m.Stream == "third" {
			return
		} else if m.Type == "error" || m.close != 0 {
			t.Fatal(m.text)
		}
	}
}

// TestQuotaWebSocketBudget: a hard budget ends a lane as it ends a stream, and a rate never does.
func TestQuotaWebSocketBudget(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	const prices = "[[prices]]\nmodels = [\"*\"]\ninput = 0\noutput = 1_000\n"
	g := boot(t, limited(base, prices+"[[limits]]\nid = \"hard\"\nscope = \"key\"\nusd_per_day = 1.5\nhard = true\n"))
	c := g.dial(t)
	c.create(t, "a", wallModel("long", "tokens=100000,delay=10us"), "")
	if a := c.read(t, "a"); a.end.Type != "error" || a.end.fault.Code != "budget_exhausted" || a.end.fault.Type != "insufficient_quota" || a.text[0] == "" {
		t.Errorf("%s after %d bytes", a.end.text, len(a.text[0]))
	}
	awaitCall(t, w, "long", func(q wall.Request) bool { return q.End == wall.ClientGone })
	soft := boot(t, limited(base, "[[limits]]\nid = \"rate\"\nscope = \"key\"\noutput_tokens_per_day = 50\n"))
	c = soft.dial(t)
	c.create(t, "a", wallModel("soft", "tokens=3000"), "")
	if a := c.read(t, "a"); a.end.Type != "done" {
		t.Errorf("%s", a.end.text)
	}
	if left := soft.left(t, "rate"); left != "-2950" {
		t.Errorf("%s is left", left)
	}
}
