package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"sluice/cmd/bench/mock"
)

// slack is added to an answer's own length to bound the wait for it.
const slack = 60 * time.Second

// maxWhole bounds a non-streamed answer.
const maxWhole = 1 << 20

// conn is one keep-alive connection to a target. One goroutine uses it.
type conn struct {
	net.Conn
	br    *bufio.Reader // of the connection
	lines *bufio.Reader // of the body being read
	spent bool          // cannot carry another request
}

func dial(ctx context.Context, addr string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &conn{Conn: c, br: bufio.NewReaderSize(c, 8<<10), lines: bufio.NewReaderSize(nil, 4<<10)}, nil
}

// reusable reports whether the connection can carry another request.
func (c *conn) reusable() bool { return !c.spent }

// request builds the bytes of one call, head and body, for a single write.
func request(key string, body []byte, stream bool) []byte {
	accept := "application/json"
	if stream {
		accept = "text/event-stream"
	}
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nUser-Agent: bench\r\nAuthorization: Bearer %s\r\n"+
		"Accept: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", key, accept, len(body), body)
}

// caller carries calls to the target, one at a time: a connection, or a lane of a
// socket. One goroutine uses it, but Close may come from another and cuts a call.
type caller interface {
	do(k *call) (Verdict, string)
	reusable() bool
	Close() error
}

// call is one request and what is checked about its answer.
type call struct {
	worker  int // whose call it is: over WebSocket this chooses socket and lane
	shape   mock.Shape
	body    []byte // JSON
	bytes   []byte // from request
	text    string // the content of a non-streamed answer
	onToken func(n int)
}

func newCall(key string, s mock.Shape) *call {
	c := &call{shape: s, body: s.Request()}
	c.bytes = request(key, c.body, s.Stream)
	if !s.Stream {
		c.text = mock.Text(s.Seed, s.Tokens)
	}
	return c
}

// do sends the call and reads its answer to the end. Unless the verdict is OK
// the connection is spent.
func (c *conn) do(k *call) (Verdict, string) {
	limit := time.Duration(k.shape.Tokens)*k.shape.Every + slack
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return c.spoil(Failed, err.Error())
	}
	if _, err := c.Write(k.bytes); err != nil {
		return c.spoil(Failed, err.Error())
	}
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		return c.spoil(Failed, "read head: "+err.Error())
	}
	c.spent = resp.Close
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return c.spoil(Failed, fmt.Sprintf("%s %s", resp.Status, bytes.TrimSpace(body)))
	}
	var v Verdict
	var why string
	if k.shape.Stream {
		v, why = c.readStream(resp.Body, k)
	} else {
		v, why = readWhole(resp.Body, k.text)
	}
	if v != OK {
		return c.spoil(v, why)
	}
	return v, ""
}

func (c *conn) spoil(v Verdict, why string) (Verdict, string) {
	c.spent = true
	return v, why
}

func (c *conn) readStream(body io.Reader, k *call) (Verdict, string) {
	check := newChecker(k.shape)
	c.lines.Reset(body)
	for {
		line, err := c.lines.ReadSlice('\n')
		if err == nil {
			if check.line(bytes.TrimRight(line, "\r\n")) && k.onToken != nil {
				k.onToken(check.got)
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			err = nil
			if len(line) > 0 {
				err = errors.New("body ended in mid-line")
			}
		}
		return check.end(err)
	}
}

func readWhole(body io.Reader, text string) (Verdict, string) {
	b, err := io.ReadAll(io.LimitReader(body, maxWhole))
	if err != nil {
		return Truncated, err.Error()
	}
	return checkWhole(b, text)
}
