// Package rpc knows how an upstream is reached over gRPC, and what its failures mean.
package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// Options describe one upstream.
type Options struct {
	BaseURL      string        // http://host:port, or https:// for TLS; no path
	Connect, TLS time.Duration // to dial (with DNS), to shake hands
	Header       http.Header   // sent with every call as metadata; User-Agent as itself
	Receive      int           // bytes of one message from the upstream
	RootCAs      *x509.CertPool
}

// What a connection does when nothing flows. gRPC servers close a connection, and the
// calls on it, when a client pings more often than every five minutes; a call that is
// silent for less is watched by its own time limits.
const (
	pingAfter  = 5*time.Minute + 10*time.Second
	pingWithin = 20 * time.Second
)

// retryConnect is the longest pause between two tries to connect. While it lasts calls
// fail at once.
const retryConnect = 2 * time.Second

// maxSend bounds a message to the upstream. Callers are bounded by the size of their
// request; what is made of it may be larger.
const maxSend = 1<<31 - 1

// Dial returns a connection that connects when it is first used, and again whenever it
// was lost. Nothing is sent twice. Proxies of the environment are not heeded.
func Dial(o Options) (*grpc.ClientConn, error) {
	u, err := url.Parse(o.BaseURL)
	if err != nil {
		return nil, err
	}
	if strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("a gRPC address has no path, got %q", u.Path)
	}
	unary, stream := carry(o.Header)
	return grpc.NewClient("passthrough:///"+address(u),
		grpc.WithTransportCredentials(o.credentials(u)),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithContextDialer(o.dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: retryConnect},
			MinConnectTimeout: o.Connect + o.TLS,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingWithin}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(o.Receive), grpc.MaxCallSendMsgSize(maxSend)),
		grpc.WithUserAgent(o.Header.Get("User-Agent")),
		grpc.WithUnaryInterceptor(unary), grpc.WithStreamInterceptor(stream))
}

func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func (o *Options) credentials(u *url.URL) credentials.TransportCredentials {
	if u.Scheme != "https" {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{ServerName: u.Hostname(), RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12})
}

func (o *Options) dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: o.Connect, KeepAlive: 30 * time.Second}
	return d.DialContext(ctx, "tcp", addr)
}

// carry sends headers with every call.
func carry(h http.Header) (grpc.UnaryClientInterceptor, grpc.StreamClientInterceptor) {
	md := metadata.MD{}
	for k, vs := range h {
		if !strings.EqualFold(k, "User-Agent") {
			md.Append(k, vs...)
		}
	}
	with := func(ctx context.Context) context.Context {
		own, _ := metadata.FromOutgoingContext(ctx)
		return metadata.NewOutgoingContext(ctx, metadata.Join(own, md))
	}
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(with(ctx), method, req, reply, cc, opts...)
		}, func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(with(ctx), desc, cc, method, opts...)
		}
}
