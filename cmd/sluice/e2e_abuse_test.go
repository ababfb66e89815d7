package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// closedWithin reads whatever comes until the gateway closes the connection.
func closedWithin(t *testing.T, conn *net.TCPConn, limit time.Duration) string {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(limit))
	got, err := io.ReadAll(conn)
	if n := net.Error(nil); errors.As(err, &n) && n.Timeout() {
		t.Errorf("the connection is still open after %v; it brought %.300q", limit, got)
	}
	return string(got)
}

// TestSlowloris sends requests that never become whole. Each must be answered or
// dropped soon after its limit: whoever holds a connection holds a goroutine.
func TestSlowloris(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, "[server]\nread_header_timeout = \"300ms\"\nidle_timeout = \"300ms\"\nmax_header = \"4KiB\"\n[timeouts]\nrequest_body = \"300ms\"\n"))
	head := func(path, key, more string) string {
		return "POST /v1" + path + " HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + key + "\r\nContent-Type: application/json\r\n" + more + "\r\n\r\n"
	}
	for _, tc := range []struct {
		name, sent, drip string
		status           string // of the answer, when there must be one
	}{
		{"nothing", "", "", ""},
		{"half a header", "POST /v1/chat/completions HTTP/1.1\r\nHost: gate", "", ""},
		{"a header in drops", "POST /v1/chat/completions HTTP/1.1\r\n", "X-A: b\r\n", ""},
		{"a header without end", "POST /v1/chat/completions HTTP/1.1\r\nX-A: " + strings.Repeat("a", 64<<10), "", "431"},
		{"half a body", head(chatPath, testKey, "Content-Length: 100") + `{"model"`, "", "4"},
		{"a body in drops", head(chatPath, testKey, "Content-Length: 100000") + `{"model"`, " ", "4"},
		{"half a chunk", head(chatPath, testKey, "Transfer-Encoding: chunked") + "5\r\n{\"m", "", "4"},
		{"chunks in drops", head(chatPath, testKey, "Transfer-Encoding: chunked") + "1\r\n{\r\n", "1\r\n \r\n", "4"},
		{"half a body without a key", head(chatPath, "sk-wrong", "Content-Length: 100") + `{"model"`, "", "401"},
		{"drops without a key", head(chatPath, "sk-wrong", "Content-Length: 100000") + `{"model"`, " ", "401"},
		{"half a body to nowhere", head("/nothing", testKey, "Content-Length: 100") + `{"model"`, "", "404"},
		{"half a body of a wrong type", strings.Replace(head(chatPath, testKey, "Content-Length: 100"), "application/json", "text/plain", 1) + `{"model"`, "", "415"},
		{"idle after an answer", head(chatPath, testKey, "Content-Length: 0"), "", "400"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn := rawConn(t, g)
			_, _ = io.WriteString(conn, tc.sent)
			stop := make(chan struct{})
			defer close(stop)
			if tc.drip != "" {
				go drip(conn, tc.drip, stop)
			}
			// The limit is 300ms; net/http lingers for half a second after an answer.
			got := closedWithin(t, conn, 4*time.Second)
			if tc.status != "" && !strings.HasPrefix(got, "HTTP/1.1 "+tc.status) {
				t.Errorf("answered with %.200q, want status %s", got, tc.status)
			}
		})
	}
	t.Cleanup(func() {
		if s := w.Stats(); s.Total != 0 {
			t.Errorf("%d of these requests reached the upstream", s.Total)
		}
	})
}

// drip writes a little again and again, for a bounded time.
func drip(conn net.Conn, drop string, stop <-chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 400 {
		select {
		case <-stop:
			return
		case <-tick.C:
			if _, err := io.WriteString(conn, drop); err != nil {
				return
			}
		}
	}
}

// TestHalfClose ends the client's side of a connection in the middle of a stream.
// HTTP/1.1 cannot tell that from leaving; what counts is that nothing is left behind.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	model := wallModel("half", "tokens=100000,delay=5ms")
	conn := rawStream(t, g, 64<<10, chatBody(model, true, ""))
	awaitCall(t, w, "half", func(q wall.Request) bool { return q.Tokens > 3 })
	left := time.Now()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	checkGone(t, g, w, model, "half", left, false)
	closedWithin(t, conn, 4*time.Second)
	g.idle(t)
}

// TestOldClient serves HTTP/1.0, where the end of the connection is the end of a body.
func TestOldClient(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, ""))
	for _, script := range []string{"tokens=3", "tokens=3,cut=2"} {
		conn := rawConn(t, g)
		body := chatBody("wall:"+script, true, "")
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", g.Key, len(body), body)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		s := readSSE(t, string(text))
		if cut := strings.Contains(script, "cut"); err != nil || len(res.TransferEncoding) != 0 || s.done == cut || (len(s.errors) == 1) != cut {
			t.Errorf("%s: %v, %v, %+v", script, err, res.TransferEncoding, s)
		}
	}
}

// TestSmuggling sends what two parsers read in two ways. None of it may reach an upstream twice.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	body := chatBody("wall", false, "")
	for name, head := range map[string]string{
		"two lengths":          fmt.Sprintf("Content-Length: %d\r\nContent-Length: 5", len(body)),
		"a length and a sign":  fmt.Sprintf("Content-Length: +%d", len(body)),
		"an unknown coding":    "Transfer-Encoding: chunked, identity",
		"a blank in a name":    fmt.Sprintf("X : y\r\nContent-Length: %d", len(body)),
		"a continued line":     fmt.Sprintf("X: y\r\n z: a\r\nContent-Length: %d", len(body)),
		"a control in a value": fmt.Sprintf("X: \x00\r\nContent-Length: %d", len(body)),
	} {
		conn := rawConn(t, g)
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n%s", g.Key, head, body)
		_ = conn.CloseWrite()
		if got := closedWithin(t, conn, 4*time.Second); strings.HasPrefix(got, "HTTP/1.1 2") && name != "a continued line" {
			t.Errorf("%s: %.100q", name, got)
		}
	}
	// Of a length and chunks the chunks count (RFC 9112 section 6.3).
	conn := rawConn(t, g)
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", g.Key, len(body), body)
	if got := closedWithin(t, conn, 4*time.Second); strings.Count(got, "HTTP/1.1 ") != 1 {
		t.Errorf("a length beside chunks: %.300q", got)
	}
	for _, q := range w.Requests() {
		if q.Body != body || q.Header.Get("Transfer-Encoding") != "" {
			t.Errorf("the upstream got %v %q", q.Header, q.Body)
		}
	}
}
