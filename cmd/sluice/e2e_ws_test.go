package main

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"sluice/providers/providertest/wall"
)

// TestWebSocketAnswer reads every message of a whole answer.
func TestWebSocketAnswer(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	c := g.dial(t)
	if c.Subprotocol() != "" || !strings.HasPrefix(c.header.Get("X-Request-Id"), "req_") {
		t.Errorf("the handshake was answered with %v", c.header)
	}
	model := wallModel("answer", "tokens=20,seed=wall")
	c.create(t, "a-1_b.C", model, "")
	a := c.read(t, "a-1_b.C")
	a.complete(t, 20)
	for kind, form := range map[string]string{
		"accepted": `^\{"type":"accepted","stream_id":"a-1_b\.C","request_id":"req_[0-9a-f]{24}","position":0\}$`,
		"chunk":    `^\{"type":"chunk","stream_id":"a-1_b\.C","data":\{.*"choices":\[.*\}\}$`,
		"done":     `^\{"type":"done","stream_id":"a-1_b\.C","finish_reason":"stop","usage":\{"prompt_tokens":3,"completion_tokens":20,"total_tokens":23\},"ttft_ms":\d+,"total_ms":\d+\}$`,
	} {
		for _, m := range c.seen {
			if strings.HasPrefix(m, `{"type":"`+kind) && !regexp.MustCompile(form).MatchString(m) {
				t.Errorf("%s is %s", kind, m)
			}
		}
	}
	if len(a.accepted) != 1 || len(a.usage) != 0 || *a.end.TTFT > *a.end.Total {
		t.Errorf("%d times accepted, %d usage chunks, %+v", len(a.accepted), len(a.usage), a.end)
	}
	// The request reached the upstream as a POST would have made it, and a stream.
	q := awaitCall(t, w, "answer", func(q wall.Request) bool { return q.End == wall.Complete })
	if !q.Stream || q.Header.Get("Authorization") == "Bearer "+g.Key {
		t.Errorf("the upstream got %+v", q)
	}
	line := g.accessLine(t, model)
	if line["transport"] != "ws" || line["request_id"] != a.accepted[0].Request || line["end"] != "ok" || line["key"] != "test" || line["out"] != "20" || line["op"] != "chat" {
		t.Errorf("access line: %v", line)
	}
	if n := g.metric(t, "gateway_websocket_connections"); n != 1 {
		t.Errorf("%v connections are counted", n)
	}
}

// TestWebSocketChunksAreThoseOfSSE compares an answer with the same one as a stream
// of events.
func TestWebSocketChunksAreThoseOfSSE(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, ""))
	volatile := regexp.MustCompile(`"(id|created|system_fingerprint)":("[^"]*"|\d+)`)
	same := func(payloads []string) []string {
		payloads = slices.Clone(payloads)
		for i := range payloads {
			payloads[i] = volatile.ReplaceAllString(payloads[i], "")
		}
		return payloads
	}
	c := g.dial(t)
	for i, script := range []string{
		"", "tokens=3,burst=3", "n=2", "tools=2", "reasoning=3", "usage=every", "alphabet=escape,split=every", "noid,noindex,crlf", "finish=length", "multi_choice", "giant=2:300KiB", "role=each",
	} {
		t.Run(script, func(t *testing.T) {
			more, usages := askUsage, 1
			if i%2 == 0 {
				more, usages = "", 0
			}
			if strings.Contains(script, "n=2") || script == "multi_choice" {
				more += `,"n":2`
			}
			script = strings.TrimPrefix(strings.Replace(script, "n=2", "", 1)+",seed=wall", ",")
			want := g.chat(t, "wall:"+script, more)
			stream := fmt.Sprint("s", i)
			c.create(t, stream, "wall:"+script, more)
			got := c.read(t, stream)
			if len(want.payloads) == 0 || !slices.Equal(same(got.payloads), same(want.payloads)) {
				t.Errorf("over WebSocket: %q\nas events: %q", same(got.payloads), same(want.payloads))
			}
			if got.end.Type != "done" || got.end.Finish != want.finish[0] || len(got.usage) != usages {
				t.Errorf("%+v, %d usage chunks", got.end, len(got.usage))
			}
		})
	}
}

