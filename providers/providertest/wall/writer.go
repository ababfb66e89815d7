package wall

import (
	"bytes"
	"compress/gzip"
	"context"
	"net"
	"net/http"
	"strings"
	"time"
)

// writer brings bytes to the client in the writes that the script means.
type writer struct {
	rw      http.ResponseWriter
	rc      *http.ResponseController
	r       *http.Request
	rec     *record
	ctx     context.Context
	gz      *gzip.Writer
	gzOut   bytes.Buffer
	split   int
	splitAt []int // ascending, still ahead
	drip    time.Duration
	offset  int
	timer   *time.Timer
	started bool
}

func newWriter(rw http.ResponseWriter, r *http.Request, rec *record) *writer {
	return &writer{rw: rw, rc: http.NewResponseController(rw), r: r, rec: rec, ctx: r.Context()}
}

// header sends the response headers, and flushes them.
func (w *writer) header(s *Script, status int, contentType string) {
	w.split, w.splitAt, w.drip = s.Split, s.SplitAt, s.Drip
	h := w.rw.Header()
	h.Set("Content-Type", contentType)
	if s.ContentType != "" {
		h.Set("Content-Type", s.ContentType)
	}
	for _, line := range s.ResponseHeaders {
		name, value, _ := strings.Cut(line, ":")
		h.Add(name, strings.TrimSpace(value))
	}
	if s.HTTP10 {
		// net/http writes the status line and chooses the framing by the request's version: for 1.0 the body ends
		// with the connection.
		w.r.Proto, w.r.ProtoMajor, w.r.ProtoMinor = "HTTP/1.0", 1, 0
		h.Del("Content-Length")
	}
	if s.Gzip {
		h.Set("Content-Encoding", "gzip")
		h.Del("Content-Length")
		w.gz = gzip.NewWriter(&w.gzOut)
	}
	w.rw.WriteHeader(status)
	w.started = true
	w.rec.update(func(q *Request) { q.Status, q.HeadersSent = status, time.Now() })
	if h.Get("Content-Length") == "" {
		// With a length the first write carries the headers; a flush would only cost a packet.
		_ = w.rc.Flush()
	}
}

// write brings p to the client and flushes after every piece of it. An error means that the client is gone.
func (w *writer) write(p []byte) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	if w.gz != nil {
		// Writing into memory does not fail.
		w.gzOut.Reset()
		_, _ = w.gz.Write(p)
		_ = w.gz.Flush()
		p = w.gzOut.Bytes()
	}
	for len(p) > 0 {
		n := w.piece(len(p))
		if err := w.flush(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		if w.drip > 0 {
			if err := w.sleep(w.drip); err != nil {
				return err
			}
		}
	}
	return nil
}

// piece returns how many of the next n bytes go out in one write.
func (w *writer) piece(n int) int {
	if w.drip > 0 {
		n = 1
	}
	if w.split > 0 {
		n = min(n, w.split)
	}
	for len(w.splitAt) > 0 && w.splitAt[0] <= w.offset {
		w.splitAt = w.splitAt[1:]
	}
	if len(w.splitAt) > 0 {
		n = min(n, w.splitAt[0]-w.offset)
	}
	return n
}

func (w *writer) flush(p []byte) error {
	start := time.Now()
	n, err := w.rw.Write(p)
	if err == nil {
		err = w.rc.Flush()
	}
	w.offset += n
	w.rec.wrote(n, time.Since(start))
	return err
}

// end completes a compressed body.
func (w *writer) end() error {
	if w.gz == nil {
		return nil
	}
	w.gzOut.Reset()
	_ = w.gz.Close()
	w.gz = nil
	return w.write(w.gzOut.Bytes())
}

// sleep waits for d, or less when the client goes, which is its error.
func (w *writer) sleep(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	if w.timer == nil {
		w.timer = time.NewTimer(d)
	} else {
		w.timer.Reset(d)
	}
	defer w.timer.Stop()
	select {
	case <-w.timer.C:
		return nil
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// reset breaks the connection with a TCP reset. Where that is impossible (HTTP/2) it returns false.
func (w *writer) reset() bool {
	conn, _, err := w.rc.Hijack()
	if err != nil {
		return false
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
	return true
}
