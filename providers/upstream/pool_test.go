package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// network is a server behind pipes, so that time can be synctest's. serve has the
// contract of rawServer's.
type network struct {
	serve func(conn net.Conn, nth int) bool

	mu            sync.Mutex
	dialled, open int
	posts         int
}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	ours, theirs := net.Pipe()
	n.count(&n.dialled, 1)
	n.count(&n.open, 1)
	go func() {
		defer n.count(&n.open, -1)
		defer theirs.Close()
		in := bufio.NewReader(theirs)
		for nth := 1; ; nth++ {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			n.count(&n.posts, 1)
			if !n.serve(theirs, nth) {
				return
			}
		}
	}()
	return ours, nil
}

func (n *network) count(what *int, by int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*what += by
}

// check compares, once nothing moves any more.
func (n *network) check(t *testing.T, when string, dialled, open int) {
	t.Helper()
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dialled != dialled || n.open != open {
		t.Errorf("%s: %d connections dialled, %d open; want %d and %d", when, n.dialled, n.open, dialled, open)
	}
}

// over makes a client whose connections are pipes.
func (n *network) over(way string, o Options) *Client {
	o.Name, o.BaseURL = "up", "http://up.test"
	c := New(o)
	c.via = ways[way](o, c.base)
	dialTo(c, n.dial)
	return c
}

// dialTo replaces how a client dials.
func dialTo(c *Client, dial func(context.Context, string, string) (net.Conn, error)) {
	switch v := c.via.(type) {
	case *plain:
		v.dial = dial
	case *standard:
		for _, rt := range []http.RoundTripper{v.client, v.fresh} {
			if r, ok := rt.(*rotating); ok {
				rt = r.now.Load().Transport
			}
			rt.(*http.Transport).DialContext = dial
		}
	}
}

// eachWayInABubble runs a test over both transports, with time of its own.
func eachWayInABubble(t *testing.T, o Options, serve func(net.Conn, int) bool, test func(t *testing.T, n *network, c *Client)) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{serve: serve}
				c := n.over(way, o)
				test(t, n, c)
				c.CloseIdle()
				synctest.Wait()
				if n.open != 0 {
					t.Errorf("%d connections stay open", n.open)
				}
			})
		})
	}
}

func serveKept(conn net.Conn, _ int) bool {
	answerKept(conn)
	return true
}

func mustCall(t *testing.T, c *Client) {
	t.Helper()
	if err := callOnce(context.Background(), c); err != nil {
		t.Error(err)
	}
}

