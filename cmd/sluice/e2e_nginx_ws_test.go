package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// pingTimes are the pings of a socket, scaled down for an nginx that bears a second of silence.
const pingTimes = "[websocket]\nping_interval = \"300ms\"\npong_timeout = \"5s\"\n"

// socketsBehindNginx is a gateway over a wall, seen through nginx as it is recommended.
func socketsBehindNginx(t *testing.T, config string) (front, g *gatewayUnderTest, w *wall.Wall) {
	t.Helper()
	base, w := wall.Start(t)
	g = boot(t, overWall(base, config))
	return behindNginx(t, g, nginxSites(t)["recommended"], "proxy_read_timeout 1s;"), g, w
}

// createFor asks for an answer of a model.
func createFor(model string) wireFrame {
	return textFrame(fmt.Sprintf(`{"type":"create","stream_id":"n","request":{"model":%q,"messages":[{"role":"user","content":"go"}]}}`, model))
}

func TestNginxWebSocket(t *testing.T) {
	t.Parallel()
	front, _, w := socketsBehindNginx(t, pingTimes)
	t.Run("frames come one by one", func(t *testing.T) { t.Parallel(); checkFramePace(t, front) })
	t.Run("a long silence", func(t *testing.T) {
		t.Parallel()
		s := front.openWire(t)
		s.send(0, createFor("wall:first=2500ms,tokens=3"))
		s.want(t, "answer "+wall.Text("wall", 3))
		s.send(0, createFor("wall:tokens=3,stall=2:2500ms"))
		s.want(t, "answer "+wall.Text("wall", 3))
		if s.pings < 8 {
			t.Errorf("%d pings in five seconds, one every 300ms", s.pings)
		}
		s.leave(t)
	})
	t.Run("pings of the client", func(t *testing.T) {
		t.Parallel()
		s := front.openWire(t)
		s.send(-1, pingFrame("a"), pingFrame(""))
		s.want(t, "pong a", "pong")
		s.leave(t)
	})
	t.Run("a page of the same origin", func(t *testing.T) {
		t.Parallel()
		u, err := url.Parse(front.URL)
		if err != nil {
			t.Fatal(err)
		}
		front.openWire(t, "Origin: http://"+u.Host).leave(t)
	})
	t.Run("close codes", func(t *testing.T) {
		t.Parallel()
		for code, frame := range map[int]wireFrame{
			1002: {op: wireText, payload: hello, rsv: 1},
			1007: textFrame("\xff"),
			1009: {op: wireText, huge: true},
		} {
			s := front.openWire(t)
			s.send(0, frame)
			s.failed(t, code)
		}
	})
	t.Run("a client that leaves", func(t *testing.T) {
		t.Parallel()
		s := front.openWire(t)
		s.send(0, createFor(wallModel("ws-leave", "tokens=100000,delay=5ms")))
		awaitCall(t, w, "ws-leave", func(q wall.Request) bool { return q.Tokens > 5 })
		left := time.Now()
		_ = s.Close()
		q := awaitCall(t, w, "ws-leave", func(q wall.Request) bool { return q.End != wall.Running })
		if late := q.Gone.Sub(left); q.End != wall.ClientGone || late > time.Second {
			t.Errorf("the upstream's call ended as %q, %v after the client had left", q.End, late)
		}
	})
}

// checkFramePace measures when tokens arrive: at their upstream's pace, each alone.
func checkFramePace(t *testing.T, front *gatewayUnderTest) {
	t.Helper()
	s := front.openWire(t)
	s.send(0, createFor("wall:tokens=30,delay=30ms"))
	s.want(t, "answer "+wall.Text("wall", 30))
	var gaps []time.Duration
	for i := 1; i < len(s.chunks); i++ {
		gaps = append(gaps, s.chunks[i].Sub(s.chunks[i-1]))
	}
	if m := median(gaps); len(s.chunks) < 30 || m < 10*time.Millisecond || m > 200*time.Millisecond {
		t.Errorf("30 tokens, one every 30ms, arrived in %d frames with a median gap of %v", len(s.chunks), m)
	}
	s.leave(t)
}

func TestNginxWebSocketDrain(t *testing.T) {
	t.Parallel()
	front, g, w := socketsBehindNginx(t, pingTimes)
	s := front.openWire(t)
	s.send(0, createFor(wallModel("ws-drain", "tokens=20,delay=30ms")))
	awaitCall(t, w, "ws-drain", func(q wall.Request) bool { return q.Tokens > 1 })
	stopped := make(chan int)
	go func() { stopped <- g.Stop() }()
	s.want(t, "going_away", "answer "+wall.Text("wall", 20), "close 1012", "end")
	if code := <-stopped; code != exitOK {
		t.Errorf("exit code %d\n%s", code, g.Logs())
	}
}

// TestNginxEndsSilentSockets is the control of the long silence: without pings nginx ends it.
func TestNginxEndsSilentSockets(t *testing.T) {
	t.Parallel()
	front, _, _ := socketsBehindNginx(t, "")
	s := front.openWire(t)
	if got := s.next(); got != "end" || s.pings != 0 {
		t.Errorf("%q after %d pings: the test of a long silence proves nothing", got, s.pings)
	}
}

// TestNginxWithoutUpgrade shows what nginx as it comes makes of a handshake: a GET of
// HTTP/1.0, which is told what it lacks.
func TestNginxWithoutUpgrade(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	front := behindNginx(t, boot(t, overWall(base, "")), stockNginx, "")
	a := front.do(t, http.MethodGet, chatPath, "", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
	if e := a.refused(t, http.StatusMethodNotAllowed); !strings.Contains(e.Message, "upgrade to WebSocket over HTTP/1.1") {
		t.Errorf("%+v", e)
	}
}
