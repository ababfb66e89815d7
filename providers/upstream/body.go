package upstream

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// body reads the body of one answer. Chunks are decoded in place, in the buffer of the
// reader, so that a body that is waited for holds no memory of its own.
type body struct {
	src   io.Reader
	buf   *[]byte // pooled, holds rest
	rest  []byte  // read behind the head and not yet handed on
	form  form
	left  int64 // counted: bytes to come
	parts chunks
	err   error // of the last read, kept
	ended bool  // its end was seen
	keep  bool  // the connection can serve again
	over  bool  // the exchange was closed: what the connection brings is another's
}

// form is how a body tells its end (RFC 9112 section 6.3).
type form uint8

const (
	untilClose form = iota
	counted
	chunked
)

// begin takes over what h left in its buffer. An error says that the body has no end
// that one could rely on.
func (b *body) begin(src io.Reader, h *head, method string) error {
	b.src, b.buf, b.rest = src, h.buf, h.rest
	b.keep = h.minor == '1' && !hasToken(h.header.Values("Connection"), "close")
	if err := b.frame(h, method); err != nil || len(b.rest) == 0 {
		b.release()
		return err
	}
	return nil
}

func (b *body) frame(h *head, method string) error {
	coding, length := h.header.Values("Transfer-Encoding"), h.header.Values("Content-Length")
	n, ok := oneLength(length)
	switch {
	case len(coding) > 0 && (len(coding) > 1 || !isWord(coding[0], "chunked")):
		return malformed("Transfer-Encoding %.40q", strings.Join(coding, ", "))
	case !ok:
		return malformed("Content-Length %.40q", strings.Join(length, ", "))
	case h.status == http.StatusNoContent || h.status == http.StatusNotModified || method == http.MethodHead:
		b.finish()
	case len(coding) > 0:
		b.form = chunked                    // in HTTP/1.0 too, whose connections are not kept (RFC 9112 section 6.1)
		b.keep = b.keep && len(length) == 0 // both: somebody in between may have read it otherwise
	case len(length) > 0:
		if b.form, b.left = counted, n; n == 0 {
			b.finish()
		}
	default:
		b.form, b.keep = untilClose, false
	}
	return nil
}

// isWord compares without regard to the case of ASCII letters. strings.EqualFold also
// takes the Kelvin sign for a k.
func isWord(got, want string) bool { return len(got) == len(want) && strings.EqualFold(got, want) }

// oneLength reads a length that may be repeated but not contradicted; none is 0.
func oneLength(values []string) (n int64, ok bool) {
	if len(values) == 0 {
		return 0, true
	}
	for i, v := range values {
		if v == "" || v[0] == '+' || v[0] == '-' || i > 0 && v != values[0] {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	return n, err == nil
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

func (b *body) finish() {
	b.ended, b.err = true, io.EOF
	b.keep = b.keep && len(b.rest) == 0
}

func (b *body) fail(err error) { b.err = err }

// release gives the pooled buffer back.
func (b *body) release() {
	if b.buf != nil {
		headBuffers.Put(b.buf)
	}
	b.buf, b.rest = nil, nil
}

var errOver = errors.New("the answer was closed")

// Read implements io.Reader. It reads the connection at most once for bytes that it
// returns.
func (b *body) Read(p []byte) (int, error) {
	if b.over {
		return 0, errOver
	}
	return b.read(p)
}

func (b *body) read(p []byte) (int, error) {
	for b.err == nil && len(p) > 0 {
		into := p
		if b.form == counted {
			into = p[:min(int64(len(p)), b.left)]
		}
		n, err := b.fill(into)
		n = b.take(into[:n])
		if err != nil && b.err == nil {
			b.fail(b.broken(err))
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, b.err
}

func (b *body) fill(p []byte) (n int, err error) {
	if len(b.rest) == 0 {
		return b.src.Read(p)
	}
	n = copy(p, b.rest)
	if b.rest = b.rest[n:]; len(b.rest) == 0 {
		b.release()
	}
	return n, nil
}

// take strips p of its framing and returns how much content is left at its front.
func (b *body) take(p []byte) int {
	switch b.form {
	case counted:
		if b.left -= int64(len(p)); b.left == 0 {
			b.finish()
		}
	case chunked:
		n, used, err := b.parts.decode(p)
		switch {
		case err != nil:
			b.fail(err)
		case b.parts.done():
			b.keep = b.keep && used == len(p)
			b.finish()
		}
		return n
	}
	return len(p)
}

// broken judges the end of the connection.
func (b *body) broken(err error) error {
	if b.form == untilClose && err == io.EOF {
		b.ended = true
		return io.EOF
	}
	return noEOF(err)
}
