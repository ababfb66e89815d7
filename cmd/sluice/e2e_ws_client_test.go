package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"sluice/providers/providertest/wall"
)

// socketMessage is any message of the gateway.
type socketMessage struct {
	Type       string          `json:"type"`
	Stream     string          `json:"stream_id"`
	Request    string          `json:"request_id"`
	Position   int             `json:"position"`
	Data       json.RawMessage `json:"data"`
	Finish     string          `json:"finish_reason"`
	Usage      *usage          `json:"usage"`
	TTFT       *int64          `json:"ttft_ms"`
	Total      *int64          `json:"total_ms"`
	Status     int             `json:"status"`
	RetryAfter int64           `json:"retry_after_ms"`
	Error      json.RawMessage `json:"error"`
	In         int64           `json:"in_ms"`
	Reason     string          `json:"reason"`

	text  string    // as it came
	fault wireError // what Error says
	close int       // the connection ended, with this code
}

// socketClient is one connection. Its methods belong to the test's goroutine.
type socketClient struct {
	*websocket.Conn
	header http.Header // of the handshake's answer
	seen   []string    // every message
}

// wsURL is where a path below /v1 is for WebSocket clients.
func (g *gatewayUnderTest) wsURL(path string) string {
	return "ws" + strings.TrimPrefix(g.URL, "http") + path
}

// handshake asks for a connection at a path below /v1, or at a whole URL; headers are "Name: value", and "Name: " takes one away.
func (g *gatewayUnderTest) handshake(t testing.TB, path string, headers ...string) (*socketClient, *http.Response) {
	t.Helper()
	h := http.Header{"Authorization": {"Bearer " + g.Key}}
	d := websocket.Dialer{HandshakeTimeout: patience}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case name == "Sec-WebSocket-Protocol":
			d.Subprotocols = append(d.Subprotocols, value)
		case value == "":
			h.Del(name)
		default:
			h.Set(name, value)
		}
	}
	if strings.HasPrefix(path, "/") {
		path = g.wsURL(path)
	}
	conn, res, err := d.DialContext(t.Context(), path, h)
	if errors.Is(err, websocket.ErrBadHandshake) {
		return nil, res
	}
	if err != nil {
		t.Fatalf("dialling %s: %v\n%s", path, err, g.Logs())
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &socketClient{Conn: conn, header: res.Header}, res
}

// dial opens a connection that must be accepted.
func (g *gatewayUnderTest) dial(t testing.TB, headers ...string) *socketClient {
	t.Helper()
	c, res := g.handshake(t, chatPath, headers...)
	if c == nil {
		body, _ := io.ReadAll(res.Body)
		t.Fatalf("refused with %d: %s", res.StatusCode, body)
	}
	return c
}

func (c *socketClient) send(t testing.TB, format string, args ...any) {
	t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...)); err != nil {
		t.Fatal(err)
	}
}

// create asks for a chat answer; more are members of the request with a leading comma.
func (c *socketClient) create(t testing.TB, stream, model, more string) {
	t.Helper()
	c.send(t, `{"type":"create","stream_id":%q,"request":{"model":%q,"messages":[{"role":"user","content":%q}]%s}}`, stream, model, words, more)
}

func (c *socketClient) cancel(t testing.TB, stream string) {
	t.Helper()
	c.send(t, `{"type":"cancel","stream_id":%q}`, stream)
}

// next reads one message; the end of the connection is one as well.
func (c *socketClient) next(t testing.TB) (m socketMessage) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	kind, text, err := c.ReadMessage()
	if err != nil {
		closed := new(websocket.CloseError)
		if !errors.As(err, &closed) {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatalf("nothing comes any more, after %q", c.seen[max(0, len(c.seen)-3):])
			}
			closed = &websocket.CloseError{Code: websocket.CloseAbnormalClosure}
		}
		return socketMessage{close: closed.Code, text: err.Error()}
	}
	if err := json.Unmarshal(text, &m); err != nil || kind != websocket.TextMessage || m.Type == "" {
		t.Fatalf("not a message (%v): %.300q", err, text)
	}
	m.text = string(text)
	c.seen = append(c.seen, m.text[:min(len(m.text), 600)])
	if m.Type == "error" {
		m.fault = readError(t, `{"error":`+string(m.Error)+`}`)
	}
	return m
}

// expect reads messages until one of a type comes for a stream, and wants it next
// but for chunks and positions.
func (c *socketClient) expect(t testing.TB, kind, stream string) socketMessage {
	t.Helper()
	for {
		m := c.next(t)
		if m.Type == kind && m.Stream == stream {
			return m
		}
		if m.close != 0 || m.Type != "chunk" && m.Type != "accepted" {
			t.Fatalf("got %.300s, want %s of stream %q", m.text, kind, stream)
		}
	}
}

// closed wants the connection to end with a code, and nothing before but what the
// test is not about.
func (c *socketClient) closed(t testing.TB, code int) socketMessage {
	t.Helper()
	for {
		if m := c.next(t); m.close == code {
			return m
		} else if m.close != 0 || m.Type == "error" || m.Type == "done" {
			t.Fatalf("got %.300s, want a close with %d", m.text, code)
		}
	}
}

// laneGot is what came for one create.
type laneGot struct {
	sse
	accepted []socketMessage
	end      socketMessage // done, cancelled or error
}

// read collects one answer, which must be the only one on the connection.
func (c *socketClient) read(t testing.TB, stream string) (a laneGot) {
	t.Helper()
	for a.end.Type == "" {
		m := c.next(t)
		if m.close != 0 || m.Stream != stream {
			t.Fatalf("got %.300s for stream %q", m.text, stream)
		}
		a.take(t, m)
	}
	return a
}

func (a *laneGot) take(t testing.TB, m socketMessage) {
	t.Helper()
	switch m.Type {
	case "accepted":
		a.accepted = append(a.accepted, m)
	case "chunk":
		a.add(t, string(m.Data))
	default:
		a.end = m
	}
}

// complete fails the test unless the answer ended well and has all tokens.
func (a *laneGot) complete(t testing.TB, tokens int) {
	t.Helper()
	if n, err := wall.Verify("wall", a.text[0]); n != tokens || err != nil {
		t.Errorf("got %d of %d tokens: %v", n, tokens, err)
	}
	if a.end.Type != "done" || a.end.Finish != a.finish[0] || a.finish[0] == "" || a.roles[0] != 1 || a.end.Usage == nil || a.end.TTFT == nil || a.end.Total == nil {
		t.Errorf("not a complete answer: %+v, finish %q, %d roles", a.end, a.finish[0], a.roles[0])
	}
}
