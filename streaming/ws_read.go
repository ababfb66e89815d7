package streaming

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// Read returns the next text message, which the caller owns. ErrBinary, ErrNotUTF8,
// ErrMessageSize and ErrMessageTime leave the connection as it is, for the caller to
// close. After Close it reads on only for the client's answer. Any other error is
// the end: the context is done and the connection is closed.
func (s *Socket) Read() ([]byte, error) {
	for {
		kind, r, err := s.ws.NextReader()
		over := s.over()
		switch {
		case over && err == nil:
			continue
		case err != nil && (over || !errors.Is(err, websocket.ErrReadLimit)):
			s.end(err)
			return nil, err
		case err != nil: // a length that is none
			return nil, ErrMessageSize
		case kind != websocket.TextMessage:
			return nil, ErrBinary
		}
		msg, err := s.readMessage(r)
		if err != nil && !refused(err) {
			s.end(err)
		}
		return msg, err
	}
}

// refused reports whether a client can still be told what was wrong.
func refused(err error) bool {
	return errors.Is(err, ErrMessageSize) || errors.Is(err, ErrMessageTime) || errors.Is(err, ErrNotUTF8)
}

func (s *Socket) readMessage(r io.Reader) ([]byte, error) {
	if s.opt.Message > 0 {
		s.expectBy(time.Now().Add(s.opt.Message))
		defer s.expectBy(time.Time{})
	}
	msg, err := io.ReadAll(io.LimitReader(r, s.opt.MaxMessage+1))
	switch timeout := net.Error(nil); {
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, ErrMessageTime
	case errors.Is(err, websocket.ErrReadLimit):
		return nil, ErrMessageSize
	case err != nil:
		return nil, err
	case int64(len(msg)) > s.opt.MaxMessage:
		return nil, ErrMessageSize
	case !utf8.Valid(msg):
		return nil, ErrNotUTF8
	}
	return msg, nil
}

// expectBy bounds the reads of a message. Once a close frame has been written, its
// own bound holds.
func (s *Socket) expectBy(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.saidClose {
		_ = s.conn.SetReadDeadline(t) // a connection that fails here fails its next read too
	}
}

// end frees the connection after the last read.
func (s *Socket) end(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", ErrClientGone, err)
	}
	s.cancel(s.err)
	closing := len(s.closing) > 0 && !s.dead
	if s.beat != nil {
		s.beat.Stop()
	}
	s.mu.Unlock()
	if closing {
		s.partWith(err)
	}
	s.mu.Lock()
	s.dead = true
	s.drop()
	s.mu.Unlock()
	_ = s.conn.Close()
}

// partWith lets the close frame reach a client that is still there. Closing at once
// while it sends would reset the connection, and take the frame with it.
func (s *Socket) partWith(err error) {
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-s.closed:
	case <-timer.C:
		return
	}
	if answered := new(websocket.CloseError); errors.As(err, &answered) {
		return
	}
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(closeWait))
	_, _ = io.CopyN(io.Discard, s.conn, closeRead)
}
