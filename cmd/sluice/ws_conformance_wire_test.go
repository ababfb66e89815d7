package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Opcodes (RFC 6455, section 5.2).
const (
	wireContinuation = 0x0
	wireText         = 0x1
	wireBinary       = 0x2
	wireClose        = 0x8
	wirePing         = 0x9
	wirePong         = 0xA
)

// wireFrame is one frame as a client sends it, right or wrong.
type wireFrame struct {
	op       byte
	payload  string
	more     bool // FIN is not set
	rsv      byte // three bits
	unmasked bool
	huge     bool // tells a length of 2^63 bytes
}

func (f wireFrame) append(dst []byte) []byte {
	first := f.op | f.rsv<<4
	if !f.more {
		first |= 0x80
	}
	masked := byte(0x80)
	if f.unmasked {
		masked = 0
	}
	switch n := len(f.payload); {
	case f.huge:
		dst = binary.BigEndian.AppendUint64(append(dst, first, masked|127), 1<<63)
	case n < 126:
		dst = append(dst, first, masked|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, first, masked|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, masked|127), uint64(n))
	}
	if f.unmasked {
		return append(dst, f.payload...)
	}
	mask := [4]byte{0x37, 0xFA, 0x21, 0x3D}
	dst = append(dst, mask[:]...)
	at := len(dst)
	dst = append(dst, f.payload...)
	for i := range len(f.payload) {
		dst[at+i] ^= mask[i%4]
	}
	return dst
}

// textFrame is a message in one frame.
func textFrame(payload string) wireFrame { return wireFrame{op: wireText, payload: payload} }
func pingFrame(payload string) wireFrame { return wireFrame{op: wirePing, payload: payload} }
func closeFrame(code int, reason string) wireFrame {
	return wireFrame{op: wireClose, payload: string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason}
}

// fragments cuts a message into frames of n bytes.
func fragments(op byte, payload string, n int) (frames []wireFrame) {
	for at := 0; at < len(payload) || at == 0; at += n {
		frames = append(frames, wireFrame{op: op, payload: payload[at:min(at+n, len(payload))], more: true})
		op = wireContinuation
	}
	frames[len(frames)-1].more = false
	return frames
}

// wire is a WebSocket connection in the hands of a test, byte by byte.
type wire struct {
	net.Conn
	br     *bufio.Reader
	header http.Header // of the 101
	lanes  map[string]string
	chunks []time.Time   // when each came
	pings  int           // that were answered
	wait   time.Duration // for something to happen
}

