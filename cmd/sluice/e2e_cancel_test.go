package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// soon is within what an upstream must be told that its client has gone.
const soon = time.Second

// windows are the moments of an answer in which its client can go.
var windows = []struct {
	name, script string
	stream       bool
	reached      func(wall.Request) bool // the moment, as the upstream sees it
	ended        bool                    // the upstream's call is over by then
}{
	{"before headers", "headers=1m", true, arrived, false},
	{"before the first token", "first=1m", true, func(q wall.Request) bool { return q.Status == 200 }, false},
	{"before the first token, role sent", "role=early,first=1m", true, func(q wall.Request) bool { return q.Bytes > 0 }, false},
	{"mid-stream", "tokens=100000,delay=5ms", true, func(q wall.Request) bool { return q.Tokens >= 5 }, false},
	{"mid-stream, stalled", "stall=5", true, func(q wall.Request) bool { return q.Tokens >= 5 }, false},
	{"in a retry pause", "status=503,retry_after=5", true, func(q wall.Request) bool { return q.End == wall.Refused }, true},
	{"in a retry pause, not streamed", "status=503,retry_after=5", false, func(q wall.Request) bool { return q.End == wall.Refused }, true},
	{"not streamed", "headers=1m", false, arrived, false},
	{"not streamed, half a body", "stall=5", false, func(q wall.Request) bool { return q.Bytes > 0 }, false},
}

func arrived(q wall.Request) bool { return !q.Read.IsZero() }

// TestCancel lets a client go in every window.
func TestCancel(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	t.Run("windows", func(t *testing.T) {
		for _, tc := range windows {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				key := strings.NewReplacer(" ", "-", ",", "").Replace(tc.name)
				model := wallModel(key, tc.script)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				gone := make(chan error, 1)
				go func() {
					res, err := g.Client.Do(g.request(ctx, t, http.MethodPost, chatPath, chatBody(model, tc.stream, `,"max_tokens":1000`)))
					if err == nil {
						_, err = io.Copy(io.Discard, res.Body)
						_ = res.Body.Close()
					}
					gone <- err
				}()
				awaitCall(t, w, key, tc.reached)
				left := time.Now()
				leave()
				if err := <-gone; err == nil {
					t.Fatal("the answer was complete before the client could go")
				}
				checkGone(t, g, w, model, key, left, tc.ended)
				if n := calls(w, key); n != 1 {
					t.Errorf("the upstream was asked %d times", n)
				}
			})
		}
	})
	g.idle(t)
	all := float64(1000 * len(windows))
	if saved := g.metric(t, "gateway_tokens_saved_by_cancel_total"); saved < all-1000 || saved > all {
		t.Errorf("%v tokens are counted as saved, of %v", saved, all)
	}
}

// checkGone proves that a client's leaving reached the upstream and the log in time.
func checkGone(t *testing.T, g *gatewayUnderTest, w *wall.Wall, model, key string, left time.Time, ended bool) {
	t.Helper()
	if !ended {
		q := awaitCall(t, w, key, func(q wall.Request) bool { return q.End != wall.Running })
		if after := q.Gone.Sub(left); q.End != wall.ClientGone || after > soon {
			t.Errorf("the upstream ended with %q, and knew %v after the client went", q.End, after)
		}
	}
	line := g.accessLine(t, model)
	if after := time.Since(left); after > soon+patience/10 {
		t.Errorf("the answer was settled %v after the client went", after)
	}
	if line["end"] != "client_gone" || line["attempts"] != "1" {
		t.Errorf("access line: %v", line)
	}
}

// rawStream asks for an answer on a connection of its own, of which the kernel
// takes no more than about window bytes until they are read.
func rawStream(t testing.TB, g *gatewayUnderTest, window int, body string) *net.TCPConn {
	t.Helper()
	conn := rawConn(t, g)
	_ = conn.SetReadBuffer(window)
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", g.Key, len(body), body)
	return conn
}

