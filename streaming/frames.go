package streaming

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// Frame is one server-sent event. Its slices are valid until the next call of Next, and
// may not be changed.
type Frame struct {
	Name []byte // of the event; empty for "message"
	Data []byte // all data lines, joined by a newline
}

// FrameTooLargeError says that an event was longer than the reader's limit.
type FrameTooLargeError struct{ Limit int }

func (e *FrameTooLargeError) Error() string {
	return fmt.Sprintf("an upstream event is longer than the limit of %d bytes", e.Limit)
}

// Frames cuts a byte stream into server-sent events as WHATWG HTML section 9.2.6
// defines them: any line end, comments and unknown fields skipped, a last event
// without its blank line dropped. While the source is silent it holds one small
// buffer; it grows for a long event and while much comes at once.
type Frames struct {
	src   io.Reader
	limit int

	buf        []byte
	start, end int // what is read and not yet cut
	scanned    int // where, behind start, the first line stands that is not cut
	looked     int // how much of that line is known to hold no line end
	begun      bool
	skipLF     bool // the last line ended in CR: a LF that follows belongs to it
	got        int  // what the last read brought
	full       bool // it filled the buffer, or nearly
	large      bool // an event was over the limit; nothing behind it is told

	name    []byte
	names   [][]byte // that have come
	data    part
	hasData bool
	joined  []byte // data of an event with several data lines
	useJoin bool
	out     []Frame
}

// part is a part of the buffer.
type part struct{ from, to int }

// frameSlack is what an event has beside its data: field names, line ends, a name.
const frameSlack = 1 << 10

const (
	idleBuffer = 1 << 10
	busyBuffer = 32 << 10
)

var idleBuffers = sync.Pool{New: func() any { b := make([]byte, idleBuffer); return &b }}
var busyBuffers = sync.Pool{New: func() any { b := make([]byte, busyBuffer); return &b }}

// NewFrames reads from src; an event may have up to limit bytes. Call Close when done.
func NewFrames(src io.Reader, limit int) *Frames {
	return &Frames{src: src, limit: limit, buf: takeBuffer(idleBuffer)}
}

func takeBuffer(size int) []byte {
	switch {
	case size <= idleBuffer:
		return *idleBuffers.Get().(*[]byte)
	case size <= busyBuffer:
		return *busyBuffers.Get().(*[]byte)
	default:
		return make([]byte, size)
	}
}

func giveBuffer(b []byte) {
	switch len(b) {
	case idleBuffer:
		idleBuffers.Put(&b)
	case busyBuffer:
		busyBuffers.Put(&b)
	}
}

// Close gives the buffer back; frames of the last Next are no longer valid.
func (f *Frames) Close() {
	giveBuffer(f.buf)
	f.buf = nil
}

// Next reads once and returns the events that are complete by then, which may be
// none. At the end of the source it returns its error, io.EOF for a plain end.
func (f *Frames) Next() ([]Frame, error) {
	if err := f.makeRoom(); err != nil {
		return nil, err
	}
	room := f.buf[f.end:]
	n, err := f.src.Read(room)
	f.end += n
	f.full, f.got = n > len(room)-len(room)/4, n // a decoder in between may have taken the framing off
	f.out = f.out[:0]
	if n > 0 {
		f.cut()
		return f.out, nil
	}
	return nil, err
}

// Unfinished reports whether data of an event has come whose end has not. At the end of
// the source it tells a cut from an end; the event itself is never told.
func (f *Frames) Unfinished() bool {
	line := f.buf[min(f.start+f.scanned, f.end):f.end]
	if f.skipLF && len(line) > 0 && line[0] == '\n' {
		line = line[1:]
	}
	return f.hasData || len(line) > 0 && line[0] != ':'
}

// makeRoom moves what is left to the front and picks a buffer that fits.
func (f *Frames) makeRoom() error {
	left := f.end - f.start
	if f.large || left > f.limit+frameSlack {
		return &FrameTooLargeError{Limit: f.limit}
	}
	if want := f.wanted(left); want != len(f.buf) {
		next := takeBuffer(want)
		copy(next, f.buf[f.start:f.end])
		giveBuffer(f.buf)
		f.buf = next
	} else if f.start > 0 {
		copy(f.buf, f.buf[f.start:f.end])
	}
	f.data.from, f.data.to = f.data.from-f.start, f.data.to-f.start
	f.start, f.end = 0, left
	return nil
}

