package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

var errGone = errors.New("the caller has left")

// A caller leaves in each window of an exchange: the call ends at that moment, with
// the cause, and its connection is closed.
func TestCancel(t *testing.T) {
	for name, c := range map[string]struct {
		serve   func(net.Conn, int) bool
		body    int
		answers bool // Do succeeds, and the body breaks off
	}{
		"before the head": {serve: slowly(time.Hour, okHead)},
		"within the head": {serve: func(c net.Conn, _ int) bool { return slowly(0, okHead)(c, 0) && slowly(time.Hour, "\r\n")(c, 0) }},
		"behind a 1xx": {serve: func(c net.Conn, _ int) bool {
			return slowly(0, "HTTP/1.1 103 \r\n\r\n")(c, 0) && slowly(time.Hour, okHead)(c, 0)
		}},
		"before the body":        {serve: slowly(0, chunkedHead), answers: true},
		"within a chunk":         {serve: slowly(0, chunkedHead+"9\r\nhello"), answers: true},
		"between chunks":         {serve: slowly(0, chunkedHead+"5\r\nhello\r\n"), answers: true},
		"a large body":           {serve: slowly(time.Hour, okHead), body: 1 << 20},
		"within a body to close": {serve: slowly(0, okHead+"\r\nhello"), answers: true},
	} {
		t.Run(name, func(t *testing.T) {
			eachWayInABubble(t, kept, c.serve, func(t *testing.T, n *network, up *Client) {
				ctx, cancel := context.WithCancelCause(context.Background())
				time.AfterFunc(time.Second, func() { cancel(errGone) })
				begun := time.Now()
				a, err := up.Do(ctx, &Request{Method: http.MethodPost, Body: make([]byte, c.body)})
				if c.answers {
					if err != nil {
						t.Fatal(err)
					}
					_, err = io.Copy(io.Discard, a.Body)
					err = Cause(ctx, err)
					a.Close(false)
				}
				if d := time.Since(begun); !errors.Is(err, errGone) || d != time.Second {
					t.Errorf("%v after %v", err, d)
				}
				time.Sleep(time.Hour) // the server wakes up
				n.check(t, "afterwards", 1, 0)
			})
		})
	}
}

// Nobody reads the connection, so that a write does not end.
func TestCancelWhileWriting(t *testing.T) {
	for way := range ways {
		for name, size := range map[string]int{"small": 10, "large": 1 << 20} {
			t.Run(way+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := &network{}
					c := n.over(way, kept)
					dialTo(c, func(context.Context, string, string) (net.Conn, error) {
						ours, theirs := net.Pipe()
						context.AfterFunc(t.Context(), func() { _ = theirs.Close() })
						return ours, nil
					})
					ctx, cancel := context.WithCancelCause(context.Background())
					time.AfterFunc(time.Second, func() { cancel(errGone) })
					begun := time.Now()
					_, err := c.Do(ctx, &Request{Method: http.MethodPost, Body: make([]byte, size)})
					if d := time.Since(begun); !errors.Is(err, errGone) || d != time.Second {
						t.Errorf("%v after %v", err, d)
					}
				})
			})
		}
	}
}

// net/http lets the dialling go on for others.
func TestCancelWhileDialling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := kept
		o.MaxConns = 1
		n := &network{serve: serveKept}
		c := n.over("plain", o)
		dialTo(c, func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(time.Second, func() { cancel(errGone) })
		begun := time.Now()
		err := callOnce(ctx, c)
		if d := time.Since(begun); !errors.Is(err, errGone) || d != time.Second {
			t.Errorf("%v after %v", err, d)
		}
		dialTo(c, n.dial)
		mustCall(t, c)
		c.CloseIdle()
	})
}

// A context that ends when the answer has been read does not spoil the connection, nor
// the pool.
func TestCancelBehindTheEnd(t *testing.T) {
	for name, closeFirst := range map[string]bool{"closed": true, "not yet closed": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{serve: serveKept}
				c := n.over("plain", kept)
				ctx, cancel := context.WithCancel(context.Background())
				a, err := c.Do(ctx, &Request{Method: http.MethodPost})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, a.Body); err != nil {
					t.Fatal(err)
				}
				if closeFirst {
					a.Close(true)
					cancel()
				} else {
					cancel()
					synctest.Wait()
					a.Close(true)
				}
				synctest.Wait()
				want := 0
				if closeFirst {
					want = 1
				}
				if got := len(c.via.(*plain).pool.conns); got != want {
					t.Errorf("%d connections in the pool, want %d", got, want)
				}
				n.check(t, "afterwards", 1, want)
				c.CloseIdle()
			})
		})
	}
}
