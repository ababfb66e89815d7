package upstream

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/providers"
)

// rawServer speaks HTTP/1.1 with next to nothing in between: serve is called for
// each request of each connection and reports whether the connection goes on.
func rawServer(t testing.TB, serve func(conn *net.TCPConn, nth int) bool) (address string, posts *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	posts = new(atomic.Int64)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for nth := 1; ; nth++ {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					posts.Add(1)
					if !serve(conn.(*net.TCPConn), nth) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
	})
	return "http://" + ln.Addr().String(), posts
}

func answerKept(conn net.Conn) {
	const body = `{"id":"x","choices":[]}`
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n"+body)
}

func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// ways are the two transports, both over plain TCP here.
var ways = map[string]func(Options, *url.URL) transport{
	"plain":    func(o Options, u *url.URL) transport { return newPlain(o, u) },
	"net/http": func(o Options, u *url.URL) transport { return newStandard(o, u) },
}

// eachWay runs a test over both transports.
func eachWay(t *testing.T, test func(t *testing.T, client func(t *testing.T, address string, o Options) *Client)) {
	for name, via := range ways {
		t.Run(name, func(t *testing.T) {
			test(t, func(t *testing.T, address string, o Options) *Client {
				t.Helper()
				o.Name, o.BaseURL = "up", address
				c := New(o)
				c.via = via(o, c.base)
				t.Cleanup(c.CloseIdle)
				return c
			})
		})
	}
}

var kept = Options{IdleConns: 64, IdleTimeout: time.Minute}

// callOnce sends one request and reads its answer to the end.
func callOnce(ctx context.Context, c *Client) error {
	a, err := c.Do(ctx, &Request{Method: http.MethodPost, Path: "/chat/completions", ContentType: "application/json", Body: []byte(`{"model":"m"}`)})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, a.Body)
	a.Close(err == nil)
	return err
}

// A server that reads the request and then resets gets it twice at most, however
// many connections are kept.
func TestRequestIsRepeatedOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
		const connections = 8
		var arrived sync.WaitGroup
		arrived.Add(connections)
		var broken atomic.Bool
		address, posts := rawServer(t, func(conn *net.TCPConn, nth int) bool {
			if broken.Load() {
				reset(conn)
				return false
			}
			arrived.Done()
			arrived.Wait() // so that each call needs a connection of its own
			answerKept(conn)
			return true
		})
		c := client(t, address, kept)
		var calls sync.WaitGroup
		for range connections {
			calls.Go(func() {
				if err := callOnce(context.Background(), c); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		broken.Store(true)
		before := posts.Load()
		err := callOnce(context.Background(), c)
		if e := providers.AsError(err); e == nil || e.Kind != providers.Unreachable {
			t.Errorf("%v, want an unreachable upstream", err)
		}
		if n := posts.Load() - before; n != 2 {
			t.Errorf("%d requests arrived for one call, want 2", n)
		}
	})
}

// A new connection that breaks is the server's verdict on the request: no repeat.
func TestRequestOnANewConnectionIsNotRepeated(t *testing.T) {
	eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
		address, posts := rawServer(t, func(conn *net.TCPConn, _ int) bool {
			reset(conn)
			return false
		})
		if err := callOnce(context.Background(), client(t, address, kept)); err == nil {
			t.Error("no error")
		}
		if n := posts.Load(); n != 1 {
			t.Errorf("%d requests arrived, want 1", n)
		}
	})
}

// Nothing is repeated behind the first byte of an answer, nor for a caller who left.
func TestRequestIsNotRepeatedNeedlessly(t *testing.T) {
	eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
		for name, second := range map[string]func(*net.TCPConn, context.CancelFunc){
			"answered": func(conn *net.TCPConn, _ context.CancelFunc) {
				_, _ = io.WriteString(conn, "HTTP/1.1 2")
				_ = conn.CloseWrite()
			},
			"informed": func(conn *net.TCPConn, _ context.CancelFunc) {
				_, _ = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\n\r\n")
				_ = conn.CloseWrite()
			},
			"canceled": func(conn *net.TCPConn, cancel context.CancelFunc) {
				cancel()
				_, _ = conn.Read(make([]byte, 1)) // until the gateway closes
			},
		} {
			t.Run(name, func(t *testing.T) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				address, posts := rawServer(t, func(conn *net.TCPConn, nth int) bool {
					if nth == 1 {
						answerKept(conn)
						return true
					}
					second(conn, cancel)
					return false
				})
				c := client(t, address, kept)
				if err := callOnce(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				if err := callOnce(ctx, c); err == nil {
					t.Error("no error")
				}
				if n := posts.Load(); n != 2 {
					t.Errorf("%d requests arrived for two calls, want 2", n)
				}
			})
		}
	})
}

// llama.cpp's server closes a connection that it promised to keep, and does so when
// the next request may be under way.
func TestServerClosesKeptConnections(t *testing.T) {
	eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
		for name, closes := range map[string]func(*net.TCPConn) bool{
			"after the answer":         func(*net.TCPConn) bool { return false },
			"after the second request": func(*net.TCPConn) bool { return true },
		} {
			t.Run(name, func(t *testing.T) {
				address, posts := rawServer(t, func(conn *net.TCPConn, nth int) bool {
					if nth > 1 {
						reset(conn)
						return false
					}
					answerKept(conn)
					return closes(conn)
				})
				c := client(t, address, kept)
				const calls = 150
				for i := range calls {
					if err := callOnce(context.Background(), c); err != nil {
						t.Fatalf("call %d: %v", i+1, err)
					}
				}
				if n := posts.Load(); n > 2*calls {
					t.Errorf("%d requests arrived for %d calls", n, calls)
				}
			})
		}
	})
}

func TestHTTP2ConnectionsAreProbed(t *testing.T) {
	base, _ := url.Parse("https://up.test")
	rotated := newStandard(Options{HTTP2: true, Lifetime: time.Hour}, base)
	for name, rt := range map[string]http.RoundTripper{
		"plain": newStandard(Options{HTTP2: true}, base).client, "fresh": rotated.fresh, "rotating": rotated.client.(*rotating).now.Load().Clone(),
	} {
		h := rt.(*http.Transport).HTTP2
		if h == nil || h.SendPingTimeout != 30*time.Second || h.PingTimeout != 15*time.Second {
			t.Errorf("%s: %+v", name, h)
		}
	}
}
