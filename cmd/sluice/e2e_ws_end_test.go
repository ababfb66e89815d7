package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"sluice/providers/providertest/wall"
)

// wsLeavings are the ways in which a client stops an answer. told is that the
// gateway can still tell it so.
var wsLeavings = []struct {
	name  string
	end   string // of the access line
	leave func(*testing.T, *socketClient)
}{
	{"cancel", "cancelled", func(t *testing.T, c *socketClient) { c.cancel(t, "w") }},
	{"close", "client_gone", func(t *testing.T, c *socketClient) {
		if err := c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1001, ""), time.Time{}); err != nil {
			t.Error(err)
		}
	}},
	{"hang up", "client_gone", func(_ *testing.T, c *socketClient) { _ = c.UnderlyingConn().Close() }},
}

// TestWebSocketCancel stops answers in every window, in every way.
func TestWebSocketCancel(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	for _, way := range wsLeavings {
		for _, tc := range windows {
			if !tc.stream {
				continue // there is no other answer over WebSocket
			}
			t.Run(way.name+" "+tc.name, func(t *testing.T) {
				t.Parallel()
				key := "ws-" + strings.NewReplacer(" ", "-", ",", "").Replace(way.name+" "+tc.name)
				model := wallModel(key, tc.script)
				c := g.dial(t)
				c.create(t, "w", model, `,"max_tokens":1000`)
				if awaitCall(t, w, key, tc.reached).Tokens > 0 {
					c.expect(t, "chunk", "w") // what was sent has arrived, and is counted
				}
				left := time.Now()
				way.leave(t, c)
				if way.end == "cancelled" {
					m := c.expect(t, "cancelled", "w")
					if took := time.Since(left); took > soon || m.Usage == nil {
						t.Errorf("cancelled after %v with %s", took, m.text)
					}
					if tokens := awaitCall(t, w, key, arrived).Tokens; tokens > 0 && m.Usage.Completion == 0 || tokens == 0 && m.Usage.Completion > 0 {
						t.Errorf("%d tokens were generated, and told is %s", tokens, m.text)
					}
					c.create(t, "w", "demo-echo", "") // the stream is free
					c.expect(t, "done", "w")
				}
				if !tc.ended {
					q := awaitCall(t, w, key, func(q wall.Request) bool { return q.End != wall.Running })
					if after := q.Gone.Sub(left); q.End != wall.ClientGone || after > soon {
						t.Errorf("the upstream ended with %q, and knew %v after the client left", q.End, after)
					}
				}
				if line := g.accessLine(t, model); line["end"] != way.end || line["attempts"] != "1" {
					t.Errorf("access line: %v", line)
				}
				if n := calls(w, key); n != 1 {
					t.Errorf("the upstream was asked %d times", n)
				}
			})
		}
	}
}

// TestWebSocketCancelWhileBlocked leaves while a write is stuck: the connection's
// end, and a cancel, which is heard though nobody reads its answer.
func TestWebSocketCancelWhileBlocked(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	for _, way := range wsLeavings {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			key := "ws-blocked-" + strings.ReplaceAll(way.name, " ", "-")
			model := wallModel(key, flood)
			c := g.dial(t)
			c.create(t, "w", model, "")
			blockedCall(t, w, key)
			left := time.Now()
			way.leave(t, c)
			q := awaitCall(t, w, key, func(q wall.Request) bool { return q.End != wall.Running })
			if after := q.Gone.Sub(left); q.End != wall.ClientGone || after > soon {
				t.Errorf("the upstream ended with %q, and knew %v after the client left", q.End, after)
			}
			if way.end == "cancelled" {
				c.expect(t, "cancelled", "w") // once it reads on
			}
			if line := g.accessLine(t, model); line["end"] != way.end {
				t.Errorf("access line: %v", line)
			}
		})
	}
}

// TestWebSocketCancelOfAQueue stops what runs and drops what waits, with one reply.
func TestWebSocketCancelOfAQueue(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	c := g.dial(t)
	c.cancel(t, "idle")
	if m := c.next(t); m.text != `{"type":"cancelled","stream_id":"idle","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}` {
		t.Errorf("%s", m.text)
	}
	for i := range 3 {
		c.create(t, "q", wallModel(fmt.Sprint("queued", i), "tokens=100000,delay=5ms"), "")
	}
	awaitCall(t, w, "queued0", func(q wall.Request) bool { return q.Tokens > 3 })
	c.cancel(t, "q")
	c.cancel(t, "q")
	c.create(t, "q", wallModel("after", "tokens=3,seed=wall"), "")
	if m := c.expect(t, "cancelled", "q"); m.Usage.Completion < 3 {
		t.Errorf("%s", m.text)
	}
	if m := c.expect(t, "cancelled", "q"); m.Usage.Completion != 0 {
		t.Errorf("%s", m.text)
	}
	if m := c.expect(t, "done", "q"); m.Usage.Completion != 3 {
		t.Errorf("%s", m.text)
	}
	if calls(w, "queued1")+calls(w, "queued2") != 0 {
		t.Error("what was dropped was asked for")
	}
	if n := g.metric(t, `gateway_refused_requests_total{end="cancelled"}`); n != 2 {
		t.Errorf("%v dropped requests are counted", n)
	}
}