func rawConn(t testing.TB, g *gatewayUnderTest) *net.TCPConn {
	t.Helper()
	u, err := url.Parse(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	return conn.(*net.TCPConn)
}

// flood is a stream that fills every buffer on its way.
const flood = "tokens=10000000,burst=500"

// blockedCall waits until the upstream's writes are stuck: the buffers are full.
func blockedCall(t testing.TB, w *wall.Wall, key string) {
	t.Helper()
	awaitCall(t, w, key, func(q wall.Request) bool { return q.Bytes > 64<<10 })
	var bytes int64 = -1
	for end := time.Now().Add(patience); ; <-time.After(50 * time.Millisecond) {
		q := awaitCall(t, w, key, func(wall.Request) bool { return true })
		if q.Bytes == bytes {
			return
		}
		if bytes = q.Bytes; time.Now().After(end) {
			t.Fatal("the flood never got stuck")
		}
	}
}

// TestCancelWhileBlocked closes a connection while a write to it is stuck.
func TestCancelWhileBlocked(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	model := wallModel("blocked", flood)
	conn := rawStream(t, g, 4<<10, chatBody(model, true, ""))
	if line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}
	blockedCall(t, w, "blocked")
	left := time.Now()
	_ = conn.Close()
	checkGone(t, g, w, model, "blocked", left, false)
	g.idle(t)
}

// TestSlowReader stops reading without closing. That answer is cut after the write
// limit, its upstream freed, and nobody else waits for it.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const limit = time.Second
	base, w := wall.Start(t)
	g := boot(t, overWall(base, "[timeouts]\nwrite = \"1s\"\n"))
	model := wallModel("slow", flood)
	rawStream(t, g, 4<<10, chatBody(model, true, ""))
	blockedCall(t, w, "slow")
	stuck := time.Now()

	// Until the cut, other streams flow: their tokens keep the pace of their upstream.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	steady := g.openStream(ctx, t, chatBody(wallModel("steady", "tokens=100000,delay=10ms"), true, ""))
	var gaps []time.Duration
	last := time.Now()
	for readOne(t, steady.Body); ; last = time.Now() {
		if q := awaitCall(t, w, "slow", func(wall.Request) bool { return true }); q.End != wall.Running {
			break
		}
		readOne(t, steady.Body)
		gaps = append(gaps, time.Since(last))
	}
	q := awaitCall(t, w, "slow", func(q wall.Request) bool { return q.End != wall.Running })
	if after := q.Gone.Sub(stuck); q.End != wall.ClientGone || after < limit/2 || after > limit+5*soon {
		t.Errorf("the upstream of the slow reader ended with %q after %v", q.End, after)
	}
	if line := g.accessLine(t, model); line["end"] != "client_slow" {
		t.Errorf("access line: %v", line)
	}
	if m := median(gaps); len(gaps) < 20 || m > 40*time.Millisecond {
		t.Errorf("the other stream brought %d tokens with a median gap of %v, want 10ms", len(gaps), m)
	}
}

func readOne(t testing.TB, r io.Reader) {
	t.Helper()
	readUntil(t, r, time.Now(), func(string) bool { return true })
}

// TestSteadySlowReader reads at a steady pace, slower than the write limit for the
// whole, and gets everything: the limit is for a client that takes nothing.
func TestSteadySlowReader(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, "[timeouts]\nwrite = \"1s\"\n"))
	const size = 15 << 20
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprintf("stream=%t", stream), func(t *testing.T) {
			t.Parallel()
			conn := rawStream(t, g, 512<<10, chatBody(wallModel(fmt.Sprintf("steady%t", stream), fmt.Sprintf("giant=3:%d", size)), stream, ""))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			// 128 KiB every 40 ms are 15 MiB in five seconds.
			pace := time.NewTicker(40 * time.Millisecond)
			defer pace.Stop()
			total := int64(0)
			for {
				n, err := io.CopyN(io.Discard, res.Body, 128<<10)
				total += n
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("after %d bytes: %v\n%s", total, err, g.Logs())
				}
				<-pace.C
			}
			if total < size {
				t.Errorf("%d of %d bytes", total, size)
			}
		})
	}
}
