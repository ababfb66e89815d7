package upstream

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// slowly writes the parts of an answer with a pause before each.
func slowly(pause time.Duration, parts ...string) func(net.Conn, int) bool {
	return func(conn net.Conn, _ int) bool {
		for _, p := range parts {
			time.Sleep(pause)
			if _, err := io.WriteString(conn, p); err != nil {
				return false
			}
		}
		return true
	}
}

// TestTail brings the end of a finished answer late.
func TestTail(t *testing.T) {
	head := chunkedHead + "5\r\nhello\r\n"
	for name, c := range map[string]struct {
		serve func(net.Conn, int) bool
		kept  bool
	}{
		"at once":       {slowly(0, head, "0\r\n\r\n"), true},
		"in time":       {slowly(drainTime/3, head, "0\r\n", "\r\n"), true},
		"too late":      {slowly(drainTime*3/5, head, "0\r\n", "\r\n"), false},
		"more, little":  {slowly(0, head, "800\r\n"+strings.Repeat("x", 2<<10)+"\r\n0\r\n\r\n"), true},
		"more, much":    {slowly(0, head, "2000\r\n"+strings.Repeat("x", 8<<10)+"\r\n0\r\n\r\n"), false},
		"surplus":       {slowly(0, head, "0\r\n\r\nHTTP/1.1 200 OK\r\n"), false},
		"never":         {slowly(0, head), false},
		"malformed":     {slowly(0, head, "x\r\n"), false},
		"to be closed":  {slowly(0, okHead+"Connection: close\r\nContent-Length: 6\r\n\r\nhello", "!"), false},
		"without bound": {slowly(0, okHead+"\r\nhello", "!"), false},
	} {
		t.Run(name, func(t *testing.T) {
			o := kept
			o.MaxConns = 1
			eachWayInABubble(t, o, c.serve, func(t *testing.T, n *network, up *Client) {
				ctx, cancel := context.WithCancel(context.Background())
				a, err := up.Do(ctx, &Request{Method: http.MethodPost})
				if err != nil {
					t.Fatal(err)
				}
				text := make([]byte, 5)
				if _, err := io.ReadFull(a.Body, text); err != nil || string(text) != "hello" {
					t.Fatalf("%q, %v", text, err)
				}
				begun := time.Now()
				a.Close(true)
				cancel() // the tail is not the caller's concern
				if d := time.Since(begun); d != 0 {
					t.Errorf("closing took %v", d)
				}
				time.Sleep(2 * drainTime)
				want := 0
				if c.kept {
					want = 1
				}
				n.check(t, "afterwards", 1, want)
			})
		})
	}
}

func TestTailIsWaitedForSoLong(t *testing.T) {
	eachWayInABubble(t, kept, slowly(0, chunkedHead), func(t *testing.T, n *network, c *Client) {
		open(t, c).Close(true)
		time.Sleep(drainTime - time.Millisecond)
		n.check(t, "before", 1, 1)
		time.Sleep(2 * time.Millisecond)
		n.check(t, "behind", 1, 0)
	})
}

// The bound on a tail is none on the answer after it.
func TestCallBehindATail(t *testing.T) {
	serve := func(conn net.Conn, nth int) bool {
		if nth == 1 {
			return slowly(0, chunkedHead+"5\r\nhello\r\n", "0\r\n\r\n")(conn, nth)
		}
		return slowly(2*drainTime, lengthHead(5), "hello")(conn, nth)
	}
	eachWayInABubble(t, kept, serve, func(t *testing.T, n *network, c *Client) {
		a := open(t, c)
		if _, err := io.ReadFull(a.Body, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		a.Close(true)
		n.check(t, "drained", 1, 1)
		mustCall(t, c)
		n.check(t, "called again", 1, 1)
	})
}