// wanted is the size of the buffer for the next read, with left bytes to keep.
func (f *Frames) wanted(left int) int {
	size := len(f.buf)
	switch {
	case left == size:
		return max(min(2*size, f.limit+2*frameSlack), busyBuffer)
	case f.full && size < busyBuffer:
		return busyBuffer
	case size > busyBuffer && left <= busyBuffer/2:
		return busyBuffer
	case size == busyBuffer && f.got <= idleBuffer/2 && left <= idleBuffer/2:
		return idleBuffer
	default:
		return size
	}
}

// cut takes complete lines off the buffer and dispatches at blank ones. Names and
// data of an unfinished event stay in the buffer behind start.
func (f *Frames) cut() {
	if !f.begun && !f.begin() {
		return
	}
	at := f.start + f.scanned
	for at < f.end {
		if f.skipLF {
			f.skipLF = false
			if f.buf[at] == '\n' {
				at++
				continue
			}
		}
		rest := f.buf[at:f.end]
		n := f.lineEnd(rest)
		if n < 0 {
			break
		}
		line := rest[:n]
		f.line(line, at)
		at += n + 1
		if len(line) == 0 {
			f.start = at
		}
	}
	f.scanned = at - f.start
}

// lineEnd returns where the first line of rest ends, or -1.
func (f *Frames) lineEnd(rest []byte) int {
	from := f.looked
	f.looked = 0
	n := bytes.IndexByte(rest[from:], '\n')
	line := rest[from:]
	if n >= 0 {
		line = line[:n]
	}
	if cr := bytes.IndexByte(line, '\r'); cr >= 0 {
		n, f.skipLF = cr, true
	}
	if n < 0 {
		f.looked = len(rest)
		return -1
	}
	return from + n
}

// begin drops a byte order mark; false while it may still be incomplete.
func (f *Frames) begin() bool {
	const bom = "\xef\xbb\xbf"
	have := f.buf[f.start:f.end]
	if len(have) < len(bom) && bytes.HasPrefix([]byte(bom), have) {
		return false
	}
	f.begun = true
	if bytes.HasPrefix(have, []byte(bom)) {
		f.start += len(bom)
	}
	return true
}

func (f *Frames) line(line []byte, at int) {
	if len(line) == 0 {
		f.dispatch()
		return
	}
	colon := bytes.IndexByte(line, ':')
	if colon == 0 {
		return // a comment
	}
	field, value := line, line[len(line):]
	if colon > 0 {
		field, value = line[:colon], line[colon+1:]
		at += colon + 1
		if len(value) > 0 && value[0] == ' ' {
			value = value[1:]
			at++
		}
	}
	switch string(field) {
	case "data":
		f.addData(value, at)
	case "event":
		f.name = append(f.name[:0], value...)
	}
}

func (f *Frames) addData(value []byte, at int) {
	if !f.hasData {
		f.hasData, f.useJoin = true, false
		f.data = part{at, at + len(value)}
		return
	}
	if !f.useJoin {
		f.useJoin = true
		f.joined = append(f.joined[:0], f.buf[f.data.from:f.data.to]...)
	}
	f.joined = append(f.joined, '\n')
	f.joined = append(f.joined, value...)
}

func (f *Frames) dispatch() {
	f.large = f.large || f.hasData && max(f.data.to-f.data.from, len(f.joined)) > f.limit
	if f.hasData && !f.large {
		frame := Frame{Data: f.buf[f.data.from:f.data.to]}
		if f.useJoin {
			frame.Data = bytes.Clone(f.joined)
		}
		if len(f.name) > 0 {
			frame.Name = f.intern(f.name)
		}
		f.out = append(f.out, frame)
	}
	f.hasData, f.useJoin, f.name, f.joined = false, false, f.name[:0], f.joined[:0]
}

// A stream has few names, and repeats them: so many of such length are kept.
const maxNames, maxNameLength = 16, 64

// intern returns a copy of a name that stays as it is.
func (f *Frames) intern(name []byte) []byte {
	for _, known := range f.names {
		if bytes.Equal(known, name) {
			return known
		}
	}
	name = bytes.Clone(name)
	if len(f.names) < maxNames && len(name) <= maxNameLength {
		f.names = append(f.names, name)
	}
	return name
}
