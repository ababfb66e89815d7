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

// serveAnswers serves answers of the texts that steps gives, straight to their connections;
// ends tells how each ended.
func serveAnswers(t *testing.T, limit time.Duration, steps <-chan string) (addr string, ends <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 16)
	srv := &http.Server{ConnContext: streaming.WithConn, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := streaming.ConnOf(r.Context())
		if conn == nil {
			t.Error("no connection")
		}
		sink := streaming.NewSSE(w, 1, lines{}, limit, conn)
		ended <- streaming.Relay{}.Run(r.Context(), func(ctx context.Context) streaming.Stream {
			return fed(ctx, steps)
		}, sink, streaming.NewProgress(time.Now()))
	})}
	go func() { _ = srv.Serve(streaming.Listen(ln)) }()
	t.Cleanup(func() { _ = srv.Close() })
	return ln.Addr().String(), ended
}

// fed yields the texts of steps until "end" or "fail".
func fed(ctx context.Context, steps <-chan string) streaming.Stream {
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

// Several answers on one connection; the later requests may even be there before the
// answer in front of them has ended.
func TestConnectionServesAgain(t *testing.T) {
	for name, ahead := range map[string]bool{"one after the other": false, "pipelined": true} {
		t.Run(name, func(t *testing.T) {
			steps := make(chan string)
			addr, ends := serveAnswers(t, time.Minute, steps)
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

// The body of an answer ends with its last event, before the handler has returned, and
// only once: what follows on the connection is the next answer's head. An answer of one
// write is net/http's, and ends with its handler.
func TestLastChunk(t *testing.T) {
	for _, texts := range [][]string{{"end"}, {"a", "end"}, {"a", "b", "end"}} {
		returns, steps := make(chan bool, 1), make(chan string, len(texts))
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{ConnContext: streaming.WithConn, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sink := streaming.NewSSE(w, 1, lines{}, time.Minute, streaming.ConnOf(r.Context()))
			_ = streaming.Relay{}.Run(r.Context(), func(ctx context.Context) streaming.Stream { return fed(ctx, steps) }, sink, streaming.NewProgress(time.Now()))
			<-returns
		})}
		go func() { _ = srv.Serve(streaming.Listen(ln)) }()
		c, r := dialRaw(t, ln.Addr().String())
		want := strings.Join(append(texts[:len(texts)-1:len(texts)-1], "done"), "\n") + "\n"
		for range 3 {
			_, _ = io.WriteString(c, ask)
			feed(steps, texts...)
			alone := len(texts) == 1
			if alone {
				returns <- true
			}
			if got := readAnswer(t, r); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			if !alone {
				returns <- true
			}
		}
		_ = srv.Close()
	}
}

// A failure is told in-band and ends the body in order.
func TestConnectionFailure(t *testing.T) {
	steps := make(chan string)
	addr, _ := serveAnswers(t, time.Minute, steps)
	c, r := dialRaw(t, addr)
	for range 2 {
		_, _ = io.WriteString(c, ask)
		go feed(steps, "a", "b", "c", "fail")
		if got := readAnswer(t, r); got != "a\nb\nc\nfailed\n" {
			t.Errorf("%q", got)
		}
	}
}

func TestConnectionClientLeaves(t *testing.T) {
	steps := make(chan string)
	addr, ends := serveAnswers(t, time.Minute, steps)
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

// A client that reads no more is cut, and its connection does not look like one whose
// answer ended in order.
func TestConnectionSlowClient(t *testing.T) {
	steps := make(chan string)
	addr, ends := serveAnswers(t, 100*time.Millisecond, steps)
	c, r := dialRaw(t, addr)
	_, _ = io.WriteString(c, ask)
	feed(steps, "a", "b")
	go func() { steps <- strings.Repeat("x", 32<<20) }()
	if err := <-ends; !errors.Is(err, streaming.ErrSlow) {
		t.Errorf("%v", err)
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Error("the body ends as if it were whole")
	}
}

// Over TLS net/http has the connection to itself.
func TestConnOfOther(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if streaming.ConnOf(streaming.WithConn(t.Context(), a)) != nil {
		t.Error("a connection that Listen did not make")
	}
}
