package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Bounds of an answer's head. Beyond them the upstream is not speaking HTTP to us.
const (
	maxHead    = 256 << 10
	maxInterim = 8 // informational answers (RFC 9110 section 15.2) before the real one
)

// malformedError is an answer that is not HTTP/1 (RFC 9112).
type malformedError struct{ what string }

func (e *malformedError) Error() string { return "malformed HTTP answer: " + e.what }

func malformed(format string, args ...any) error {
	return &malformedError{fmt.Sprintf(format, args...)}
}

// errNothing is a connection that ended before the first byte of an answer.
var errNothing = errors.New("the connection ended before an answer")

// head is a head that has been read, and what came behind it in the same reads.
type head struct {
	status int
	minor  byte // '0' or '1': the version is HTTP/1.x
	header Header
	buf    *[]byte // pooled; nil when nothing is left in it
	rest   []byte  // of buf: the beginning of the body
}

var headBuffers = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

// readHead reads up to the end of the first head that is not informational.
func readHead(r io.Reader) (*head, error) {
	p := headBuffers.Get().(*[]byte)
	buf, have, seen := *p, 0, 0
	fail := func(err error) (*head, error) {
		headBuffers.Put(p)
		return nil, err
	}
	for interim := 0; ; {
		if end := endOfHead(buf[:have], seen); end > 0 {
			h, err := parseHead(string(buf[:end]))
			if err != nil {
				return fail(err)
			}
			if h.status >= 200 {
				h.buf, h.rest = p, buf[end:have]
				return h, nil
			}
			if interim++; h.status == 101 || interim > maxInterim {
				return fail(malformed("status %d", h.status))
			}
			have = copy(buf, buf[end:have])
			seen = 0
			continue
		}
		seen = have
		if have == len(buf) {
			if have >= maxHead {
				return fail(malformed("the head is longer than %d bytes", maxHead))
			}
			buf = append(buf, make([]byte, len(buf))...)
		}
		n, err := r.Read(buf[have:])
		have += n
		if n == 0 && err != nil {
			if have == 0 {
				return fail(fmt.Errorf("%w: %w", errNothing, err))
			}
			return fail(fmt.Errorf("the connection ended within the head of an answer: %w", noEOF(err)))
		}
	}
}

// endOfHead finds the end of the empty line; seen bytes have been searched before.
func endOfHead(b []byte, seen int) int {
	from := max(seen-3, 0)
	if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
		return from + i + 4
	}
	// RFC 9112 section 2.2 allows a bare LF as the end of a line.
	if i := bytes.Index(b[from:], []byte("\n\n")); i >= 0 {
		return from + i + 2
	}
	return 0
}

// parseHead takes a head apart. The values share the memory of text.
func parseHead(text string) (*head, error) {
	line, text := cutLine(text)
	h := &head{header: make(Header, 0, 12)}
	if len(line) < 12 || line[:7] != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return nil, malformed("it begins with %.20q", line)
	}
	for _, d := range []byte(line[9:12]) {
		if d < '0' || d > '9' {
			return nil, malformed("status %.20q", line)
		}
		h.status = h.status*10 + int(d-'0')
	}
	if h.minor = line[7]; h.status < 100 || len(line) > 12 && line[12] != ' ' {
		return nil, malformed("status %.20q", line)
	}
	for text != "" {
		if line, text = cutLine(text); line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return nil, malformed("the line %.40q", line)
		}
		value = strings.Trim(value, " \t")
		if strings.ContainsAny(value, "\r\x00") {
			return nil, malformed("the value of %s", name)
		}
		h.header = append(h.header, Field{name, value})
	}
	return h, nil
}

func cutLine(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// isToken checks a field's name (RFC 9110 section 5.6.2); a space before the colon or
// a folded line fails here.
func isToken(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return name != ""
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
