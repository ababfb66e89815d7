package openai

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// rawServer speaks HTTP/1.1 with next to nothing in between: serve is called for
// each request of each connection and reports whether the connection goes on.
func rawServer(t *testing.T, serve func(conn *net.TCPConn, nth int) bool) (url string, posts *atomic.Int64) {
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

func callOnce(ctx context.Context, t *testing.T, p *Provider) error {
	t.Helper()
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(`{"model":"m","messages":[{}]}`), 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range p.Target("m").Stream(ctx, req, streaming.NewProgress(time.Now())) {
		if err != nil {
			return err
		}
	}
	return nil
}

func rawProvider(t *testing.T, url string) *Provider {
	p := New(Options{Name: "up", BaseURL: url, MaxAnswer: 1 << 20, Transport: TransportOptions{IdleConns: 64, IdleTimeout: time.Minute}})
	t.Cleanup(p.client.(*http.Transport).CloseIdleConnections)
	return p
}

// A server that reads the request and then resets gets it twice at most, however
// many connections are kept.
func TestRequestIsRepeatedOnce(t *testing.T) {
	const kept = 8
	var arrived sync.WaitGroup
	arrived.Add(kept)
	var broken atomic.Bool
	url, posts := rawServer(t, func(conn *net.TCPConn, nth int) bool {
		if broken.Load() {
			reset(conn)
			return false
		}
		arrived.Done()
		arrived.Wait() // so that each call needs a connection of its own
		answerKept(conn)
		return true
	})
	p := rawProvider(t, url)
	var calls sync.WaitGroup
	for range kept {
		calls.Go(func() {
			if err := callOnce(context.Background(), t, p); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	broken.Store(true)
	before := posts.Load()
	err := callOnce(context.Background(), t, p)
	if e := providers.AsError(err); e == nil || e.Kind != providers.Unreachable {
		t.Errorf("%v, want an unreachable upstream", err)
	}
	if n := posts.Load() - before; n != 2 {
		t.Errorf("%d requests arrived for one call, want 2", n)
	}
}

// A new connection that breaks is the server's verdict on the request: no repeat.
func TestRequestOnANewConnectionIsNotRepeated(t *testing.T) {
	url, posts := rawServer(t, func(conn *net.TCPConn, _ int) bool {
		reset(conn)
		return false
	})
	if err := callOnce(context.Background(), t, rawProvider(t, url)); err == nil {
		t.Error("no error")
	}
	if n := posts.Load(); n != 1 {
		t.Errorf("%d requests arrived, want 1", n)
	}
}

// Nothing is repeated behind the first byte of an answer, nor for a caller who left.
func TestRequestIsNotRepeatedNeedlessly(t *testing.T) {
	for name, second := range map[string]func(*net.TCPConn, context.CancelFunc){
		"answered": func(conn *net.TCPConn, _ context.CancelFunc) {
			_, _ = io.WriteString(conn, "HTTP/1.1 2")
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
			url, posts := rawServer(t, func(conn *net.TCPConn, nth int) bool {
				if nth == 1 {
					answerKept(conn)
					return true
				}
				second(conn, cancel)
				return false
			})
			p := rawProvider(t, url)
			if err := callOnce(context.Background(), t, p); err != nil {
				t.Fatal(err)
			}
			if err := callOnce(ctx, t, p); err == nil {
				t.Error("no error")
			}
			if n := posts.Load(); n != 2 {
				t.Errorf("%d requests arrived for two calls, want 2", n)
			}
		})
	}
}

// llama.cpp's server closes a connection that it promised to keep, and does so when
// the next request may be under way.
func TestServerClosesKeptConnections(t *testing.T) {
	for name, closes := range map[string]func(*net.TCPConn) bool{
		"after the answer":         func(*net.TCPConn) bool { return false },
		"after the second request": func(*net.TCPConn) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			url, posts := rawServer(t, func(conn *net.TCPConn, nth int) bool {
				if nth > 1 {
					reset(conn)
					return false
				}
				answerKept(conn)
				return closes(conn)
			})
			p := rawProvider(t, url)
			const calls = 150
			for i := range calls {
				if err := callOnce(context.Background(), t, p); err != nil {
					t.Fatalf("call %d: %v", i+1, err)
				}
			}
			if n := posts.Load(); n > 2*calls {
				t.Errorf("%d requests arrived for %d calls", n, calls)
			}
		})
	}
}

func TestHTTP2ConnectionsAreProbed(t *testing.T) {
	for name, rt := range map[string]http.RoundTripper{
		"plain": newTransport(TransportOptions{HTTP2: true}), "fresh": freshTransport(TransportOptions{HTTP2: true}),
		"rotating": newTransport(TransportOptions{HTTP2: true, Lifetime: time.Hour}).(*rotating).now.Load().Clone(),
	} {
		h := rt.(*http.Transport).HTTP2
		if h == nil || h.SendPingTimeout != 30*time.Second || h.PingTimeout != 15*time.Second {
			t.Errorf("%s: %+v", name, h)
		}
	}
}