// TestWebSocketCompletions speaks the legacy dialect on its own path, and under the
// root as well.
func TestWebSocketCompletions(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, ""))
	for _, path := range []string{"/completions", strings.TrimSuffix(g.wsURL(""), "/v1") + "/completions"} {
		c, res := g.handshake(t, path)
		if c == nil {
			t.Fatal(res.Status)
		}
		c.send(t, `{"type":"create","request":{"model":"wall:tokens=5,seed=wall","prompt":"hi"}}`)
		a := c.read(t, "0") // the stream of those who name none
		if n, err := wall.Verify("wall", a.text[0]); n != 5 || err != nil || a.end.Type != "done" {
			t.Errorf("%d tokens, %v, %+v", n, err, a.end)
		}
	}
}

// TestWebSocketEnds wants each end of a stream told as truthfully as over SSE.
func TestWebSocketEnds(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	e := bootEnds(t, base)
	for _, tc := range append(slices.Clone(broken), endCase{script: "status=503,retry_after=1", status: 503, end: "upstream_overloaded"}, endCase{script: "status=429,retry_after_ms=1500", status: 429, end: "rate_limited"}, endCase{script: "context", status: 400, end: "upstream_refused"}) {
		t.Run(tc.script, func(t *testing.T) {
			t.Parallel()
			g := e.of(tc.script)
			model := wallModel("ws-"+strings.NewReplacer(",", "-", ":", "-").Replace(tc.script), tc.script)
			c := g.dial(t)
			c.create(t, "x", model, "")
			a := c.read(t, "x")
			n, err := wall.Verify("wall", a.text[0])
			if n != tc.tokens || err != nil {
				t.Errorf("got %d of %d tokens: %v", n, tc.tokens, err)
			}
			f := a.end.fault
			if a.end.Type != "error" || a.end.Request != a.accepted[0].Request || tc.code != "" && f.Code != tc.code || !strings.Contains(f.Message, tc.words) || tc.status != 0 && a.end.Status != tc.status || a.end.Status < 400 {
				t.Errorf("ended with %+v", a.end)
			}
			if strings.Contains(tc.script, "retry_after") != (a.end.RetryAfter > 0) {
				t.Errorf("retry after %d ms", a.end.RetryAfter)
			}
			if line := g.accessLine(t, model); line["end"] != tc.end {
				t.Errorf("access line: %v", line)
			}
			c.create(t, "x", "wall:tokens=3,seed=wall", "") // the connection lives
			again := c.read(t, "x")
			again.complete(t, 3)
		})
	}
}

// TestWebSocketQueue sends several creates for one stream: they are answered in turn,
// and each learns its place.
func TestWebSocketQueue(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	g := boot(t, overWall(base, "[websocket]\nmax_lanes = 2\nmax_queued = 3\n"))
	c := g.dial(t)
	positions := map[string][]int{} // by request
	var order []string
	accepted := func(n int) {
		t.Helper()
		for n > 0 {
			m := c.next(t)
			switch m.Type {
			case "accepted":
				if positions[m.Request] == nil {
					order = append(order, m.Request)
				}
				positions[m.Request] = append(positions[m.Request], m.Position)
				n--
			case "chunk":
			default:
				t.Fatalf("got %s", m.text)
			}
		}
	}
	for range 4 {
		c.create(t, "q", "m", "")
	}
	accepted(4)
	c.create(t, "q", "m", "")
	if m := c.expect(t, "error", "q"); m.Status != 429 || m.fault.Code != "websocket_queue_limit_reached" || positions[m.Request] != nil || m.Request == "" {
		t.Errorf("one too many: %+v", m)
	}
	c.create(t, "r", "m", "")
	accepted(1)
	c.create(t, "s", "m", "")
	if m := c.expect(t, "error", "s"); m.Status != 429 || m.fault.Code != "websocket_stream_limit_reached" {
		t.Errorf("one stream too many: %+v", m)
	}
	open()
	done := map[string]int{}
	for done["q"] < 4 || done["r"] < 1 {
		switch m := c.next(t); m.Type {
		case "accepted":
			positions[m.Request] = append(positions[m.Request], m.Position)
		case "done":
			done[m.Stream]++
		case "chunk":
		default:
			t.Fatalf("got %s", m.text)
		}
	}
	for i, want := range [][]int{{0}, {1, 0}, {2, 1, 0}, {3, 2, 1, 0}, {0}} {
		if got := positions[order[i]]; !slices.Equal(got, want) {
			t.Errorf("request %d was told the positions %v, want %v", i, got, want)
		}
	}
}