// TestWebSocketSlowReader stops reading: every answer of that connection is cut after
// the write limit, its upstream freed, and it learns why if it comes back soon.
func TestWebSocketSlowReader(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, "[timeouts]\nwrite = \"1s\"\n"))
	c := g.dial(t)
	c.create(t, "quiet", wallModel("ws-quiet", "first=1m"), "")
	c.create(t, "flood", wallModel("ws-flood", flood), "")
	blockedCall(t, w, "ws-flood")
	for _, key := range []string{"ws-quiet", "ws-flood"} {
		q := awaitCall(t, w, key, func(q wall.Request) bool { return q.End != wall.Running })
		if q.End != wall.ClientGone {
			t.Errorf("%s ended with %q", key, q.End)
		}
	}
	c.closed(t, 1013)
	for _, model := range []string{wallModel("ws-quiet", "first=1m"), wallModel("ws-flood", flood)} {
		if line := g.accessLine(t, model); line["end"] != "client_slow" {
			t.Errorf("access line: %v", line)
		}
	}
	g.noSockets(t)
}

// paced is a connection that is read at a steady pace: 128 KiB every 40 ms.
type paced struct {
	*net.TCPConn
	tick *time.Ticker
}

func (c paced) Read(p []byte) (int, error) {
	<-c.tick.C
	return c.TCPConn.Read(p[:min(len(p), 128<<10)])
}

// TestWebSocketSteadyReader is slow, but never stops: it gets everything.
func TestWebSocketSteadyReader(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, "[timeouts]\nwrite = \"1s\"\n"))
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	d := websocket.Dialer{ReadBufferSize: 128 << 10, NetDial: func(network, addr string) (net.Conn, error) {
		conn, err := net.Dial(network, addr)
		if err != nil {
			return nil, err
		}
		_ = conn.(*net.TCPConn).SetReadBuffer(512 << 10)
		return paced{conn.(*net.TCPConn), tick}, nil
	}}
	conn, _, err := d.DialContext(t.Context(), g.wsURL(chatPath), http.Header{"Authorization": {"Bearer " + g.Key}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &socketClient{Conn: conn}
	const lanes, size = 3, 5 << 20
	for i := range lanes {
		c.create(t, fmt.Sprint(i), fmt.Sprintf("wall:tokens=5,giant=3:%d,seed=%d", size, i), "")
	}
	total := 0
	for done := 0; done < lanes; {
		_ = c.SetReadDeadline(time.Now().Add(2 * patience))
		_, text, err := c.ReadMessage()
		if err != nil {
			t.Fatalf("after %d bytes: %v\n%s", total, err, g.Logs())
		}
		if total += len(text); bytes.HasPrefix(text, []byte(`{"type":"done"`)) {
			done++
		}
	}
	if total < lanes*size {
		t.Errorf("%d bytes", total)
	}
}

// heldOnly is a configuration whose upstream serves the model m alone.
func heldOnly(base, more string) string {
	return strings.Replace(overWall(base, more), `["*"]`, `["m"]`, 1)
}

// TestWebSocketDrain announces the end, serves on for a while, then refuses, finishes
// what runs and closes.
func TestWebSocketDrain(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	g := bootProcess(t, heldOnly(base, "[drain]\ndelay = \"1s\"\ntimeout = \"10m\"\n"))
	idle, busy := g.dial(t), g.dial(t)
	for range 2 {
		busy.create(t, "held", "m", "")
	}
	busy.expect(t, "chunk", "held")
	draining(t, g)
	for _, c := range []*socketClient{idle, busy} {
		m := c.next(t)
		for m.Type == "accepted" || m.Type == "chunk" {
			m = c.next(t)
		}
		if m.text != `{"type":"going_away","in_ms":1000,"reason":"drain"}` {
			t.Errorf("%s", m.text)
		}
	}
	late := g.dial(t) // it is still served
	if m := late.next(t); m.Type != "going_away" || m.In > 1000 {
		t.Errorf("%s", m.text)
	}
	late.create(t, "a", "demo-echo", "")
	late.expect(t, "done", "a")
	idle.closed(t, 1012)
	late.closed(t, 1012)
	busy.create(t, "new", "demo-echo", "")
	if m := busy.expect(t, "error", "new"); m.Status != 503 || m.fault.Code != "server_draining" || m.RetryAfter == 0 {
		t.Errorf("%s", m.text)
	}
	if _, res := g.handshake(t, chatPath); res == nil || res.StatusCode != 503 {
		t.Errorf("%+v", res)
	}
	open()
	if m := busy.expect(t, "done", "held"); m.Finish != "stop" {
		t.Errorf("%s", m.text)
	}
	if m := busy.expect(t, "error", "held"); m.Status != 503 || m.fault.Code != "server_draining" { // it had waited
		t.Errorf("%s", m.text)
	}
	busy.closed(t, 1012)
	if code := g.Wait(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, g.Logs())
	}
}

