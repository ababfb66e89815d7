package openai

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// TransportOptions bound the connections to one upstream. Zero durations and
// counts mean no bound.
type TransportOptions struct {
	Connect, TLS time.Duration // to dial (with DNS), to shake hands
	MaxConns     int
	IdleConns    int // kept open for the next call
	IdleTimeout  time.Duration
	Lifetime     time.Duration // after which no new call uses a connection
	HTTP2        bool
	Proxy        *url.URL
	RootCAs      *x509.CertPool // nil: the system's
}

// A connection over HTTP/2 that brought nothing for pingAfter is asked for a sign of
// life, and given up when none comes within pingWithin: a dead path shows no error.
const (
	pingAfter  = 30 * time.Second
	pingWithin = 15 * time.Second
)

func newTransport(o TransportOptions) http.RoundTripper {
	t := o.transport()
	if o.Lifetime <= 0 {
		return t
	}
	r := &rotating{lifetime: o.Lifetime}
	r.now.Store(&generation{Transport: t, born: time.Now()})
	return r
}

// freshTransport dials for each call, with the same bounds otherwise. To close the
// idle connections of the pool would not do instead: other calls put theirs back at
// any moment.
func freshTransport(o TransportOptions) http.RoundTripper {
	t := o.transport()
	t.DisableKeepAlives = true
	return t
}

func (o TransportOptions) transport() *http.Transport {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: o.Connect, KeepAlive: 30 * time.Second}).DialContext,
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