// TestWebSocketQueueBytes bounds what waits in bytes as well, and forgets it when it
// is dropped or the client goes: then nothing of it is asked for.
func TestWebSocketQueueBytes(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, "[sizes]\nbody = \"64KiB\"\nbody_vision = \"64KiB\"\n"))
	c := g.dial(t)
	pad := `,"max_tokens":1000,"x":"` + strings.Repeat("x", 30<<10) + `"`
	for _, stream := range []string{"a", "b"} {
		c.create(t, stream, wallModel("runs-"+stream, "first=1m"), "")
	}
	for range 2 { // as much again fits once the first has been dropped
		c.create(t, "a", wallModel("waits", ""), pad)
		c.create(t, "b", wallModel("waits", ""), pad)
		c.create(t, "b", wallModel("waits", ""), pad)
		if m := c.expect(t, "error", "b"); m.Status != 429 || m.fault.Code != "websocket_queue_limit_reached" || !strings.Contains(m.fault.Message, "68 KiB") {
			t.Errorf("%s", m.text)
		}
		for _, stream := range []string{"a", "b"} {
			c.cancel(t, stream)
			c.expect(t, "cancelled", stream)
			c.create(t, stream, wallModel("runs-"+stream, "first=1m"), "")
		}
	}
	c.create(t, "c", wallModel("runs-c", "first=1m"), "")
	c.create(t, "c", wallModel("waits", ""), pad)
	for _, position := range []int{0, 1} {
		if m := c.expect(t, "accepted", "c"); m.Position != position {
			t.Fatalf("%s", m.text)
		}
	}
	saved := g.metric(t, "gateway_tokens_saved_by_cancel_total")
	_ = c.Close()
	g.noSockets(t)
	if n := calls(w, "waits"); n != 0 {
		t.Errorf("%d requests that waited were asked for", n)
	}
	if more := g.metric(t, "gateway_tokens_saved_by_cancel_total") - saved; more != 0 {
		t.Errorf("%v tokens are counted as saved of a request that never ran", more)
	}
}

