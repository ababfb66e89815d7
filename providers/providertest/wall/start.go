package wall

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// Server is a wall that listens. Its Wall outlives it: closing the server and listening again on the same address is
// an upstream that dies and comes back.
type Server struct {
	Addr string // host:port
	http *http.Server
	done chan struct{}
}

// Listen serves w on a TCP address; port 0 takes a free one.
func Listen(addr string, w *Wall) (*Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening for the wall: %w", err)
	}
	s := &Server{
		Addr: ln.Addr().String(),
		http: &http.Server{Handler: w, ConnState: w.ConnState, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)},
		done: make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		// Serve ends with Close and with nothing else, as far as a loopback listener goes.
		_ = s.http.Serve(ln)
	}()
	return s, nil
}

// URL returns the base URL that clients use: http://host:port/v1.
func (s *Server) URL() string { return "http://" + s.Addr + "/v1" }

// Close stops listening and breaks every connection, as a process that dies does. It returns when the listener is gone.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	if err != nil {
		return fmt.Errorf("closing the wall: %w", err)
	}
	return nil
}

// TB is the part of testing.TB that Start needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Start serves a new wall on a free loopback port until the test ends, and returns its base URL (which ends in /v1).
func Start(t TB, options ...Option) (baseURL string, w *Wall) {
	t.Helper()
	w = New(options...)
	s, err := Listen("127.0.0.1:0", w)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if _, err := w.AwaitStats(ctx, func(s Stats) bool { return s.Active == 0 && s.Conns == 0 }); err != nil {
			t.Fatalf("the wall did not come to rest: %v", err)
		}
	})
	return s.URL(), w
}
