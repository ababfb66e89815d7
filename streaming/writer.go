package streaming

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"
)

// clientWriter writes to one HTTP client: one write and one flush per call, each
// bounded in time.
type clientWriter struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	limit time.Duration
	armed time.Time // when the deadline was last moved
	multi bool      // HTTP/2: an expired deadline resets an idle stream, so it is cleared after each write
}

func newClientWriter(w http.ResponseWriter, protoMajor int, limit time.Duration) clientWriter {
	return clientWriter{w: w, rc: http.NewResponseController(w), limit: limit, multi: protoMajor > 1}
}

// maxPiece is how much of a long text shares one deadline: a client that reads
// slowly but steadily may take longer for the whole of it.
const maxPiece = 64 << 10

func (c *clientWriter) write(b []byte) error {
	for first := true; first || len(b) > 0; first = false {
		if err := c.arm(); err != nil {
			return err
		}
		n := min(len(b), maxPiece)
		if _, err := c.w.Write(b[:n]); err != nil {
			return writeError(err)
		}
		b = b[n:]
	}
	if err := c.rc.Flush(); err != nil {
		return writeError(err)
	}
	if c.multi && c.limit > 0 {
		return writeError(c.rc.SetWriteDeadline(time.Time{}))
	}
	return nil
}

// arm gives the next write its deadline. On HTTP/1 a deadline younger than a
// tenth of the limit stays, for moving it costs as much as a small write.
func (c *clientWriter) arm() error {
	if c.limit <= 0 {
		return nil
	}
	slack := c.limit / 10
	if !c.multi && time.Since(c.armed) < slack {
		return nil
	}
	c.armed = time.Now()
	return writeError(c.rc.SetWriteDeadline(c.armed.Add(c.limit + slack)))
}

// writeError says who is to blame for a failed write.
func writeError(err error) error {
	switch {
	case err == nil, errors.Is(err, http.ErrNotSupported):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrSlow
	default:
		return fmt.Errorf("%w: %w", ErrClientGone, err)
	}
}

// keptOut bounds what a pooled output buffer may hold.
const keptOut = 64 << 10

var outBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

func giveOut(p *[]byte, used []byte) {
	if cap(used) <= keptOut {
		*p = used[:0]
		outBuffers.Put(p)
	}
}