// TestWebSocketLanes runs as many streams as there may be, of which one stalls, one is
// cancelled and one fails. None of them stops another.
func TestWebSocketLanes(t *testing.T) {
	t.Parallel()
	const lanes, tokens = 64, 60
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	c := g.dial(t)
	for i := range lanes {
		script := fmt.Sprintf("tokens=%d,delay=5ms,seed=lane%d", tokens, i)
		switch i {
		case 7:
			script = "stall=5,key=stalled"
		case 11:
			script = "tokens=100000,delay=5ms,key=cancelled"
		case 13:
			script = "tokens=60,abort=20,delay=5ms,seed=lane13"
		}
		c.create(t, fmt.Sprint("lane", i), "wall:"+script, "")
	}
	answers := map[string]*laneGot{}
	ended := 0
	for ended < lanes-1 {
		m := c.next(t)
		a := answers[m.Stream]
		if a == nil {
			a = &laneGot{}
			answers[m.Stream] = a
		}
		if a.end.Type != "" || m.close != 0 {
			t.Fatalf("after the end of %q comes %s", m.Stream, m.text)
		}
		if a.take(t, m); a.end.Type != "" {
			ended++
		}
		if m.Stream == "lane11" && len(a.payloads) == 5 && m.Type == "chunk" {
			c.cancel(t, "lane11")
		}
	}
	for i := range lanes {
		a := answers[fmt.Sprint("lane", i)]
		n, err := wall.Verify(fmt.Sprint("lane", i), a.text[0])
		switch i {
		case 7:
			if a.end.Type != "" {
				t.Errorf("the stalled lane ended with %+v", a.end)
			}
		case 11:
			if a.end.Type != "cancelled" || a.end.Usage == nil || a.end.Usage.Completion < 4 {
				t.Errorf("the cancelled lane ended with %+v", a.end)
			}
			awaitCall(t, w, "cancelled", func(q wall.Request) bool { return q.End == wall.ClientGone })
		case 13:
			if a.end.Type != "error" || a.end.fault.Code != "upstream_truncated" || n != 20 || err != nil {
				t.Errorf("the failing lane brought %d tokens (%v) and %+v", n, err, a.end)
			}
		default:
			if n != tokens || err != nil || a.end.Type != "done" {
				t.Errorf("lane %d brought %d tokens (%v) and %+v", i, n, err, a.end)
			}
		}
	}
	_ = c.Close()
	awaitCall(t, w, "stalled", func(q wall.Request) bool { return q.End == wall.ClientGone })
	g.noSockets(t)
}

// noSockets waits until no connection and no answer is left.
func (g *gatewayUnderTest) noSockets(t testing.TB) {
	t.Helper()
	g.eventually(t, "connections are still counted", func() bool {
		return g.metric(t, "gateway_websocket_connections") == 0 && g.metric(t, `gateway_active_streams{transport="ws"}`) == 0
	})
}

// TestWebSocketManyClients is for the race detector: connections that come, ask,
// cancel and go at once.
func TestWebSocketManyClients(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, "[log]\naccess = \"off\"\n"))
	var all sync.WaitGroup
	for i := range 12 {
		c := g.dial(t)
		all.Go(func() {
			defer c.Close()
			for turn := range 4 {
				for lane := range 6 {
					c.create(t, fmt.Sprint(lane), fmt.Sprintf("wall:tokens=%d,burst=3", 5+turn), "")
				}
				c.cancel(t, fmt.Sprint(turn))
				for ended := 0; ended < 6; {
					switch m := c.next(t); {
					case m.close != 0 || m.Type == "error":
						t.Errorf("client %d: %s", i, m.text)
						return
					case m.Type == "done" && m.Stream != fmt.Sprint(turn), m.Type == "cancelled":
						ended++
					}
				}
			}
			if i%2 == 0 {
				_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Time{})
				c.closed(t, 1000)
			}
		})
	}
	all.Wait()
	g.noSockets(t)
}

// TestWebSocketRoutes tells who asks without an upgrade, or for another version.
func TestWebSocketRoutes(t *testing.T) {
	t.Parallel()
	g := boot(t, "")
	for _, tc := range []struct {
		name, path string
		headers    []string
		status     int
		code       string
	}{
		{"no upgrade", chatPath, nil, 405, "method_not_allowed"},
		{"a version of the past", chatPath, []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, 426, "upgrade_required"},
		{"no key of the handshake", chatPath, []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"}, 400, "bad_handshake"},
		{"a route without", "/embeddings", []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, 405, "method_not_allowed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := g.do(t, http.MethodGet, tc.path, "", tc.headers...)
			if e := a.refused(t, tc.status); e.Code != tc.code {
				t.Errorf("%+v", e)
			}
			if tc.status == 426 && a.header.Get("Sec-WebSocket-Version") != "13" {
				t.Errorf("%v", a.header)
			}
		})
	}
}
