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

// protocol is how every answer begins (RFC 9112 section 2.3).
const protocol = "HTTP/1."

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
	buf    *[]byte // pooled; it holds rest unless a longer one was needed
	rest   []byte  // the beginning of the body
}

var headBuffers = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

// readHead reads up to the end of the first head that is not informational.
func readHead(r io.Reader) (*head, error) {
	p := headBuffers.Get().(*[]byte)
	reader := headReader{src: r, buf: *p}
	h, err := reader.read()
	if err != nil {
		headBuffers.Put(p)
		return nil, err
	}
	h.buf = p
	return h, nil
}

// headReader is the state of readHead.
type headReader struct {
	src     io.Reader
	buf     []byte
	have    int // bytes of buf that have been read
	seen    int // and that hold no end of a head
	interim int // heads passed over
}

func (r *headReader) read() (*head, error) {
	for {
		b := r.buf[:r.have]
		if n := min(len(b), len(protocol)); string(b[:n]) != protocol[:n] {
			return nil, malformed("it begins with %.20q", b) // who speaks something else may never end a line
		}
		end := endOfHead(b, r.seen)
		if end == 0 {
			if err := r.more(); err != nil {
				return nil, err
			}
			continue
		}
		h, err := parseHead(string(b[:end]))
		if err != nil {
			return nil, err
		}
		if h.status >= 200 {
			h.rest = b[end:]
			return h, nil
		}
		// Nobody asked for another protocol, so what follows a 101 is none that is known here.
		if r.interim++; h.status == 101 || r.interim > maxInterim {
			return nil, malformed("status %d", h.status)
		}
		r.have, r.seen = copy(b, b[end:]), 0
	}
}

// more reads once, into a longer buffer if the present one is full.
func (r *headReader) more() error {
	r.seen = r.have
	if r.have == len(r.buf) {
		if r.have >= maxHead {
			return malformed("the head is longer than %d bytes", maxHead)
		}
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	n, err := r.src.Read(r.buf[r.have:])
	r.have += n
	switch {
	case n > 0 || err == nil:
		return nil
	case r.have == 0 && r.interim == 0:
		return fmt.Errorf("%w: %w", errNothing, err)
	default:
		return fmt.Errorf("the connection ended within the head of an answer: %w", noEOF(err))
	}
}

// endOfHead finds the end of the first empty line; seen bytes have been searched
// before. A bare LF ends a line too (RFC 9112 section 2.2). Which of the two comes
// first must be told line by line: a body may hold the other one.
func endOfHead(b []byte, seen int) int {
	for at := max(seen-2, 0); ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		at += i + 1
		switch rest := b[at:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return at + 1
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return at + 2
		}
	}
}

// parseHead takes a head apart. The values share the memory of text.
func parseHead(text string) (*head, error) {
	line, text := cutLine(text)
	h := &head{header: make(Header, 0, 12)}
	if len(line) < 12 || line[:7] != protocol || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
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
		if !isValue(value) {
			return nil, malformed("the value of %.40s", name)
		}
		h.header = append(h.header, Field{name, value})
	}
	return h, nil
}

func cutLine(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// isToken checks the name of a field or method (RFC 9110 section 5.6.2). Of an answer's
// lines, one with a space before the colon and a folded one fail here.
func isToken(name string) bool {
	for i := range len(name) {
		if !tokenBytes[name[i]] {
			return false
		}
	}
	return name != ""
}

var tokenBytes = func() (is [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		is[c] = true
	}
	return is
}()

// isValue checks the value of a field (RFC 9110 section 5.5).
func isValue(value string) bool {
	for i := range len(value) {
		if !isValueByte(value[i]) {
			return false
		}
	}
	return true
}

func isValueByte(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
