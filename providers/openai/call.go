package openai

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"sluice/providers"
)

// call keeps one upstream call apart from the caller's context, so that a finished
// answer gives its connection back while an abandoned one is cut at once.
type call struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	detach func() bool
	body   *trackedBody
}

func open(parent context.Context) *call {
	c := &call{}
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(parent))
	c.detach = context.AfterFunc(parent, func() { c.cancel(context.Cause(parent)) })
	return c
}

// take owns the response's body and returns it decoded.
func (c *call) take(resp *http.Response) (io.Reader, error) {
	c.body = &trackedBody{ReadCloser: resp.Body}
	switch e := strings.ToLower(resp.Header.Get("Content-Encoding")); e {
	case "", "identity":
		return c.body, nil
	case "gzip":
		return gzip.NewReader(c.body)
	default:
		return nil, fmt.Errorf("unknown content encoding %q", e)
	}
}

// drainTime is how long a finished answer may take to end its body before its
// connection is closed instead of kept.
const drainTime = 250 * time.Millisecond

// close releases the upstream. The tail of a finished body is read beside the
// caller, for at most drainTime; an unfinished one is cut.
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
	_, _ = io.CopyN(io.Discard, c.body, 4<<10)
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

// send makes the upstream's request from what it may see: nothing of the caller's
// headers but the type of the body.
func (p *Provider) send(ctx context.Context, req *providers.Request, model string) (*http.Response, error) {
	ask := p.opt.AskUsage && (req.Op == providers.Chat || req.Op == providers.Completions)
	body := req.Rewrite(model, ask)
	var conn connSeen
	r, err := http.NewRequestWithContext(conn.watch(ctx), http.MethodPost, p.url(req.Path), bytes.NewReader(body))
	if err != nil {
		return nil, &providers.Error{Kind: providers.Internal, Target: p.opt.Name, Message: "the upstream's address cannot be used", Err: err}
	}
	p.dress(r, req)
	resp, err := p.client.RoundTrip(r)
	if err != nil && conn.stale() && ctx.Err() == nil {
		again := r.Clone(ctx)
		again.Body = io.NopCloser(bytes.NewReader(body))
		resp, err = p.fresh.RoundTrip(again)
	}
	if err != nil {
		return nil, &providers.Error{Kind: providers.Unreachable, Target: p.opt.Name, Message: "the upstream could not be reached or closed the connection before it answered", Err: withoutURL(err)}
	}
	return resp, nil
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

// dress adds what this request needs. No request id is sent on: llama-cpp-python
// answers 400 to one that is no UUID.
func (p *Provider) dress(r *http.Request, req *providers.Request) {
	p.sign(r)
	r.Header.Set("Content-Type", req.ContentType)
	if req.Stream {
		r.Header.Set("Accept", "text/event-stream, application/json")
	}
}

// sign adds what every request to this upstream carries.
func (p *Provider) sign(r *http.Request) {
	h := r.Header
	h.Set("Accept", "*/*")
	h.Set("Accept-Encoding", "identity")
	h.Set("User-Agent", p.opt.UserAgent)
	if p.opt.APIKey != "" {
		switch p.opt.Auth {
		case "api-key":
			h.Set("Api-Key", p.opt.APIKey)
		case "none":
		default:
			h.Set("Authorization", "Bearer "+p.opt.APIKey)
		}
	}
	if p.opt.Organization != "" {
		h.Set("OpenAI-Organization", p.opt.Organization)
	}
	if p.opt.Project != "" {
		h.Set("OpenAI-Project", p.opt.Project)
	}
	for k, v := range p.opt.Header {
		h.Set(k, v)
	}
}

func (p *Provider) url(path string) string {
	u := strings.TrimRight(p.opt.BaseURL, "/") + path
	if len(p.opt.Query) == 0 {
		return u
	}
	q := url.Values{}
	for k, v := range p.opt.Query {
		q.Set(k, v)
	}
	return u + "?" + q.Encode()
}

// withoutURL drops the address, which may hold what a client must not read.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
