package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

// A connection over HTTP/2 that brought nothing for pingAfter is asked for a sign of
// life, and given up when none comes within pingWithin: a dead path shows no error.
const (
	pingAfter  = 30 * time.Second
	pingWithin = 15 * time.Second
)

// standard exchanges over net/http.
type standard struct {
	base   *url.URL
	header http.Header
	client http.RoundTripper
	fresh  http.RoundTripper // never uses a kept connection
}

func newStandard(o Options, base *url.URL) *standard {
	s := &standard{base: base, header: o.Header, fresh: freshTransport(o)}
	t := o.transport()
	s.client = t
	if o.Lifetime > 0 {
		r := &rotating{lifetime: o.Lifetime}
		r.now.Store(&generation{Transport: t, born: time.Now()})
		s.client = r
	}
	return s
}

// freshTransport dials for each call, with the same bounds otherwise. To close the
// idle connections of the pool would not do instead: other calls put theirs back at
// any moment.
func freshTransport(o Options) http.RoundTripper {
	t := o.transport()
	t.DisableKeepAlives = true
	return t
}

func (o Options) transport() *http.Transport {
	t := &http.Transport{
		DialContext:         o.dialer().DialContext,
		TLSHandshakeTimeout: o.TLS,
		MaxConnsPerHost:     o.MaxConns,
		MaxIdleConnsPerHost: o.IdleConns,
		IdleConnTimeout:     o.IdleTimeout,
		ForceAttemptHTTP2:   o.HTTP2,
		DisableCompression:  true,
		WriteBufferSize:     1 << 10,
		ReadBufferSize:      2 << 10,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWithin},
	}
	if o.RootCAs != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12}
	}
	if o.Proxy != nil {
		t.Proxy = http.ProxyURL(o.Proxy)
	}
	if !o.HTTP2 {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return t
}

func (o Options) dialer() *net.Dialer {
	return &net.Dialer{Timeout: o.Connect, KeepAlive: 30 * time.Second}
}

// rotating starts a fresh pool of connections when the old one has reached its
// lifetime; running calls finish on the old one.
type rotating struct {
	lifetime time.Duration
	now      atomic.Pointer[generation]
}

type generation struct {
	*http.Transport
	born time.Time
}

func (r *rotating) RoundTrip(req *http.Request) (*http.Response, error) {
	g := r.now.Load()
	if time.Since(g.born) > r.lifetime {
		next := &generation{Transport: g.Clone(), born: time.Now()}
		if r.now.CompareAndSwap(g, next) {
			g.CloseIdleConnections()
		}
		g = r.now.Load()
	}
	return g.RoundTrip(req)
}

// CloseIdleConnections closes those of the current pool; an older one keeps none.
func (r *rotating) CloseIdleConnections() { r.now.Load().CloseIdleConnections() }

func (s *standard) closeIdle() {
	if c, ok := s.client.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (s *standard) exchange(parent context.Context, r *Request) (*Answer, error) {
	c := openCall(parent)
	resp, err := s.send(c.ctx, r)
	if err != nil {
		c.close(false)
		return nil, err
	}
	c.body = &trackedBody{ReadCloser: resp.Body}
	a := &Answer{Status: resp.StatusCode, Body: c.body, end: c}
	for k, vs := range resp.Header {
		for _, v := range vs {
			a.Header = append(a.Header, Field{k, v})
		}
	}
	return a, nil
}

func (s *standard) send(ctx context.Context, r *Request) (*http.Response, error) {
	var conn connSeen
	req, err := http.NewRequestWithContext(conn.watch(ctx), r.Method, address(s.base, r.Path), bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, s.header)
	maps.Copy(req.Header, r.Header)
	req.Host = s.header.Get("Host") // "" means that of the URL
	setIf(req.Header, "Content-Type", r.ContentType)
	setIf(req.Header, "Accept", r.Accept)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := s.client.RoundTrip(req)
	if err != nil && conn.stale() && ctx.Err() == nil {
		again := req.Clone(ctx)
		again.Body = io.NopCloser(bytes.NewReader(r.Body))
		resp, err = s.fresh.RoundTrip(again)
	}
	return resp, err
}

func setIf(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// connSeen is what one round trip told of its connection. Some servers (llama.cpp)
// close a connection behind each streamed answer although they promised to keep it;
// the next request on it is lost. Such a request is worth one more try, and one only:
// net/http itself would repeat it on every kept connection.
type connSeen struct{ reused, answered atomic.Bool }

func (s *connSeen) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			t, secure := i.Conn.(*tls.Conn)
			// HTTP/2 tells which requests a server has not touched, and net/http repeats those.
			s.reused.Store(i.Reused && !(secure && t.ConnectionState().NegotiatedProtocol == "h2"))
		},
		GotFirstResponseByte: func() { s.answered.Store(true) },
	})
}

// stale reports whether a kept connection broke before a byte of an answer came.
func (s *connSeen) stale() bool { return s.reused.Load() && !s.answered.Load() }

// call keeps one exchange over net/http apart from the caller's context, so that a
// finished answer gives its connection back while an abandoned one is cut at once.
type call struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	detach func() bool
	body   *trackedBody
}

func openCall(parent context.Context) *call {
	c := &call{}
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(parent))
	c.detach = context.AfterFunc(parent, func() { c.cancel(context.Cause(parent)) })
	return c
}

func (c *call) close(finished bool) {
	live := c.detach()
	switch {
	case c.body == nil:
		c.cancel(context.Canceled)
	case c.body.ended:
		_ = c.body.Close()
		c.cancel(nil)
	case finished && live:
		go c.drain()
	default:
		c.cancel(context.Canceled)
		_ = c.body.Close()
	}
}

func (c *call) drain() {
	timer := time.AfterFunc(drainTime, func() { c.cancel(context.Canceled) })
	defer timer.Stop()
	_, _ = io.CopyN(io.Discard, c.body, drainBytes)
	_ = c.body.Close()
	c.cancel(nil)
}

// trackedBody remembers whether the end of the body was seen.
type trackedBody struct {
	io.ReadCloser
	ended bool
}

func (b *trackedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended = true
	}
	return n, err
}

// address joins a request's path, which may end in a query, to the base URL.
func address(base *url.URL, path string) string {
	u := *base
	query := u.RawQuery
	u.RawQuery = ""
	return joinQuery(u.String()+path, query)
}
