package streaming

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// clientWriter writes to one HTTP client: one write and one flush per call, each
// bounded in time. Where it is given the connection it leaves the head of the answer to
// net/http and frames the chunks of the body (RFC 9112 section 7.1) itself.
type clientWriter struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	limit time.Duration
	armed time.Duration // on the process's clock: when the deadline was last moved; 0: never
	multi bool          // HTTP/2: an expired deadline resets an idle stream, so it is cleared after each write

	conn *Conn // nil: net/http writes everything
	head bool  // has gone out
}

func newClientWriter(w http.ResponseWriter, protoMajor int, limit time.Duration) clientWriter {
	return clientWriter{w: w, rc: http.NewResponseController(w), limit: limit, multi: protoMajor > 1}
}

// maxPiece is how much of a long text shares one deadline: a client that reads
// slowly but steadily may take longer for the whole of it.
const maxPiece = 64 << 10

// headroom is what the first argument of write leaves free at its front, for the size
// of a chunk.
const headroom = 10

// write sends buf behind its headroom and may grow it.
func (c *clientWriter) write(buf []byte) error {
	if c.conn != nil && c.head {
		return c.writeChunk(buf, "\r\n")
	}
	c.head = true
	return c.writeAll(buf[headroom:])
}

// writeAll sends b by net/http.
func (c *clientWriter) writeAll(b []byte) error {
	if err := c.pieces(c.w, b); err != nil {
		return err
	}
	if err := c.rc.Flush(); err != nil {
		return writeError(err)
	}
	if c.multi && c.limit > 0 {
		return writeError(c.rc.SetWriteDeadline(time.Time{}))
	}
	return nil
}

// pieces writes b, a deadline for each maxPiece.
func (c *clientWriter) pieces(w io.Writer, b []byte) error {
	for first := true; first || len(b) > 0; first = false {
		if err := c.arm(); err != nil {
			return err
		}
		n := min(len(b), maxPiece)
		if _, err := w.Write(b[:n]); err != nil {
			return writeError(err)
		}
		b = b[n:]
	}
	return nil
}

// writeChunk sends buf as one chunk, then tail.
func (c *clientWriter) writeChunk(buf []byte, tail string) error {
	start := putSize(buf[:headroom], len(buf)-headroom)
	return c.pieces(c.conn, append(buf, tail...)[start:])
}

// putSize writes the size line of a chunk at the end of room.
func putSize(room []byte, n int) (start int) {
	const digits = "0123456789abcdef"
	at := len(room) - 2
	copy(room[at:], "\r\n")
	for ok := true; ok; ok = n > 0 {
		at--
		room[at] = digits[n&15]
		n >>= 4
	}
	return at
}

// finish writes the last of a complete answer and ends its body.
func (c *clientWriter) finish(buf []byte) error {
	if c.conn == nil || !c.head {
		return c.write(buf)
	}
	var err error
	if len(buf) > headroom {
		err = c.writeChunk(buf, "\r\n0\r\n\r\n")
	} else { // an empty chunk would be the last one
		err = c.pieces(c.conn, lastChunk)
	}
	c.conn.ended = err == nil
	return err
}

// abandon cuts a connection whose answer does not end in order. One whose writes failed in
// net/http is cut by it.
func (c *clientWriter) abandon() {
	if c.conn != nil && c.head {
		_ = c.conn.Close()
	}
}

// arm gives the next write its deadline. On HTTP/1 a deadline younger than a
// tenth of the limit stays, for moving it costs as much as a small write.
func (c *clientWriter) arm() error {
	if c.limit <= 0 {
		return nil
	}
	slack, now := c.limit/10, Uptime()
	if !c.multi && c.armed != 0 && now-c.armed < slack {
		return nil
	}
	c.armed = now
	deadline := time.Now().Add(c.limit + slack)
	if c.conn != nil {
		return writeError(c.conn.SetWriteDeadline(deadline))
	}
	return writeError(c.rc.SetWriteDeadline(deadline))
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
