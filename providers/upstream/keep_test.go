package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What a connection brings while it is idle belongs to no call.
func TestUnsolicitedBytes(t *testing.T) {
	for name, spoil := range map[string]func(*net.TCPConn){
		"an answer":     func(conn *net.TCPConn) { _, _ = io.WriteString(conn, lengthHead(6)+"stolen") },
		"a byte":        func(conn *net.TCPConn) { _, _ = io.WriteString(conn, "H") },
		"408 and close": func(conn *net.TCPConn) { _, _ = io.WriteString(conn, "HTTP/1.1 408 \r\n\r\n"); _ = conn.CloseWrite() },
		"the end":       func(conn *net.TCPConn) { _ = conn.Close() },
		"half the end":  func(conn *net.TCPConn) { _ = conn.CloseWrite() },
		"a reset":       reset,
	} {
		t.Run(name, func(t *testing.T) {
			conns := make(chan *net.TCPConn, 2)
			address, posts := rawServer(t, func(conn *net.TCPConn, _ int) bool {
				answerKept(conn)
				conns <- conn
				return true
			})
			o := kept
			o.Name, o.BaseURL = "up", address
			c := New(o)
			defer c.CloseIdle()
			mustCall(t, c)
			spoil(<-conns)
			idle := c.via.(*plain).pool.conns[0]
			eventually(t, "it arrives", func() bool { return !idle.quiet() })
			mustCall(t, c)
			if n := posts.Load(); n != 2 {
				t.Errorf("%d requests for two calls", n)
			}
			if <-conns; idle.quiet() {
				t.Error("the connection is still open")
			}
		})
	}
}

// A reader that goes on behind Close must not get what belongs to the next call.
func TestReadBehindClose(t *testing.T) {
	for _, finished := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{serve: serveKept}
			c := n.over("plain", kept)
			defer c.CloseIdle()
			a := open(t, c)
			a.Close(finished)
			if k, err := a.Body.Read(make([]byte, 100)); k != 0 || !errors.Is(err, errOver) {
				t.Errorf("%d bytes, %v", k, err)
			}
			b := open(t, c)
			if k, err := a.Body.Read(make([]byte, 100)); k != 0 || !errors.Is(err, errOver) {
				t.Errorf("%d bytes of the next answer, %v", k, err)
			}
			readAll(t, b)
		})
	}
}

// A second Close neither closes what serves the next call nor frees its slot.
func TestCloseTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{serve: serveKept}
		o := kept
		o.MaxConns = 1
		c := n.over("plain", o)
		defer c.CloseIdle()
		a := open(t, c)
		readAll(t, a)
		b := open(t, c)
		a.Close(false)
		if taken := len(c.via.(*plain).slots); taken != 1 {
			t.Errorf("%d slots taken, want 1", taken)
		}
		readAll(t, b)
		n.check(t, "afterwards", 1, 1)
	})
}

// TestNoCallReadsAnothers lets calls at once run against a server that breaks its
// answers in every way, and behind whose answers more may stand. Whatever a call gets
// is its own.
func TestNoCallReadsAnothers(t *testing.T) {
	address, _ := namingServer(t)
	o := kept
	o.MaxConns, o.IdleConns = 8, 8
	o.Name, o.BaseURL = "up", address
	c := New(o)
	defer c.CloseIdle()
	var calls sync.WaitGroup
	var whole [16]int
	for worker := range whole {
		calls.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for nth := range 150 {
				id := fmt.Sprintf("%d-%d", worker, nth)
				ctx, cancel := context.WithCancel(context.Background())
				if random.IntN(10) == 0 {
					time.AfterFunc(time.Duration(random.IntN(500))*time.Microsecond, cancel)
				}
				size := []int{0, 100, inlineBody + 1, 200 << 10}[random.IntN(4)]
				a, err := c.Do(ctx, &Request{Method: http.MethodPost, Path: "/" + id + "/" + strconv.Itoa(random.IntN(12)), Body: make([]byte, size)})
				if err == nil {
					text, err := io.ReadAll(a.Body)
					for part := range strings.SplitSeq(strings.TrimSuffix(string(text), "."), ".") {
						if !strings.HasPrefix(id, part) {
							t.Errorf("%s got %q", id, text)
						}
					}
					a.Close(err == nil || random.IntN(2) == 0)
					if err == nil && string(text) == id+"."+id+"." {
						whole[worker]++
					}
				}
				cancel()
			}
		})
	}
	calls.Wait()
	for worker, n := range whole {
		if n < 50 {
			t.Errorf("worker %d got %d answers", worker, n)
		}
	}
}

