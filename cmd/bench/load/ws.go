package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxMessage bounds a message from the target.
const maxMessage = 1 << 20

// Opcodes of RFC 6455, section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// socket is one WebSocket connection to a target, with a goroutine that reads it
// and gives each frame to the lane that it belongs to.
type socket struct {
	net.Conn
	br     *bufio.Reader // the reader's
	closed chan struct{} // when the reader has ended

	writing sync.Mutex // one frame at a time
	mu      sync.Mutex // guards what follows
	lanes   map[string]*pending
	failure error // why the reader has ended
}

// pending is an answer on its way.
type pending struct {
	call    *call
	check   checker
	verdict Verdict
	why     string
	over    chan struct{} // closed once the verdict is there
}

// dialSocket connects and upgrades.
func dialSocket(ctx context.Context, addr, key string) (*socket, error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := upgrade(c, key); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	s := &socket{Conn: c.Conn, br: c.br, closed: make(chan struct{}), lanes: map[string]*pending{}}
	go s.read()
	return s, nil
}

// upgrade is the opening handshake of RFC 6455, section 4.1.
func upgrade(c *conn, key string) error {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	challenge := base64.StdEncoding.EncodeToString(nonce[:])
	if err := c.SetDeadline(time.Now().Add(slack)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nUser-Agent: bench\r\nAuthorization: Bearer %s\r\n"+
		"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", key, challenge); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("%s %s", resp.Status, bytes.TrimSpace(body))
	}
	sum := sha1.Sum([]byte(challenge + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
		return errors.New("wrong Sec-WebSocket-Accept")
	}
	return c.SetDeadline(time.Time{})
}

// Close cuts whatever runs and waits for the reader.
func (s *socket) Close() error {
	err := s.Conn.Close()
	<-s.closed
	return err
}

// alive reports whether the target has not ended the connection.
func (s *socket) alive() bool {
	select {
	case <-s.closed:
		return false
	default:
		return true
	}
}

// do carries a call in the lane with this id.
func (s *socket) do(id string, k *call) (Verdict, string) {
	p := &pending{call: k, check: newChecker(k.shape), over: make(chan struct{})}
	if err := s.begin(id, p); err != nil {
		return Failed, err.Error()
	}
	create := append(fmt.Appendf(nil, `{"type":"create","stream_id":%q,"request":`, id), k.body...)
	if err := s.write(opText, append(create, '}')); err != nil {
		_ = s.Close() // which gives the verdict
	}
	late := time.NewTimer(time.Duration(k.shape.Tokens)*k.shape.Every + slack)
	defer late.Stop()
	select {
	case <-p.over:
	case <-late.C:
		_ = s.Close()
		<-p.over
	}
	return p.verdict, p.why
}

func (s *socket) begin(id string, p *pending) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return s.failure
	}
	if s.lanes[id] != nil {
		return errors.New("lane " + id + " is busy")
	}
	s.lanes[id] = p
	return nil
}

// write sends one masked frame (RFC 6455, section 5.3).
func (s *socket) write(op byte, payload []byte) error {
	var mask [4]byte
	_, _ = rand.Read(mask[:]) // never fails
	frame := append(make([]byte, 0, 14+len(payload)), 0x80|op)
	switch n := len(payload); {
	case n < 126:
		frame = append(frame, 0x80|byte(n))
	case n < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, 0x80|126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 0x80|127), uint64(n))
	}
	frame = append(frame, mask[:]...)
	for i, b := range payload {
		frame = append(frame, b^mask[i%4])
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = s.SetWriteDeadline(time.Now().Add(slack)) // a connection that cannot tell it fails the write
	_, err := s.Conn.Write(frame)
	return err
}

// read takes frames until the connection ends, and then ends every lane.
func (s *socket) read() {
	defer close(s.closed)
	var err error
	for buf := []byte(nil); err == nil; {
		if buf, err = s.message(buf[:0]); err == nil {
			err = s.take(buf)
		}
	}
	_ = s.Conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
	for id, p := range s.lanes {
		delete(s.lanes, id)
		p.end(err)
	}
}

