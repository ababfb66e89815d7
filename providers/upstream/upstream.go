// Package upstream knows how one upstream is reached over HTTP: its connections, what
// every request to it carries, and how an exchange ends so that its connection can
// serve again. It knows no wire protocol above HTTP.
package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sluice/providers"
)

// Options describe one upstream and bound the connections to it. Zero durations and
// a zero MaxConns mean no bound; zero IdleConns keeps none.
type Options struct {
	Name    string // as errors name it
	BaseURL string // absolute; the paths of requests are appended to its path
	Query   map[string]string
	Header  http.Header // what every request carries, credentials included; a Host replaces that of BaseURL

	Connect, TLS time.Duration // to dial (with DNS), to shake hands
	MaxConns     int           // at once; further calls wait
	IdleConns    int           // kept open for the next call
	IdleTimeout  time.Duration
	Lifetime     time.Duration // after which no new call uses a connection
	HTTP2        bool
	Proxy        *url.URL
	RootCAs      *x509.CertPool // nil: the system's

	// Made, if not nil, is called with the client that New makes, for who closes its idle
	// connections one day.
	Made func(*Client)
}

// Client reaches one upstream. It dials nothing until it is used, and is safe for
// concurrent use.
type Client struct {
	name string
	err  error // of the options
	base *url.URL
	via  transport
}

// transport is a way to exchange one request for one answer.
type transport interface {
	exchange(ctx context.Context, r *Request) (*Answer, error)
	closeIdle()
}

// New returns a client. Plain HTTP/1.1 goes over connections of its own; TLS, HTTP/2
// and proxies over net/http. What is wrong with the options is told by Do.
func New(o Options) *Client {
	c := &Client{name: o.Name}
	if c.base, c.err = o.base(); c.err != nil {
		return c
	}
	ascii := isTarget(c.base.Host) // other names need what net/http knows of IDNA
	if c.base.Scheme == "http" && o.Proxy == nil && ascii {
		c.via = newPlain(o, c.base)
	} else {
		c.via = newStandard(o, c.base)
	}
	if o.Made != nil {
		o.Made(c)
	}
	return c
}

// base is the URL that the paths of requests are appended to, without a slash at the
// end of its path.
func (o *Options) base() (*url.URL, error) {
	u, err := url.Parse(o.BaseURL)
	if err != nil {
		return nil, withoutURL(err)
	}
	u.RawPath = strings.TrimRight(u.EscapedPath(), "/")
	u.Path, _ = url.PathUnescape(u.RawPath)
	u.Fragment, u.RawFragment, u.ForceQuery = "", "", false
	if len(o.Query) > 0 {
		q := u.Query()
		for k, v := range o.Query {
			q.Set(k, v)
		}
		u.RawQuery = q.Encode()
	}
	switch {
	case u.Hostname() == "":
		return nil, errors.New("the base URL names no host")
	case !isTarget(u.RawQuery):
		return nil, errors.New("the query of the base URL is not escaped")
	default:
		return u, checkHeader(o.Header)
	}
}

// Answer is the head of an upstream's answer, and its body. Close must be called
// exactly once.
type Answer struct {
	Status int
	Header Header
	// Body is what the upstream sent, decompressed. Reads end when the context of the
	// exchange does. A body that breaks off is an error other than io.EOF.
	Body io.Reader

	end ending
}

// ending gives the connection of an exchange back, or cuts it.
type ending interface{ close(finished bool) }

// Close releases the upstream. No Read may be running, and later ones fail. finished says that the answer came to its true end:
// then the rest of the body, if there is one, is read beside the caller for at most
// drainTime, and the connection is kept. An unfinished answer is cut.
func (a *Answer) Close(finished bool) { a.end.close(finished) }

// What a finished answer may still bring before its connection is closed instead of
// kept.
const (
	drainTime  = 250 * time.Millisecond
	drainBytes = 4 << 10
)

// Do sends r and returns the head of the answer. An error is a *providers.Error, or
// the cause for which ctx ended.
func (c *Client) Do(ctx context.Context, r *Request) (*Answer, error) {
	if c.err != nil {
		return nil, &providers.Error{Kind: providers.Internal, Target: c.name, Message: "the upstream's address or headers cannot be used", Err: c.err}
	}
	if err := r.check(); err != nil {
		return nil, &providers.Error{Kind: providers.Internal, Target: c.name, Message: "the request cannot be sent to the upstream as it is", Err: err}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	a, err := c.via.exchange(ctx, r)
	if err != nil {
		return nil, Cause(ctx, c.fault(err))
	}
	if err := a.decompress(); err != nil {
		a.Close(false)
		return nil, &providers.Error{Kind: providers.Protocol, Target: c.name, Message: "an answer over HTTP was expected, plain or gzip, and the upstream compressed it in a way it was not asked for", Err: err}
	}
	return a, nil
}

func (c *Client) fault(err error) error {
	if m := new(malformedError); errors.As(err, &m) {
		return &providers.Error{Kind: providers.Protocol, Target: c.name, Message: "an answer over HTTP was expected, and the upstream sent something else; does base_url name the right server and scheme?", Err: err}
	}
	return &providers.Error{Kind: providers.Unreachable, Target: c.name, Message: "the upstream could not be reached or closed the connection before it answered", Err: withoutURL(err)}
}

// CloseIdle closes the connections that no call uses. Those in use are closed when their call
// has ended, unless another call asks for a connection meanwhile.
func (c *Client) CloseIdle() {
	if c.via != nil {
		c.via.closeIdle()
	}
}

// Cause replaces an error by the reason for which ctx ended, if it has.
func Cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// withoutURL drops the address, which may hold what a client must not read.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
