package upstream

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/providers"
)

// wireCase is an answer as it stands on the wire, and what becomes of it.
type wireCase struct {
	name, method, wire string
	then               func(*net.TCPConn) // nil: the server waits for the next request

	status int
	text   string
	kind   providers.ErrorKind // of the error of Do
	broken bool                // the body ends with an error, and text is what came before
	kept   bool                // the next call finds the connection
	own    bool                // net/http sees it otherwise, or not reliably so
}

func shut(conn *net.TCPConn) { _ = conn.Close() }

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

const chunkedHead = okHead + "Transfer-Encoding: chunked\r\n\r\n"

func lengthHead(n int) string { return okHead + fmt.Sprintf("Content-Length: %d\r\n\r\n", n) }

var wireCases = []wireCase{
	{name: "counted", wire: lengthHead(5) + "hello", status: 200, text: "hello", kept: true},
	{name: "empty", wire: lengthHead(0), status: 200, kept: true},
	{name: "chunked", wire: chunkedHead + "5\r\nhello\r\n0\r\n\r\n", status: 200, text: "hello", kept: true},
	{name: "trailers", wire: chunkedHead + "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", status: 200, text: "hello", kept: true},
	{name: "until close", wire: okHead + "\r\nhello", then: shut, status: 200, text: "hello"},
	{name: "cut within a length", wire: lengthHead(9) + "hello", then: shut, status: 200, text: "hello", broken: true},
	{name: "cut within a chunk", wire: chunkedHead + "9\r\nhello", then: shut, status: 200, text: "hello", broken: true},
	{name: "cut between chunks", wire: chunkedHead + "5\r\nhello\r\n", then: shut, status: 200, text: "hello", broken: true},
	{name: "cut before the last line", wire: chunkedHead + "5\r\nhello\r\n0\r\n", then: shut, status: 200, text: "hello", broken: true},
	{name: "close", wire: okHead + "Connection: Close\r\nContent-Length: 5\r\n\r\nhello", status: 200, text: "hello"},
	{name: "HTTP/1.0", wire: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, text: "hello"},
	{name: "HTTP/1.0, kept", wire: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", status: 200, text: "hello", own: true},
	{name: "HTTP/1.0, chunked", wire: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", status: 200, text: "hello", own: true},

	{name: "informed", wire: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + lengthHead(5) + "hello", status: 200, text: "hello", kept: true},
	{name: "informed too often", wire: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 9) + lengthHead(0), kind: providers.Protocol, own: true},
	{name: "switching", wire: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + lengthHead(0), kind: providers.Protocol, own: true},
	{name: "204", wire: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, kept: true},
	{name: "204 with a length", wire: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", status: 204, kept: true},
	{name: "204 with a body", wire: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", status: 204, own: true},
	{name: "304", wire: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304, kept: true},
	{name: "304 with a body", wire: "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 304, own: true},
	{name: "HEAD", method: http.MethodHead, wire: lengthHead(5), status: 200, kept: true},
	{name: "HEAD with a body", method: http.MethodHead, wire: lengthHead(5) + "hello", status: 200, own: true},
	{name: "surplus", wire: lengthHead(5) + "hello" + lengthHead(6) + "stolen", status: 200, text: "hello", own: true},
	{name: "surplus behind chunks", wire: chunkedHead + "5\r\nhello\r\n0\r\n\r\n" + lengthHead(6) + "stolen", status: 200, text: "hello", own: true},
	{name: "redirected", wire: "HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", status: 307, kept: true},

	{name: "length and chunks", wire: okHead + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", status: 200, text: "hello", own: true},
	{name: "same length twice", wire: okHead + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", status: 200, text: "hello", kept: true},
	{name: "two lengths", wire: okHead + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", kind: providers.Protocol},
	{name: "negative length", wire: lengthHead(-5) + "hello", kind: providers.Protocol},
	{name: "huge length", wire: okHead + "Content-Length: 9223372036854775807\r\n\r\nhello", then: shut, status: 200, text: "hello", broken: true},
	{name: "overflowing length", wire: okHead + "Content-Length: 9223372036854775808\r\n\r\nhello", kind: providers.Protocol},
	{name: "another coding", wire: okHead + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", kind: providers.Protocol},
	{name: "overflowing chunk", wire: chunkedHead + "10000000000000005\r\nhello\r\n0\r\n\r\n", status: 200, broken: true},
	{name: "huge chunk", wire: chunkedHead + "fffffffffffffff\r\nhello", then: shut, status: 200, text: "hello", broken: true},
	{name: "negative chunk", wire: chunkedHead + "-5\r\nhello\r\n0\r\n\r\n", status: 200, broken: true},
	{name: "long extension", wire: chunkedHead + "5;" + strings.Repeat("x", 4<<10) + "\r\nhello\r\n0\r\n\r\n", status: 200, broken: true},
	{name: "long trailers", wire: chunkedHead + "5\r\nhello\r\n0\r\n" + strings.Repeat("X: y\r\n", 11<<10) + "\r\n", status: 200, text: "hello", broken: true},
	{name: "mostly framing", wire: chunkedHead + strings.Repeat("1;"+strings.Repeat("x", 1<<10)+"\r\n.\r\n", 40) + "0\r\n\r\n", status: 200, text: strings.Repeat(".", 16), broken: true},
	{name: "byte by byte", wire: chunkedHead + strings.Repeat("1\r\n.\r\n", 9000) + "0\r\n\r\n", status: 200, text: strings.Repeat(".", 9000), kept: true},

	{name: "bare LF", wire: "HTTP/1.1 200 OK\nContent-Length: 7\n\na\r\n\r\nbc", status: 200, text: "a\r\n\r\nbc", kept: true},
	{name: "mixed line ends", wire: "HTTP/1.1 200 OK\nContent-Length: 5\n\r\nhello", status: 200, text: "hello", kept: true},
	{name: "folded", wire: okHead + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n", kind: providers.Protocol, own: true},
	{name: "NUL", wire: okHead + "X: a\x00b\r\nContent-Length: 0\r\n\r\n", kind: providers.Protocol},
	{name: "long head", wire: okHead + "X: " + strings.Repeat("x", 200<<10) + "\r\nContent-Length: 5\r\n\r\nhello", status: 200, text: "hello", kept: true},
	{name: "too long a head", wire: okHead + strings.Repeat("X: y\r\n", 50<<10), kind: providers.Protocol, own: true},
	{name: "cut head", wire: okHead + "X: y\r\n", then: shut, kind: providers.Unreachable},
	{name: "nothing", then: shut, kind: providers.Unreachable},
	{name: "another protocol", wire: "SSH-2.0-OpenSSH_9.9\r\n", kind: providers.Protocol},
	{name: "TLS", wire: "\x15\x03\x01\x00\x02\x02\x0a", kind: providers.Protocol, own: true},

	{name: "gzip", wire: okHead + "Content-Encoding: GZIP\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(zipped("hello"))) + zipped("hello"), status: 200, text: "hello", kept: true},
	{name: "empty gzip", wire: okHead + "Content-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", status: 200, kept: true},
	{name: "cut gzip", wire: okHead + "Content-Encoding: gzip\r\n\r\n" + zipped("hello")[:8], then: shut, status: 200, broken: true},
	{name: "no gzip", wire: okHead + "Content-Encoding: gzip\r\nContent-Length: 12\r\n\r\nhello, hello", status: 200, broken: true, kept: true},
	{name: "another encoding", wire: okHead + "Content-Encoding: br\r\nContent-Length: 1\r\n\r\nx", kind: providers.Protocol},
}

// TestWire answers one call as the case says and the next one in full.
func TestWire(t *testing.T) {
	eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
		for _, c := range wireCases {
			if c.own && strings.HasSuffix(t.Name(), "http") {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				first, again := true, 0
				address, _ := rawServer(t, func(conn *net.TCPConn, nth int) bool {
					if !first {
						again = nth
						answerKept(conn)
						return true
					}
					first = false
					_, _ = io.WriteString(conn, c.wire)
					if c.then != nil {
						c.then(conn)
					}
					return c.then == nil
				})
				up := client(t, address, kept)
				c.call(t, up)
				if err := callOnce(context.Background(), up); err != nil {
					t.Errorf("the next call: %v", err)
				}
				if got := again == 2; got != c.kept {
					t.Errorf("kept: %t, want %t", got, c.kept)
				}
			})
		}
	})
}

func (c *wireCase) call(t *testing.T, up *Client) {
	t.Helper()
	method := c.method
	if method == "" {
		method = http.MethodPost
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a, err := up.Do(ctx, &Request{Method: method, Path: "/x", Body: []byte("{}")})
	if c.kind != 0 {
		if e := providers.AsError(err); e == nil || e.Kind != c.kind && !strings.Contains(t.Name(), "/net/http/") {
			t.Errorf("%v, want an error of the kind %v", err, c.kind)
		}
		if err == nil {
			a.Close(false)
		}
		return
	}
	if err != nil {
		t.Errorf("%v, want status %d", errors.Unwrap(err), c.status)
		return
	}
	text, err := io.ReadAll(a.Body)
	a.Close(err == nil)
	if a.Status != c.status || (err != nil) != c.broken {
		t.Errorf("status %d, the body ends with %v", a.Status, err)
	}
	if string(text) != c.text && !(c.broken && c.own) {
		t.Errorf("%d bytes %.40q, want %d bytes %.40q", len(text), text, len(c.text), c.text)
	}
}

// A server that informs without end is given up.
func TestEndlessInformation(t *testing.T) {
	address, _ := rawServer(t, func(conn *net.TCPConn, _ int) bool {
		for {
			if _, err := io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); err != nil {
				return false
			}
		}
	})
	o := kept
	o.Name, o.BaseURL = "up", address
	err := callOnce(context.Background(), New(o))
	if e := providers.AsError(err); e == nil || e.Kind != providers.Protocol {
		t.Errorf("%v, want a protocol error", err)
	}
}
