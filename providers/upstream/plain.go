package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"time"
)

// plain exchanges over HTTP/1.1 without TLS, in the caller's own goroutine. net/http
// spends two goroutines and four hand-overs on each exchange, which is most of what
// a gateway adds to a short answer.
type plain struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	host   string // host:port to dial
	layout *layout
	pool   pool
	slots  chan struct{} // nil: no bound
}

func newPlain(o Options, base *url.URL) *plain {
	h := &plain{
		dial: o.dialer().DialContext, host: base.Host, layout: newLayout(base, o.Header),
		pool: pool{size: o.IdleConns, timeout: o.IdleTimeout, lifetime: o.Lifetime},
	}
	if base.Port() == "" {
		h.host = net.JoinHostPort(base.Hostname(), "80")
	}
	if o.MaxConns > 0 {
		h.slots = make(chan struct{}, o.MaxConns)
	}
	return h
}

func (h *plain) closeIdle() { h.pool.closeIdle() }

// exchange repeats a request once, on a new connection, when a kept one broke before
// a byte of an answer came: some servers (llama.cpp) close a connection behind each
// streamed answer although they promised to keep it. All other repeats are the
// router's business.
func (h *plain) exchange(ctx context.Context, r *Request) (*Answer, error) {
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	c, err := h.connect(ctx, h.pool.take())
	if err != nil {
		h.leave()
		return nil, err
	}
	a, err := h.on(ctx, c, r)
	if stale := new(staleError); errors.As(err, &stale) && ctx.Err() == nil {
		if c, err = h.connect(ctx, nil); err == nil {
			a, err = h.on(ctx, c, r)
		}
	}
	if err != nil {
		h.leave()
	}
	return a, err
}

// enter waits for one of the connections that are allowed at once.
func (h *plain) enter(ctx context.Context) error {
	if h.slots == nil {
		return nil
	}
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *plain) leave() {
	if h.slots != nil {
		<-h.slots
	}
}

// connect returns kept, or a new connection when that is nil.
func (h *plain) connect(ctx context.Context, kept *conn) (*conn, error) {
	if kept != nil {
		return kept, nil
	}
	nc, err := h.dial(ctx, "tcp", h.host)
	if err != nil {
		return nil, err
	}
	return newConn(nc), nil
}

// staleError is a kept connection that broke before a byte of an answer came.
type staleError struct{ error }

func (e *staleError) Unwrap() error { return e.error }

// on sends r on c and reads the head of the answer. It owns c: an error closes it.
func (h *plain) on(ctx context.Context, c *conn, r *Request) (*Answer, error) {
	x := &exchange{plain: h, conn: c}
	x.detach = afterFunc(ctx, c.cut)
	a, err := x.run(r)
	if err == nil {
		return a, nil
	}
	x.detach()
	c.cut()
	x.join()
	return nil, err
}

// afterFunc is context.AfterFunc, which would put a context of its own below those that can
// do the same.
func afterFunc(ctx context.Context, f func()) (stop func() bool) {
	if own, ok := ctx.(interface {
		AfterFunc(func()) (stop func() bool)
	}); ok {
		return own.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}

// exchange is one request and its answer on one connection.
type exchange struct {
	plain  *plain
	conn   *conn
	detach func() bool
	upload chan struct{} // closed when a large body has been sent; nil: nothing is being sent
	broken bool          // the request did not go out whole; guarded by upload
	body   body
}

func (x *exchange) run(r *Request) (*Answer, error) {
	failed := x.write(r)
	if failed != nil && x.conn.reused {
		return nil, &staleError{failed}
	}
	if failed != nil {
		x.broken = true // what the server said before it closed is still read
	}
	h, err := readHead(x.conn)
	switch {
	case err == nil:
		return x.answer(h, r.Method)
	case failed != nil:
		return nil, failed
	case errors.Is(err, errNothing) && x.conn.reused:
		return nil, &staleError{err}
	default:
		return nil, err
	}
}

// inlineBody is how large a request body may be to be sent before the answer is
// looked at: it fits into the socket's buffer, or a server that answers early without
// reading would be waited for in vain.
const inlineBody = 16 << 10

var requestBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// write sends the request. A large body is sent beside the caller.
func (x *exchange) write(r *Request) error {
	p := requestBuffers.Get().(*[]byte)
	b := x.plain.layout.append((*p)[:0], r)
	small := len(r.Body) <= inlineBody
	if small {
		b = append(b, r.Body...)
	}
	_, err := x.conn.Write(b)
	if cap(b) <= 2*inlineBody {
		*p = b
		requestBuffers.Put(p)
	}
	if err != nil || small {
		return err
	}
	done := make(chan struct{})
	x.upload = done
	go func() {
		defer close(done)
		_, err := x.conn.Write(r.Body)
		x.broken = err != nil // the server may have answered early; what it said is still read
	}()
	return nil
}

func (x *exchange) answer(h *head, method string) (*Answer, error) {
	if err := x.body.begin(x.conn, h, method); err != nil {
		return nil, err
	}
	return &Answer{Status: h.status, Header: h.header, Body: &x.body, end: x}, nil
}

// close implements ending.
func (x *exchange) close(finished bool) {
	if x.body.over {
		return // the connection is another's by now
	}
	x.body.over = true
	live := x.detach() && x.sent()
	switch {
	case live && x.body.ended:
		x.settle(x.body.keep)
	case live && finished:
		go x.drain()
	default:
		x.settle(false)
	}
}

// settle gives the connection back, or closes it.
func (x *exchange) settle(keep bool) {
	x.body.release()
	if !keep || !x.plain.pool.give(x.conn) {
		x.conn.cut()
	}
	x.join()
	x.plain.leave()
}

// sent reports whether the whole request has gone out.
func (x *exchange) sent() bool {
	if x.upload == nil {
		return !x.broken
	}
	select {
	case <-x.upload:
		return !x.broken
	default:
		return false
	}
}

// join waits for the sender of a large body, which the closed connection has ended.
func (x *exchange) join() {
	if x.upload != nil {
		<-x.upload
	}
}

// drain reads the tail of an answer and settles.
func (x *exchange) drain() {
	keep := false
	if x.conn.SetReadDeadline(time.Now().Add(drainTime)) == nil {
		_, _ = io.CopyN(io.Discard, readerFunc(x.body.read), drainBytes)
		keep = x.body.ended && x.body.keep && x.conn.SetReadDeadline(time.Time{}) == nil
	}
	x.settle(keep)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
