package streaming

import (
	"errors"
	"net/http"
	"time"
)

// SSE is the sink that writes an answer as text/event-stream (WHATWG HTML section
// 9.2). The status line is held back until the first Send that has bytes, or the
// first Heartbeat.
type SSE struct {
	out     clientWriter
	enc     Encoder
	started bool
	failed  error
}

// NewSSE returns a sink for one answer. writeLimit bounds each write; protoMajor is
// the client's HTTP version. conn, which may be nil, is the client's connection, for a body
// that HTTP/1.1 sends in chunks.
func NewSSE(w http.ResponseWriter, protoMajor int, enc Encoder, writeLimit time.Duration, conn *Conn) *SSE {
	s := &SSE{out: newClientWriter(w, protoMajor, writeLimit), enc: enc}
	s.out.conn = conn
	return s
}

// Started reports whether the status line has gone out.
func (s *SSE) Started() bool { return s.started }

// Send writes a batch as one write and one flush.
func (s *SSE) Send(batch []Event) error {
	p := outBuffers.Get().(*[]byte)
	buf := (*p)[:headroom]
	defer func() { giveOut(p, buf) }()
	for i := range batch {
		if m := batch[i].Meta; m != nil && !s.started {
			copyHeader(s.out.w.Header(), m.Header)
		}
		var err error
		if buf, err = s.enc.Append(buf, &batch[i]); err != nil {
			return err
		}
	}
	if len(buf) == headroom {
		return nil
	}
	s.start()
	return s.send(buf)
}

// Heartbeat commits the status and writes the dialect's sign of life.
func (s *SSE) Heartbeat() (sent bool, err error) {
	var room [512]byte
	beat := s.enc.AppendHeartbeat(room[:headroom])
	if len(beat) == headroom && s.started {
		return false, nil
	}
	s.start()
	return len(beat) > headroom, s.send(beat)
}

// End writes the terminator, or the error in the dialect's form.
func (s *SSE) End(err error) error {
	if s.failed != nil || errors.Is(err, ErrClientGone) || errors.Is(err, ErrSlow) {
		s.out.abandon()
		return err
	}
	if err != nil && !s.started {
		return err
	}
	s.start()
	if werr := s.out.finish(s.enc.AppendEnd(make([]byte, headroom, 256), err)); werr != nil {
		s.failed = werr
		s.out.abandon()
		if err == nil {
			return werr
		}
	}
	return err
}

func (s *SSE) send(b []byte) error {
	if s.failed == nil {
		s.failed = s.out.write(b)
	}
	return s.failed
}

func (s *SSE) start() {
	if s.started {
		return
	}
	s.started = true
	h := s.out.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	s.out.w.WriteHeader(http.StatusOK)
}

func copyHeader(dst, src http.Header) {
	for k, v := range src {
		dst[k] = v
	}
}
