package streaming

import (
	"bytes"
	"context"
	"net"
)

// Conn is a client's connection as Listen gives it to an http.Server. An SSE sink writes
// the chunks of an answer straight to it, once net/http has written the head: net/http's
// layers between a write and the socket cost more for a token than the token's own way
// through the gateway. All else stays with net/http: reading, noticing that the client has
// left, keeping the connection for a further request.
type Conn struct {
	net.Conn
	// ended is set when the sink has written the last chunk of a body, which net/http will
	// write again when the handler returns. Both run in the connection's own goroutine.
	ended bool
}

var lastChunk = []byte("0\r\n\r\n")

// Write implements net.Conn. It leaves out a last chunk that was written already.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.ended {
		return c.Conn.Write(p)
	}
	c.ended = false
	rest, cut := bytes.CutPrefix(p, lastChunk)
	if len(rest) == 0 {
		return len(p), nil
	}
	n, err := c.Conn.Write(rest)
	if cut {
		n += len(lastChunk)
	}
	return n, err
}

// CloseWrite sends the end of the stream and reads on, where the connection can.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Listen returns a listener whose connections sinks can write to. It is for plain HTTP: over
// TLS, net/http must see the connection itself.
func Listen(ln net.Listener) net.Listener { return listener{ln} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c}, nil
}

type connKey struct{}

// WithConn is the ConnContext of an http.Server: it lets ConnOf find the connection.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	if own, ok := c.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, own)
	}
	return ctx
}

// ConnOf returns the connection of the request whose context ctx is, or nil when its sink must
// leave all writing to net/http.
func ConnOf(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}