// open starts a call and leaves its answer unread.
func open(t *testing.T, c *Client) *Answer {
	t.Helper()
	a, err := c.Do(context.Background(), &Request{Method: http.MethodPost, Path: "/x", Body: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func readAll(t *testing.T, a *Answer) {
	t.Helper()
	_, err := io.Copy(io.Discard, a.Body)
	if err != nil {
		t.Error(err)
	}
	a.Close(err == nil)
}

func TestLifetime(t *testing.T) {
	o := kept
	o.Lifetime = time.Minute
	o.IdleTimeout = time.Hour
	eachWayInABubble(t, o, serveKept, func(t *testing.T, n *network, c *Client) {
		mustCall(t, c)
		time.Sleep(50 * time.Second)
		mustCall(t, c)
		n.check(t, "before its time", 1, 1)
		time.Sleep(11 * time.Second)
		mustCall(t, c)
		n.check(t, "behind its time", 2, 1)

		a := open(t, c)
		time.Sleep(2 * time.Minute)
		n.check(t, "while a call lasts", 2, 1)
		readAll(t, a)
		mustCall(t, c)
		n.check(t, "behind a long call", 3, 1)
	})
}

// An old connection on top of the pool does not keep a younger one from being used.
func TestLifetimeOfOne(t *testing.T) {
	o := kept
	o.Lifetime = time.Minute
	synctest.Test(t, func(t *testing.T) {
		n := &network{serve: serveKept}
		c := n.over("plain", o)
		old := open(t, c)
		time.Sleep(50 * time.Second)
		young := open(t, c)
		readAll(t, young)
		readAll(t, old)
		time.Sleep(15 * time.Second)
		mustCall(t, c)
		n.check(t, "the younger one", 2, 1)
		c.CloseIdle()
	})
}

func TestIdleTimeout(t *testing.T) {
	o := Options{IdleConns: 8, IdleTimeout: time.Minute}
	eachWayInABubble(t, o, serveKept, func(t *testing.T, n *network, c *Client) {
		first, second := open(t, c), open(t, c)
		readAll(t, first)
		time.Sleep(20 * time.Second)
		readAll(t, second)
		time.Sleep(39 * time.Second)
		n.check(t, "before the first one's time", 2, 2)
		time.Sleep(2 * time.Second)
		n.check(t, "behind it", 2, 1)
		time.Sleep(20 * time.Second)
		n.check(t, "behind the second one's", 2, 0)
		mustCall(t, c)
		n.check(t, "the next call", 3, 1)
		time.Sleep(2 * time.Minute)
		n.check(t, "swept again", 3, 0)
	})
}

func TestIdleConns(t *testing.T) {
	eachWayInABubble(t, Options{IdleConns: 2, IdleTimeout: time.Minute}, serveKept, func(t *testing.T, n *network, c *Client) {
		answers := []*Answer{open(t, c), open(t, c), open(t, c), open(t, c)}
		n.check(t, "in use", 4, 4)
		for _, a := range answers {
			readAll(t, a)
		}
		n.check(t, "idle", 4, 2)
	})
}

func TestCloseIdle(t *testing.T) {
	eachWayInABubble(t, kept, serveKept, func(t *testing.T, n *network, c *Client) {
		a := open(t, c)
		mustCall(t, c)
		n.check(t, "one idle", 2, 2)
		c.CloseIdle()
		n.check(t, "one in use", 2, 1)
		readAll(t, a)
		n.check(t, "none is kept afterwards", 2, 0)
		mustCall(t, c)
		mustCall(t, c)
		n.check(t, "used again", 3, 1)
	})
}

// endings are all the ways in which an exchange ends.
var endings = map[string]struct {
	serve func(net.Conn, int) bool
	call  func(ctx context.Context, cancel context.CancelFunc, c *Client)
}{
	"read": {serveKept, func(ctx context.Context, _ context.CancelFunc, c *Client) { _ = callOnce(ctx, c) }},
	"cut": {serveKept, func(ctx context.Context, _ context.CancelFunc, c *Client) {
		if a, err := c.Do(ctx, &Request{Method: http.MethodPost}); err == nil {
			a.Close(false)
		}
	}},
	"drained": {serveKept, func(ctx context.Context, _ context.CancelFunc, c *Client) {
		if a, err := c.Do(ctx, &Request{Method: http.MethodPost}); err == nil {
			a.Close(true)
		}
	}},
	"drained in vain": {func(conn net.Conn, _ int) bool {
		_, _ = io.WriteString(conn, chunkedHead+"1\r\n.\r\n")
		return true
	}, func(ctx context.Context, _ context.CancelFunc, c *Client) {
		if a, err := c.Do(ctx, &Request{Method: http.MethodPost}); err == nil {
			a.Close(true)
		}
	}},
	"broken": {func(net.Conn, int) bool { return false }, func(ctx context.Context, _ context.CancelFunc, c *Client) { _ = callOnce(ctx, c) }},
	"malformed": {func(conn net.Conn, _ int) bool {
		_, _ = io.WriteString(conn, okHead+"Content-Length: -1\r\n\r\n")
		return true
	}, func(ctx context.Context, _ context.CancelFunc, c *Client) { _ = callOnce(ctx, c) }},
	"compressed": {func(conn net.Conn, _ int) bool {
		_, _ = io.WriteString(conn, okHead+"Content-Encoding: br\r\n\r\n")
		return true
	}, func(ctx context.Context, _ context.CancelFunc, c *Client) { _ = callOnce(ctx, c) }},
	"canceled": {func(net.Conn, int) bool { return true }, func(ctx context.Context, cancel context.CancelFunc, c *Client) {
		time.AfterFunc(time.Second, cancel)
		_ = callOnce(ctx, c)
	}},
	"never begun": {serveKept, func(ctx context.Context, cancel context.CancelFunc, c *Client) {
		cancel()
		_ = callOnce(ctx, c)
	}},
}

// TestMaxConns waits for a slot, which each kind of end must free.
func TestMaxConns(t *testing.T) {
	for name, e := range endings {
		t.Run(name, func(t *testing.T) {
			o := kept
			o.MaxConns = 1
			var last bool
			serve := func(conn net.Conn, nth int) bool {
				if last {
					return serveKept(conn, nth)
				}
				return e.serve(conn, nth)
			}
			eachWayInABubble(t, o, serve, func(t *testing.T, n *network, c *Client) {
				last = false
				for range 3 {
					ctx, cancel := context.WithCancel(context.Background())
					e.call(ctx, cancel, c)
					cancel()
				}
				synctest.Wait()
				last = true
				mustCall(t, c)
			})
		})
	}
}

func TestMaxConnsWaits(t *testing.T) {
	o := kept
	o.MaxConns = 2
	eachWayInABubble(t, o, serveKept, func(t *testing.T, n *network, c *Client) {
		first, second := open(t, c), open(t, c)
		reason := errors.New("patience has ended")
		ctx, cancel := context.WithTimeoutCause(context.Background(), time.Minute, reason)
		defer cancel()
		begun := time.Now()
		if err := callOnce(ctx, c); !errors.Is(err, reason) || time.Since(begun) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		done := make(chan error, 1)
		go func() { done <- callOnce(context.Background(), c) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Errorf("a third call did not wait: %v", err)
		default:
		}
		readAll(t, first)
		if err := <-done; err != nil {
			t.Error(err)
		}
		readAll(t, second)
		n.check(t, "all done", 2, 2)
	})
}

// TestNothingIsSentForACallerWhoLeft holds even when a kept connection is at hand.
func TestNothingIsSentForACallerWhoLeft(t *testing.T) {
	eachWayInABubble(t, kept, serveKept, func(t *testing.T, n *network, c *Client) {
		mustCall(t, c)
		ctx, cancel := context.WithCancelCause(context.Background())
		reason := errors.New("gone")
		cancel(reason)
		if err := callOnce(ctx, c); !errors.Is(err, reason) {
			t.Errorf("%v, want the cause", err)
		}
		n.check(t, "left", 1, 1)
		if n.posts != 1 {
			t.Errorf("%d requests arrived, want 1", n.posts)
		}
	})
}
