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

func newTransport(o TransportOptions) http.RoundTripper {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: o.Connect, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: o.TLS,
		MaxConnsPerHost:     o.MaxConns,
		MaxIdleConnsPerHost: o.IdleConns,
		IdleConnTimeout:     o.IdleTimeout,
		ForceAttemptHTTP2:   o.HTTP2,
		DisableCompression:  true,
		WriteBufferSize:     1 << 10,
		ReadBufferSize:      4 << 10,
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
	if o.Lifetime <= 0 {
		return t
	}
	r := &rotating{lifetime: o.Lifetime}
	r.now.Store(&generation{Transport: t, born: time.Now()})
	return r
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

func (r *rotating) CloseIdleConnections() { r.now.Load().CloseIdleConnections() }
