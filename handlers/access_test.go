package handlers

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAccessLogWritesAllItTook(t *testing.T) {
	var out bytes.Buffer
	a := NewAccessLog(&out, false, 100, nil)
	for range 50 {
		a.add(&accessLine{id: "req_1", op: "chat", end: endOK})
	}
	a.Close()
	if n := strings.Count(out.String(), "req_1"); n+int(a.Dropped()) != 50 || n == 0 {
		t.Errorf("%d lines written, %v dropped", n, a.Dropped())
	}
	a.add(&accessLine{op: "chat"}) // an answer may outlive the log
	a.Close()
}

// A log that cannot keep up drops lines and says how many; it never holds an answer up.
func TestAccessLogIsBounded(t *testing.T) {
	w := &stuck{release: make(chan struct{})}
	a := NewAccessLog(w, false, 4, nil)
	done := make(chan struct{})
	go func() {
		for range 100 {
			a.add(&accessLine{op: "chat"})
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a full log blocks")
	}
	if a.Dropped() < 90 {
		t.Errorf("%v dropped of 100 with room for 4", a.Dropped())
	}
	close(w.release)
	a.Close()
}

type stuck struct {
	release chan struct{}
	mu      sync.Mutex
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(p), nil
}