// TestWebSocketDrainTimeout cuts what still runs, and says so.
func TestWebSocketDrainTimeout(t *testing.T) {
	t.Parallel()
	base, _ := gated(t)
	g := bootProcess(t, overWall(base, "[drain]\ndelay = \"0s\"\ntimeout = \"300ms\"\n"))
	c, stuck := g.dial(t), g.dial(t)
	c.create(t, "held", "m", "")
	c.expect(t, "chunk", "held")
	stuck.create(t, "held", "m", "") // its client reads nothing, not even the close
	g.Signal(t, syscall.SIGTERM)
	if m := c.expect(t, "going_away", ""); m.In != 0 || m.Reason != "drain" {
		t.Errorf("%s", m.text)
	}
	if m := c.expect(t, "error", "held"); m.Status != 503 || m.fault.Code != "server_draining" {
		t.Errorf("%s", m.text)
	}
	c.closed(t, 1012)
	if code := g.Wait(); code != exitDrained {
		t.Errorf("exit code %d\n%s", code, g.Logs())
	}
}

// TestWebSocketLifetime ends a connection in time, after an announcement.
func TestWebSocketLifetime(t *testing.T) {
	t.Parallel()
	base, _ := gated(t)
	g := boot(t, heldOnly(base, "[websocket]\nlifetime = \"4s\"\n"))
	start := time.Now()
	idle, busy := g.dial(t), g.dial(t)
	busy.create(t, "held", "m", "")
	if m := busy.expect(t, "going_away", ""); m.text != `{"type":"going_away","in_ms":2000,"reason":"limit"}` {
		t.Errorf("%s", m.text)
	}
	busy.create(t, "short", "demo-echo", "") // while it lasts it serves
	busy.expect(t, "done", "short")
	if m := busy.expect(t, "error", "held"); m.Status != 503 || m.fault.Code != "websocket_connection_limit_reached" || m.RetryAfter == 0 {
		t.Errorf("%s", m.text)
	}
	busy.closed(t, 1000)
	idle.closed(t, 1000)
	if took := time.Since(start); took < 4*time.Second || took > 12*time.Second {
		t.Errorf("closed after %v", took)
	}
	g.noSockets(t)
}

// TestWebSocketPing finds a peer that is gone, and keeps one that answers.
func TestWebSocketPing(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, "[websocket]\nping_interval = \"200ms\"\npong_timeout = \"500ms\"\n"))
	lives, dead := g.dial(t), g.dial(t)
	dead.SetPingHandler(func(string) error { return nil })
	dead.create(t, "a", wallModel("dead", "first=1m"), "")
	lives.create(t, "a", wallModel("alive", "first=2s,tokens=3"), "")
	start := time.Now()
	lives.expect(t, "done", "a") // reading, it answers
	q := awaitCall(t, w, "dead", func(q wall.Request) bool { return q.End != wall.Running })
	if after := q.Gone.Sub(start); q.End != wall.ClientGone || after > soon {
		t.Errorf("the upstream ended with %q after %v", q.End, after)
	}
	dead.closed(t, websocket.CloseAbnormalClosure)
}

// TestWebSocketTicketRoute reads the one answer that no test of tickets looks at.
func TestWebSocketTicketRoute(t *testing.T) {
	t.Parallel()
	g := boot(t, "")
	for _, path := range []string{"/tickets", strings.TrimSuffix(g.URL, "/v1") + "/tickets"} {
		if a := g.do(t, http.MethodPost, path, "{}"); a.status != 200 || !strings.HasPrefix(a.body, `{"object":"ticket","ticket":"`) || !strings.HasSuffix(a.body, `,"expires_in_ms":30000}`+"\n") {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}
