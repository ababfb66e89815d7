package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/providers"
)

// headServer is a rawServer that leaves the body of a request to serve: in its reader,
// or as it comes in.
func headServer(t *testing.T, serve func(conn *net.TCPConn, in *bufio.Reader, r *http.Request) bool) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if !serve(conn.(*net.TCPConn), in, r) {
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
	return "http://" + ln.Addr().String()
}

const tooLarge = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large"

// eventually waits for something that can only be observed.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not within ten seconds: %s", what)
		}
	}
}

// A server that refuses 25 MiB by their head alone and reads nothing of them: its answer
// arrives, the call ends, and nothing is left of it.
func TestAnswerBeforeTheBodyIsSent(t *testing.T) {
	for name, then := range map[string]func(*net.TCPConn){
		"waits":      func(conn *net.TCPConn) {},
		"half close": func(conn *net.TCPConn) { _ = conn.CloseWrite() },
	} {
		for _, finished := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
					gone := make(chan struct{})
					address := headServer(t, func(conn *net.TCPConn, _ *bufio.Reader, _ *http.Request) bool {
						_, _ = io.WriteString(conn, tooLarge)
						then(conn)
						<-gone
						return false
					})
					o := kept
					o.MaxConns = 1
					c := client(t, address, o)
					before := runtime.NumGoroutine()
					a, err := c.Do(context.Background(), &Request{Method: http.MethodPost, Path: "/x", Body: make([]byte, 25<<20)})
					if err != nil {
						t.Fatal(err)
					}
					text, err := io.ReadAll(a.Body)
					if a.Status != 413 || string(text) != "too large" || err != nil {
						t.Errorf("%d %q %v", a.Status, text, err)
					}
					a.Close(finished)
					if h, ok := c.via.(*plain); ok && len(h.pool.conns)+len(h.slots) != 0 {
						t.Errorf("%d connections kept, %d slots taken", len(h.pool.conns), len(h.slots))
					}
					eventually(t, "the sender ends", func() bool { return runtime.NumGoroutine() <= before+1 }) // the server's
					close(gone)
				})
			})
		}
	}
}

// A server that breaks the connection while it is sent to.
func TestResetWhileTheBodyIsSent(t *testing.T) {
	eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
		var times atomic.Int64
		address := headServer(t, func(conn *net.TCPConn, in *bufio.Reader, r *http.Request) bool {
			times.Add(1)
			_, _ = io.CopyN(io.Discard, in, 64<<10)
			reset(conn)
			return false
		})
		c := client(t, address, kept)
		_, err := c.Do(context.Background(), &Request{Method: http.MethodPost, Path: "/x", Body: make([]byte, 25<<20)})
		if e := providers.AsError(err); e == nil || e.Kind != providers.Unreachable {
			t.Errorf("%v, want an unreachable upstream", err)
		}
		if n := times.Load(); n != 1 {
			t.Errorf("sent %d times", n)
		}
	})
}

// A caller may use the body again as soon as the answer is closed.
func TestBodyIsTheCallersAgain(t *testing.T) {
	over := make(chan struct{})
	address := headServer(t, func(conn *net.TCPConn, _ *bufio.Reader, _ *http.Request) bool {
		_, _ = io.WriteString(conn, chunkedHead+"5\r\nhello\r\n") // and no end
		<-over
		return false
	})
	defer close(over)
	o := kept
	o.Name, o.BaseURL = "up", address
	c := New(o)
	body := make([]byte, 8<<20)
	for i := range 20 {
		a, err := c.Do(context.Background(), &Request{Method: http.MethodPost, Path: "/x", Body: body})
		if err != nil {
			t.Fatal(err)
		}
		a.Close(i%2 == 0)
		for j := 0; j < len(body); j += 1 << 10 {
			body[j]++ // the race detector tells
		}
	}
}

// The same holds for a call that has failed.
func TestBodyIsTheCallersAgainBehindAFailure(t *testing.T) {
	over := make(chan struct{})
	address := headServer(t, func(conn *net.TCPConn, _ *bufio.Reader, _ *http.Request) bool {
		<-over
		return false
	})
	defer close(over)
	o := kept
	o.Name, o.BaseURL = "up", address
	c := New(o)
	body := make([]byte, 8<<20)
	for range 10 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		if _, err := c.Do(ctx, &Request{Method: http.MethodPost, Path: "/x", Body: body}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
		for j := 0; j < len(body); j += 1 << 10 {
			body[j]++
		}
	}
}

// Large bodies arrive whole, on kept connections.
func TestLargeBodies(t *testing.T) {
	eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
		address := headServer(t, func(conn *net.TCPConn, in *bufio.Reader, r *http.Request) bool {
			text, err := io.ReadAll(r.Body)
			_, _ = io.WriteString(conn, lengthHead(len(text)))
			_, _ = conn.Write(text)
			return err == nil
		})
		c := client(t, address, kept)
		for _, size := range []int{0, 1, inlineBody - 1, inlineBody, inlineBody + 1, 100 << 10, 1 << 20, 5 << 20} {
			sent := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
			for range 4 {
				a, err := c.Do(context.Background(), &Request{Method: http.MethodPost, Path: "/x", Body: sent})
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(a.Body)
				a.Close(err == nil)
				if err != nil || !bytes.Equal(got, sent) {
					t.Fatalf("%d bytes of %d came back, %v", len(got), size, err)
				}
			}
		}
		if h, ok := c.via.(*plain); ok && len(h.pool.conns) != 1 {
			t.Errorf("%d connections kept, want 1", len(h.pool.conns))
		}
	})
}

// halting is a connection that takes the head of a request and not its body.
type halting struct {
	net.Conn
	writes atomic.Int64
}

func (h *halting) Write(b []byte) (int, error) {
	if h.writes.Add(1) > 1 {
		return 0, errors.New("broken pipe")
	}
	return h.Conn.Write(b)
}

// A connection whose request was not sent whole is not used again, whatever the answer.
func TestHalfARequestIsNotKept(t *testing.T) {
	c := New(Options{Name: "up", BaseURL: "http://up.test", IdleConns: 1})
	dialTo(c, func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
				_, _ = io.WriteString(theirs, lengthHead(5)+"hello")
			}
		}()
		return &halting{Conn: ours}, nil
	})
	a, err := c.Do(context.Background(), &Request{Method: http.MethodPost, Path: "/x", Body: make([]byte, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(a.Body)
	if err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
	<-a.end.(*exchange).upload
	a.Close(true)
	if n := len(c.via.(*plain).pool.conns); n != 0 {
		t.Error("the connection is kept")
	}
}

// refusing is a connection whose writes fail although its server has answered.
type refusing struct{ net.Conn }

func (refusing) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// A server may answer and close before it is asked: that it is overloaded, say.
func TestAnswerWithoutAQuestion(t *testing.T) {
	o := Options{Name: "up", BaseURL: "http://up.test", IdleConns: 1}
	c := New(o)
	for answer, status := range map[string]int{"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n": 503, "": 0} {
		dialTo(c, func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				_, _ = io.WriteString(theirs, answer)
				_ = theirs.Close()
			}()
			return refusing{ours}, nil
		})
		a, err := c.Do(context.Background(), &Request{Method: http.MethodPost})
		if status == 0 {
			if e := providers.AsError(err); e == nil || e.Kind != providers.Unreachable {
				t.Errorf("%v, want an unreachable upstream", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if a.Status != status {
			t.Errorf("status %d", a.Status)
		}
		a.Close(true)
		if n := len(c.via.(*plain).pool.conns); n != 0 {
			t.Error("the connection is kept")
		}
	}
}
