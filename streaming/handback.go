package streaming

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Handback is a net.Listener whose connections were served before: an SSE sink takes
// the connection of a long answer over from net/http, whose layers cost more for each
// token than the token's own way through the gateway, and hands it back when the answer
// has ended. Serve it by the same http.Server as the connections came from. Safe for
// concurrent use.
type Handback struct {
	// After is how many writes an answer has made when its connection is taken over; a
	// short answer is cheaper where it is.
	After int
	// Idle is how long a client may keep its connection without a further request.
	Idle time.Duration

	back chan net.Conn
	done chan struct{}
	addr net.Addr

	mu     sync.Mutex
	idle   map[*returned]struct{} // without a further request so far
	closed bool
}

// NewHandback returns a listener that is not bound to a socket; addr is what Addr tells.
func NewHandback(addr net.Addr, after int, idle time.Duration) *Handback {
	return &Handback{After: after, Idle: idle, back: make(chan net.Conn), done: make(chan struct{}), addr: addr, idle: map[*returned]struct{}{}}
}

// Accept implements net.Listener.
func (h *Handback) Accept() (net.Conn, error) {
	select {
	case c := <-h.back:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close ends the connections that wait for a request: to http.Server.Shutdown they are
// new ones, for which it would wait. Those of running answers end with their answers.
func (h *Handback) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	close(h.done)
	for r := range h.idle {
		_ = r.Conn.Close()
	}
	return nil
}

// Addr implements net.Listener.
func (h *Handback) Addr() net.Addr { return h.addr }

// give hands a connection to the server, or closes it when that has stopped.
func (h *Handback) give(r *returned) {
	h.mu.Lock()
	closed := h.closed
	if !closed {
		h.idle[r] = struct{}{}
	}
	h.mu.Unlock()
	if closed {
		_ = r.Conn.Close()
		return
	}
	select {
	case h.back <- r:
	case <-h.done: // Close has closed it
	}
}

func (h *Handback) awake(r *returned) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.idle, r)
}

// take starts to watch conn, whose reader had read ahead.
func (h *Handback) take(conn net.Conn, ahead []byte, gone func(error)) *taken {
	if before, ok := conn.(*returned); ok {
		conn = before.Conn
	}
	t := &taken{Conn: conn, home: h, gone: gone, ahead: ahead}
	if len(ahead) == 0 { // else the client's next request is here, and net/http would not look further either
		t.watched = make(chan struct{})
		go t.watch()
	}
	return t
}

// taken is a connection in the hands of an answer. One goroutine reads one byte of it,
// to see the client leave; the byte belongs to the client's next request.
type taken struct {
	net.Conn
	home *Handback
	gone func(error) // called once, if the client leaves before the end

	ending  atomic.Bool
	watched chan struct{} // closed when the watcher has ended; nil: there is none
	ahead   []byte        // read and not asked for
	lost    error         // of the read
}

func (t *taken) watch() {
	defer close(t.watched)
	var b [1]byte
	n, err := t.Conn.Read(b[:])
	t.ahead = append(t.ahead, b[:n]...)
	if n == 0 {
		t.lost = err
		if !t.ending.Load() {
			t.gone(errors.Join(ErrClientGone, err))
		}
	}
}

// end is called after the last write of a complete answer and hands the connection back.
func (t *taken) end() {
	t.ending.Store(true)
	if t.watched != nil {
		_ = t.SetReadDeadline(time.Unix(1, 0)) // ends the watcher's read
		<-t.watched
	}
	if t.lost != nil && !errors.Is(t.lost, os.ErrDeadlineExceeded) || t.SetDeadline(time.Time{}) != nil {
		_ = t.Conn.Close()
		return
	}
	t.home.give(&returned{Conn: t.Conn, home: t.home, ahead: t.ahead})
}

// returned is a connection that net/http serves again. To net/http it is a new one, of
// which it expects a request at once; here that time begins with the first byte, and
// until then the connection is an idle one.
type returned struct {
	net.Conn
	home   *Handback
	ahead  []byte
	begun  bool
	header time.Duration // for the head of the first request; 0: no limit
}

// SetReadDeadline implements net.Conn.
func (r *returned) SetReadDeadline(at time.Time) error {
	if !r.begun {
		if r.header = 0; !at.IsZero() {
			r.header = time.Until(at)
		}
		at = time.Now().Add(r.home.Idle)
	}
	return r.Conn.SetReadDeadline(at)
}

func (r *returned) Read(p []byte) (n int, err error) {
	if len(r.ahead) > 0 {
		n = copy(p, r.ahead)
		r.ahead = r.ahead[n:]
	} else {
		n, err = r.Conn.Read(p)
	}
	if !r.begun {
		r.begin(n)
	}
	return n, err
}

func (r *returned) begin(n int) {
	r.begun = true
	r.home.awake(r)
	var at time.Time
	if r.header > 0 {
		at = time.Now().Add(r.header)
	}
	if n > 0 {
		_ = r.Conn.SetReadDeadline(at) // a connection that fails here fails at its next read
	}
}

// CloseWrite sends the end of the stream and reads on, where the connection can.
func (r *returned) CloseWrite() error {
	if half, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