// namingServer answers with the first part of a request's path, twice, in the way that
// the second part says.
func namingServer(t *testing.T) (address string, ways int) {
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	forms := []func(conn *net.TCPConn, id string) bool{
		func(c *net.TCPConn, id string) bool { return say(c, lengthHead(2*len(id)), id, id) },
		func(c *net.TCPConn, id string) bool { return say(c, chunkedHead, chunk(id), chunk(id), "0\r\n\r\n") },
		func(c *net.TCPConn, id string) bool { return say(c, chunkedHead+chunk(id)+chunk(id)+"0\r\n\r\n") },
		func(c *net.TCPConn, id string) bool { return say(c, okHead+"\r\n", id, id) && false },
		func(c *net.TCPConn, id string) bool {
			return say(c, lengthHead(2*len(id))+id+id+lengthHead(6)+"stolen")
		},
		func(c *net.TCPConn, id string) bool {
			return say(c, chunkedHead+chunk(id)+chunk(id)+"0\r\n\r\n"+lengthHead(6)+"stolen")
		},
		func(c *net.TCPConn, id string) bool { return say(c, lengthHead(2*len(id)), id) && false },
		func(c *net.TCPConn, id string) bool { return say(c, chunkedHead, chunk(id)) && false },
		func(c *net.TCPConn, id string) bool { _ = say(c, chunkedHead, chunk(id)); reset(c); return false },
		func(c *net.TCPConn, id string) bool {
			return say(c, "HTTP/1.1 103 \r\n\r\n", lengthHead(2*len(id)), id+id)
		},
		func(c *net.TCPConn, id string) bool { return say(c, okHead+"Content-Length: x\r\n\r\n") },
		func(c *net.TCPConn, id string) bool {
			return say(c, okHead+"Connection: close\r\n\r\n", id, id) && false
		},
	}
	server := headServer(t, func(conn *net.TCPConn, _ *bufio.Reader, r *http.Request) bool {
		id, form, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		n, _ := strconv.Atoi(form)
		if len(id)%3 == 0 || n%2 == 0 { // else it answers before it has read the body
			_, _ = io.Copy(io.Discard, r.Body)
			return forms[n](conn, id+".")
		}
		ok := forms[n](conn, id+".")
		_, _ = io.Copy(io.Discard, r.Body)
		return ok
	})
	return server, len(forms)
}

func say(conn *net.TCPConn, parts ...string) bool {
	for _, p := range parts {
		if _, err := io.WriteString(conn, p); err != nil {
			return false
		}
	}
	return true
}

// openFiles counts descriptors, where the system tells; else it is 0.
func openFiles() int {
	names, _ := os.ReadDir("/proc/self/fd")
	return len(names)
}

// TestNothingIsLeft ends 2,000 exchanges in all ways.
func TestNothingIsLeft(t *testing.T) {
	log.SetOutput(io.Discard) // net/http tells of each surplus
	defer log.SetOutput(os.Stderr)
	eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
		address, forms := namingServer(t)
		o := kept
		o.MaxConns = 16
		c := client(t, address, o)
		goroutines, files := runtime.NumGoroutine(), openFiles()
		var calls sync.WaitGroup
		for worker := range 8 {
			calls.Go(func() {
				random := rand.New(rand.NewPCG(2, uint64(worker)))
				for nth := range 250 {
					ctx, cancel := context.WithCancel(context.Background())
					if nth%5 == 0 {
						time.AfterFunc(time.Duration(random.IntN(1000))*time.Microsecond, cancel)
					}
					size := []int{0, 100, 100 << 10}[random.IntN(3)]
					a, err := c.Do(ctx, &Request{Method: http.MethodPost, Path: "/x/" + strconv.Itoa(nth%forms), Body: make([]byte, size)})
					if err == nil {
						_, err = io.CopyN(io.Discard, a.Body, int64(random.IntN(10)))
						a.Close(err == nil && random.IntN(2) == 0)
					}
					cancel()
				}
			})
		}
		calls.Wait()
		if h, ok := c.via.(*plain); ok {
			eventually(t, "the slots are free", func() bool { return len(h.slots) == 0 })
		}
		c.CloseIdle()
		eventually(t, "goroutines and descriptors are back to start", func() bool {
			return runtime.NumGoroutine() <= goroutines && openFiles() <= files
		})
	})
}

// TestRoundTrips goes to a real server and back.
func TestRoundTrips(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		piece, _ := strconv.Atoi(r.URL.Query().Get("piece"))
		if piece == 0 {
			w.Header().Set("Content-Length", strconv.Itoa(len(text)))
			_, _ = w.Write(text)
			return
		}
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(http.StatusOK)
		for len(text) > 0 {
			n := min(piece, len(text))
			_, _ = w.Write(text[:n])
			w.(http.Flusher).Flush()
			text = text[n:]
		}
		w.Header().Set("X-Sum", "1")
	}))
	defer server.Close()
	eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
		c := client(t, server.URL, kept)
		random := rand.New(rand.NewPCG(3, 0))
		for range 300 {
			size, piece := random.IntN(1<<random.IntN(18)), 0
			if random.IntN(3) > 0 {
				piece = 1 + size/(1+random.IntN(50))
			}
			sent := make([]byte, size)
			for i := range sent {
				sent[i] = byte(random.Uint32())
			}
			a, err := c.Do(context.Background(), &Request{Method: http.MethodPost, Path: "/?piece=" + strconv.Itoa(piece), Body: sent})
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(a.Body)
			a.Close(err == nil)
			if err != nil || string(got) != string(sent) {
				t.Fatalf("%d bytes of %d in pieces of %d: %v", len(got), size, piece, err)
			}
		}
		if h, ok := c.via.(*plain); ok && len(h.pool.conns) != 1 {
			t.Errorf("%d connections, want 1", len(h.pool.conns))
		}
	})
}