// message appends the next text message to dst and serves control frames on the way.
func (s *socket) message(dst []byte) ([]byte, error) {
	for begun := false; ; {
		op, final, n, err := s.header()
		if err != nil {
			return dst, err
		}
		at := len(dst)
		if dst = append(dst, make([]byte, n)...); len(dst) > maxMessage {
			return dst, errors.New("message too large")
		}
		if _, err := io.ReadFull(s.br, dst[at:]); err != nil {
			return dst, err
		}
		switch {
		case op == opText && !begun || op == opContinuation && begun:
			if final {
				return dst, nil
			}
			begun = true
		case op == opPing:
			if err := s.write(opPong, dst[at:]); err != nil {
				return dst, err
			}
			dst = dst[:at]
		case op == opPong:
			dst = dst[:at]
		case op == opClose && n >= 2:
			return dst, fmt.Errorf("close %d %s", binary.BigEndian.Uint16(dst[at:]), dst[at+2:])
		default:
			return dst, fmt.Errorf("unexpected frame, opcode %d", op)
		}
	}
}

func (s *socket) header() (op byte, final bool, n int, err error) {
	var h [8]byte
	if _, err = io.ReadFull(s.br, h[:2]); err != nil {
		return 0, false, 0, err
	}
	op, final = h[0]&0xF, h[0]&0x80 != 0
	if h[0]&0x70 != 0 || h[1]&0x80 != 0 {
		return op, final, 0, fmt.Errorf("reserved bits or a mask in a header %x", h[:2])
	}
	size := uint64(h[1])
	switch size {
	case 126:
		_, err = io.ReadFull(s.br, h[:2])
		size = uint64(binary.BigEndian.Uint16(h[:]))
	case 127:
		_, err = io.ReadFull(s.br, h[:8])
		size = binary.BigEndian.Uint64(h[:])
	}
	if err == nil && size > maxMessage {
		err = errors.New("frame too large")
	}
	return op, final, int(size), err
}

// chunkHead is how a frame with a piece of an answer begins; what follows is the
// lane's id, which holds no quote.
const chunkHead = `{"type":"chunk","stream_id":"`

// take gives a frame to its lane. An error is the connection's.
func (s *socket) take(frame []byte) error {
	if rest, ok := bytes.CutPrefix(frame, []byte(chunkHead)); ok {
		id, data, ok := bytes.Cut(rest, []byte(`","data":`))
		if p := s.lane(id); p != nil && ok && bytes.HasSuffix(data, []byte("}")) {
			p.chunk(data[:len(data)-1])
			return nil
		}
		return fmt.Errorf("a chunk of no lane: %.100s", frame)
	}
	var f struct {
		Type     string
		StreamID *string `json:"stream_id"`
		Finish   string  `json:"finish_reason"`
		Usage    struct {
			Completion int `json:"completion_tokens"`
		}
	}
	if err := json.Unmarshal(frame, &f); err != nil {
		return fmt.Errorf("not a frame (%w): %.100s", err, frame)
	}
	switch {
	case f.Type == "limits" || f.Type == "going_away":
		return nil
	case f.StreamID == nil:
		return fmt.Errorf("a frame of no lane: %.300s", frame)
	}
	p := s.lane([]byte(*f.StreamID))
	switch {
	case p == nil:
		return fmt.Errorf("a frame of no lane: %.300s", frame)
	case f.Type == "accepted":
	case f.Type == "done":
		p.check.finished(f.Finish, f.Usage.Completion)
		s.leave(*f.StreamID, p, nil)
	case f.Type == "error" || f.Type == "cancelled":
		s.leave(*f.StreamID, p, fmt.Errorf("%.300s", frame))
	default:
		p.check.note("a frame of type " + strconv.Quote(f.Type))
	}
	return nil
}

func (s *socket) lane(id []byte) *pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lanes[string(id)]
}

func (s *socket) leave(id string, p *pending, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lanes, id)
	p.end(err)
}

func (p *pending) chunk(data []byte) {
	if p.check.event(data) && p.call.onToken != nil {
		p.call.onToken(p.check.got)
	}
}

// end gives the verdict; nothing at all before an error is no stream.
func (p *pending) end(err error) {
	p.verdict, p.why = p.check.end(err)
	if p.verdict == Truncated && p.check.got == 0 {
		p.verdict = Failed
	}
	close(p.over)
}

// finished takes what a done frame says.
func (c *checker) finished(reason string, tokens int) {
	if reason != "stop" || tokens != c.shape.Tokens {
		c.note("done with finish_reason " + strconv.Quote(reason) + " and " + strconv.Itoa(tokens) + " tokens")
	}
	c.done = true
}
