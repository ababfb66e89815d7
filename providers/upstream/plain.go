package upstream

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// plain exchanges over HTTP/1.1 without TLS, in the caller's own goroutine. net/http
// spends two goroutines and four hand-overs on each exchange, which is most of what
// a gateway adds to a short answer.
type plain struct {
	dialer *net.Dialer
	host   string // host:port to dial
	path   string // of the base URL, before a request's own
	query  string
	fixed  string // head lines of every request
	pool   pool
	slots  chan struct{} // nil: no bound
}

func newPlain(o Options, base *url.URL) *plain {
	h := &plain{
		dialer: o.dialer(), host: base.Host, path: base.EscapedPath(), query: base.RawQuery,
		pool: pool{size: o.IdleConns, timeout: o.IdleTimeout, lifetime: o.Lifetime},
	}
	if base.Port() == "" {
		h.host = net.JoinHostPort(base.Hostname(), "80")
	}
	if o.MaxConns > 0 {
		h.slots = make(chan struct{}, o.MaxConns)
	}
	host := base.Host
	if v := o.Header.Get("Host"); v != "" {
		host = v
	}
	h.fixed = "Host: " + host + "\r\nAccept-Encoding: identity\r\n" + fields(o.Header)
	return h
}

// fields writes header lines in a fixed order. What would break out of its line has
// been refused by the configuration; here it becomes a space.
func fields(h http.Header) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(h)) {
		if k == "Host" {
			continue
		}
		for _, v := range h[k] {
			b.WriteString(k + ": " + lineBreaks.Replace(v) + "\r\n")
		}
	}
	return b.String()
}

var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

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
	nc, err := h.dialer.DialContext(ctx, "tcp", h.host)
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
	x.detach = context.AfterFunc(ctx, c.cut)
	err := x.write(r)
	nothing := err != nil
	if err == nil {
		var h *head
		if h, err = readHead(c); err == nil {
			return x.answer(h, r.Method), nil
		}
		nothing = errors.Is(err, errNothing)
	}
	if nothing && c.reused {
		err = &staleError{err}
	}
	x.detach()
	c.cut()
	x.join()
	return nil, err
}

// exchange is one request and its answer on one connection.
type exchange struct {
	plain  *plain
	conn   *conn
	detach func() bool
	upload chan struct{} // closed when a large body has been sent; nil: nothing is being sent
	body   body
}

// inlineBody is how large a request body may be to be sent before the answer is
// looked at: it fits into the socket's buffer, or a server that answers early without
// reading would be waited for in vain.
const inlineBody = 16 << 10

var requestBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// write sends the request. A large body is sent beside the caller.
func (x *exchange) write(r *Request) error {
	p := requestBuffers.Get().(*[]byte)
	b := x.plain.appendHead((*p)[:0], r)
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
		if _, err := x.conn.Write(r.Body); err != nil {
			x.conn.spoilt.Store(true) // the server may have answered early; what it said is still read
		}
	}()
	return nil
}

func (h *plain) appendHead(b []byte, r *Request) []byte {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, h.path...)
	b = append(b, joinQuery(r.Path, h.query)...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = append(b, h.fixed...)
	b = appendField(b, "Accept", r.Accept)
	b = appendField(b, "Content-Type", r.ContentType)
	if len(r.Header) > 0 {
		b = append(b, fields(r.Header)...)
	}
	if len(r.Body) > 0 || r.Method == http.MethodPost {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.Body)), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(b, name...), ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// joinQuery adds a query to a path that may have one.
func joinQuery(path, query string) string {
	switch {
	case query == "":
		return path
	case strings.Contains(path, "?"):
		return path + "&" + query
	default:
		return path + "?" + query
	}
}

func (x *exchange) answer(h *head, method string) *Answer {
	x.body.begin(x.conn, h, method)
	return &Answer{Status: h.status, Header: h.header, Body: &x.body, end: x}
}

// close implements ending.
func (x *exchange) close(finished bool) {
	live := x.detach()
	switch {
	case live && x.body.ended:
		x.settle()
	case live && finished:
		go func() {
			x.drain()
			x.settle()
		}()
	default:
		x.conn.cut()
		x.settle()
	}
}

// settle gives the connection back, or closes it.
func (x *exchange) settle() {
	c := x.conn
	keep := x.body.ended && x.body.keep && !c.spoilt.Load() && x.sent()
	x.body.release()
	if !keep || !x.plain.pool.give(c) {
		c.cut()
	}
	x.join()
	x.plain.leave()
}

// sent reports whether the whole request has gone out.
func (x *exchange) sent() bool {
	if x.upload == nil {
		return true
	}
	select {
	case <-x.upload:
		return !x.conn.spoilt.Load()
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

func (x *exchange) drain() {
	if x.conn.SetReadDeadline(time.Now().Add(drainTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, &x.body, drainBytes)
	if x.conn.SetReadDeadline(time.Time{}) != nil {
		x.conn.spoilt.Store(true)
	}
}