// openWire upgrades a connection of its own; more are headers.
func (g *gatewayUnderTest) openWire(t testing.TB, more ...string) *wire {
	t.Helper()
	u, err := url.Parse(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	w := &wire{Conn: conn, br: bufio.NewReader(conn), lanes: map[string]string{}, wait: patience}
	_ = conn.SetDeadline(time.Now().Add(patience))
	const nonce = "dGhlIHNhbXBsZSBub25jZQ=="
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nAuthorization: Bearer %s\r\n%s\r\n",
		u.Path+chatPath, u.Host, nonce, g.Key, strings.Join(append(more, ""), "\r\n"))
	res, err := http.ReadResponse(w.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum([]byte(nonce + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if w.header = res.Header; res.StatusCode != http.StatusSwitchingProtocols || w.header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		t.Fatalf("not upgraded: %s %v %s", res.Status, res.Header, body)
	}
	return w
}

// send writes frames: in one write (chop 0), in one for each frame (-1), or in
// writes of chop bytes. That the gateway hangs up meanwhile is no error here.
func (w *wire) send(chop int, frames ...wireFrame) {
	_ = w.SetDeadline(time.Now().Add(patience))
	var out []byte
	for _, f := range frames {
		out = f.append(out)
		if chop < 0 {
			_, _ = w.Write(out)
			out = out[:0]
		}
	}
	for len(out) > 0 {
		n := len(out)
		if chop > 0 {
			n = min(chop, n)
		}
		if _, err := w.Write(out[:n]); err != nil {
			return
		}
		out = out[n:]
	}
}

// read takes one frame and checks what RFC 6455 asks of a server's.
func (w *wire) read() (wireFrame, error) {
	var h [8]byte
	if _, err := io.ReadFull(w.br, h[:2]); err != nil {
		return wireFrame{}, err
	}
	f := wireFrame{op: h[0] & 0xF, rsv: h[0] >> 4 & 7, more: h[0]&0x80 == 0, unmasked: h[1]&0x80 == 0}
	n := uint64(h[1] & 0x7F)
	least := uint64(0)
	switch n {
	case 126:
		_, _ = io.ReadFull(w.br, h[:2])
		n, least = uint64(binary.BigEndian.Uint16(h[:])), 126
	case 127:
		_, _ = io.ReadFull(w.br, h[:8])
		n, least = binary.BigEndian.Uint64(h[:]), 1<<16
	}
	if n < least || n > 32<<20 || f.rsv != 0 || !f.unmasked || f.op > wireBinary && (f.more || n > 125) {
		return f, fmt.Errorf("the gateway sent a bad frame header: %+v, %d bytes", f, n)
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(w.br, payload)
	f.payload = string(payload)
	return f, err
}

// next reads up to something that a case can expect: "answer" with its text,
// "error" with its status, "cancelled", "going_away", "pong" with its payload,
// "close" with its code, "end" of the connection. It answers pings.
func (w *wire) next() string {
	_ = w.SetReadDeadline(time.Now().Add(w.wait))
	for message := ""; ; {
		f, err := w.read()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return "silence"
		case err != nil && (errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset")):
			return "end"
		case err != nil:
			return "broken: " + err.Error()
		case f.op == wirePing:
			w.pings++
			w.send(0, wireFrame{op: wirePong, payload: f.payload})
			continue
		case f.op == wirePong:
			return strings.TrimSuffix("pong "+f.payload, " ")
		case f.op == wireClose && f.payload == "":
			return "close"
		case f.op == wireClose:
			return fmt.Sprintf("close %d", binary.BigEndian.Uint16([]byte(f.payload)))
		case f.op == wireBinary || (f.op == wireContinuation) == (message == ""):
			return fmt.Sprintf("broken: frame %+v", f)
		}
		message += f.payload
		if f.more {
			continue
		}
		if event := w.take(message); event != "" {
			return event
		}
		message = ""
	}
}

// take reads a message; what does not end anything gives "".
func (w *wire) take(message string) string {
	var f struct {
		Type   string
		ID     string `json:"stream_id"`
		Status int
		Data   chunk
		Error  map[string]any
	}
	if err := json.Unmarshal([]byte(message), &f); err != nil {
		return "broken: " + err.Error()
	}
	switch f.Type {
	case "accepted", "limits":
		return ""
	case "chunk":
		w.chunks = append(w.chunks, time.Now())
		for _, c := range f.Data.Choices {
			w.lanes[f.ID] += c.Delta.Content
		}
		return ""
	case "done":
		defer delete(w.lanes, f.ID)
		return "answer " + w.lanes[f.ID]
	case "error":
		if len(f.Error) != 4 || f.Error["message"] == "" {
			return "broken: " + message
		}
		return fmt.Sprintf("error %d", f.Status)
	case "cancelled", "going_away":
		return f.Type
	}
	return "broken: " + message
}

// want reads as many events as are expected, each one of the alternatives that | separates.
func (w *wire) want(t testing.TB, events ...string) {
	t.Helper()
	for i, want := range events {
		got := w.next()
		ok := false
		for alternative := range strings.SplitSeq(want, "|") {
			ok = ok || got == alternative
		}
		if !ok {
			t.Fatalf("event %d is %.300q, want %.300q", i+1, got, want)
		}
	}
}

// leave ends the connection as a client should, and wants the gateway to end it as a server should.
func (w *wire) leave(t testing.TB) {
	t.Helper()
	w.send(0, closeFrame(1000, ""))
	w.want(t, "close 1000", "end")
}

// failed wants the gateway to have failed the connection with a code, perhaps after
// an error frame that tells why. It answers the close.
func (w *wire) failed(t testing.TB, code int) {
	t.Helper()
	got := w.next()
	if strings.HasPrefix(got, "error ") {
		got = w.next()
	}
	if got != fmt.Sprintf("close %d", code) {
		t.Fatalf("the connection goes on with %.300q, want a close with %d", got, code)
	}
	w.send(0, closeFrame(code, ""))
	w.want(t, "end")
}

// digesting is a gateway over an upstream that answers with a digest of what it was
// asked: what a conformance case takes for an echo.
func digesting(t testing.TB, more string) *gatewayUnderTest {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Messages []struct{ Content string } }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Messages) != 1 {
			http.Error(w, `{"error":{"message":"not what was sent"}}`, http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, `data: {"id":"d","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":%q},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n",
			digest(body.Messages[0].Content))
	}))
	t.Cleanup(s.Close)
	return boot(t, overWall(s.URL+"/v1", more))
}

func digest(content string) string {
	return fmt.Sprintf("%d bytes %x", len(content), sha256.Sum256([]byte(content)))
}

// create asks for the digest of content, which is put into the JSON as it is.
func create(id, content string) string {
	return `{"type":"create","stream_id":"` + id + `","request":{"model":"m","messages":[{"role":"user","content":"` + content + `"}]}}`
}

// sized is a create of n bytes, and the answer to it.
func sized(n int) (message, answer string) {
	var content bytes.Buffer
	for i := 0; content.Len() < n-len(create("c", "")); i++ {
		content.WriteByte("BAsd7&jh23"[i%10])
	}
	return create("c", content.String()), "answer " + digest(content.String())
}
