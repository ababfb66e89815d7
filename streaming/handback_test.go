package streaming_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// lines is an encoder of one line for each event.
type lines struct{}

func (lines) Append(dst []byte, ev *streaming.Event) ([]byte, error) {
	return append(append(dst, ev.Text...), '\n'), nil
}
func (lines) AppendHeartbeat(dst []byte) []byte { return dst }
func (lines) AppendEnd(dst []byte, err error) []byte {
	if err != nil {
		return append(dst, "failed\n"...)
	}
	return append(dst, "done\n"...)
}

// takenOver serves answers whose connections are taken over at their second write. Each
// answer sends the texts that steps gives; ends tells how each ended.
func takenOver(t *testing.T, idle time.Duration, steps <-chan string) (addr string, srv *http.Server, ends <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	back := streaming.NewHandback(ln.Addr(), 2, idle)
	ended := make(chan error, 16)
	srv = &http.Server{ReadHeaderTimeout: 200 * time.Millisecond, IdleTimeout: idle, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, gone := context.WithCancelCause(r.Context())
		defer gone(nil)
		sink := streaming.NewSSE(w, 1, lines{}, time.Minute, &streaming.Takeover{Home: back, Gone: gone})
		ended <- streaming.Relay{}.Run(ctx, func(ctx context.Context) streaming.Stream {
			return func(yield func([]streaming.Event, error) bool) {
				for {
					select {
					case s := <-steps:
						if s == "end" {
							return
						}
						if s == "fail" {
							yield(nil, errors.New("boom"))
							return
						}
						if !yield(streamtest.Text(0, s), nil) {
							return
						}
					case <-ctx.Done():
						yield(nil, ctx.Err())
						return
					}
				}
			}
		}, sink, streaming.NewProgress(time.Now()))
	})}
	for _, l := range []net.Listener{ln, back} {
		go func() { _ = srv.Serve(l) }()
	}
	t.Cleanup(func() { _ = srv.Close() })
	return ln.Addr().String(), srv, ended
}

func dialRaw(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

const ask = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// readAnswer reads one answer; its framing must be right or http.ReadResponse fails.
func readAnswer(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%v behind %q", err, body)
	}
	return string(body)
}

func feed(steps chan<- string, texts ...string) {
	for _, s := range texts {
		steps <- s
	}
}

// Several long answers on one connection, each taken over; the later requests may even
// be there before the answer in front of them has ended.
func TestTakenOverConnectionServesAgain(t *testing.T) {
	for name, ahead := range map[string]bool{"one after the other": false, "pipelined": true} {
		t.Run(name, func(t *testing.T) {
			steps := make(chan string)
			addr, _, ends := takenOver(t, time.Minute, steps)
			c, r := dialRaw(t, addr)
			big := strings.Repeat("x", 200<<10)
			const answers = 4
			for i := range answers {
				if !ahead || i == 0 {
					_, _ = io.WriteString(c, ask)
				}
				if ahead && i == 0 {
					_, _ = io.WriteString(c, strings.Repeat(ask, answers-1))
				}
				go feed(steps, "a", "b", "c", big, "d", "end")
				if got, want := readAnswer(t, r), "a\nb\nc\n"+big+"\nd\ndone\n"; got != want {
					t.Fatalf("answer %d has %d bytes, want %d", i, len(got), len(want))
				}
				if err := <-ends; err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A failure is told in-band and ends the body in order.
func TestTakenOverFailure(t *testing.T) {
	steps := make(chan string)
	addr, _, _ := takenOver(t, time.Minute, steps)
	c, r := dialRaw(t, addr)
	for range 2 {
		_, _ = io.WriteString(c, ask)
		go feed(steps, "a", "b", "c", "fail")
		if got := readAnswer(t, r); got != "a\nb\nc\nfailed\n" {
			t.Errorf("%q", got)
		}
	}
}

func TestTakenOverClientLeaves(t *testing.T) {
	steps := make(chan string)
	addr, _, ends := takenOver(t, time.Minute, steps)
	c, r := dialRaw(t, addr)
	_, _ = io.WriteString(c, ask)
	feed(steps, "a", "b", "c")
	if _, err := http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	select {
	case err := <-ends:
		if !errors.Is(err, streaming.ErrClientGone) {
			t.Errorf("%v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("nobody saw the client leave")
	}
}

// A connection that was handed back may idle for longer than a new one may take to
// send its first head, but not for ever; a head that has begun must come in time.
func TestReturnedConnectionIdles(t *testing.T) {
	steps := make(chan string)
	addr, _, _ := takenOver(t, 700*time.Millisecond, steps)
	answer := func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, ask)
		go feed(steps, "a", "b", "c", "end")
		readAnswer(t, r)
	}
	for name, head := range map[string]string{"silent": "", "half a head": "GET / HTTP/1.1\r\nHo"} {
		t.Run(name, func(t *testing.T) {
			c, r := dialRaw(t, addr)
			answer(c, r)
			start := time.Now()
			_, _ = io.WriteString(c, head)
			_, _ = io.Copy(io.Discard, r)
			took := time.Since(start)
			if head == "" && (took < 600*time.Millisecond || took > 5*time.Second) || head != "" && (took < 150*time.Millisecond || took > 600*time.Millisecond) {
				t.Errorf("closed after %v", took)
			}
		})
	}
	c, r := dialRaw(t, addr)
	answer(c, r)
	timer := time.NewTimer(400 * time.Millisecond) // more than ReadHeaderTimeout
	<-timer.C
	answer(c, r)
}

// Shutdown takes idle connections that were handed back for what they are.
func TestShutdownClosesReturnedConnections(t *testing.T) {
	steps := make(chan string)
	addr, srv, ends := takenOver(t, time.Minute, steps)
	c, r := dialRaw(t, addr)
	_, _ = io.WriteString(c, ask)
	go feed(steps, "a", "b", "c", "end")
	readAnswer(t, r)
	<-ends
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the connection is still open")
	}
}
