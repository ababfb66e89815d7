package streaming

import (
	"net/http"
	"strconv"
	"time"
)

// Body is the sink for an answer that is not a stream of events: one JSON body, or
// bytes that are passed on unread. It has no heartbeat, for its form has none.
type Body struct {
	out     clientWriter
	enc     Encoder
	status  int
	started bool
	failed  error
}

// NewBody returns a sink for one answer. The encoder collects events that are no
// Whole and writes them as one body at the end.
func NewBody(w http.ResponseWriter, protoMajor int, enc Encoder, writeLimit time.Duration) *Body {
	return &Body{out: newClientWriter(w, protoMajor, writeLimit), enc: enc, status: http.StatusOK}
}

// Started reports whether the status line has gone out.
func (s *Body) Started() bool { return s.started }

// Send writes a Whole or a piece of Bytes at once; other events are collected.
func (s *Body) Send(batch []Event) error {
	for i := range batch {
		if err := s.sendOne(&batch[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Body) sendOne(ev *Event) error {
	switch ev.Kind {
	case Whole:
		return s.writeAll(ev.Raw)
	case Bytes:
		s.start()
		return s.write(ev.Raw)
	case Meta:
		s.describe(ev.Meta)
	default:
	}
	_, err := s.enc.Append(nil, ev)
	return err
}

func (s *Body) describe(m *MetaData) {
	if m == nil || s.started {
		return
	}
	copyHeader(s.out.w.Header(), m.Header)
	if m.Status != 0 {
		s.status = m.Status
	}
}

// Heartbeat does nothing.
func (s *Body) Heartbeat() (sent bool, err error) { return false, nil }

// End writes what was collected. When a body that has begun cannot be finished it
// writes nothing: the caller must reset the connection, for a clean end would lie.
func (s *Body) End(err error) error {
	if err != nil || s.started || s.failed != nil {
		return err
	}
	return s.writeAll(s.enc.AppendEnd(nil, nil))
}

func (s *Body) writeAll(b []byte) error {
	h := s.out.w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	s.start()
	return s.write(b)
}

func (s *Body) write(b []byte) error {
	if s.failed == nil {
		s.failed = s.out.writeAll(b)
	}
	return s.failed
}

func (s *Body) start() {
	if !s.started {
		s.started = true
		s.out.w.WriteHeader(s.status)
	}
}
