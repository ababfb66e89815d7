package streaming

import (
	"bytes"
	"encoding/json"
	"io"
)

// Lines cuts a byte stream into lines, for protocols that send one JSON value on each
// (NDJSON). Lines of white space are skipped. A last line without its end is a line too
// if it is whole as JSON; else it was cut and is dropped. Memory is held as Frames holds it.
type Lines struct {
	in  Frames // its buffer; how events are cut is not used
	out [][]byte
}

// NewLines reads from src; a line may have up to limit bytes. Call Close when done.
func NewLines(src io.Reader, limit int) *Lines {
	return &Lines{in: Frames{src: src, limit: limit, buf: takeBuffer(idleBuffer)}}
}

// Close gives the buffer back; lines of the last Next are no longer valid.
func (l *Lines) Close() { l.in.Close() }

// Next reads once and returns the lines that are complete by then, without their ends;
// there may be none. They are valid until the next call. At the end of the source it
// returns its error, io.EOF for a plain end.
func (l *Lines) Next() ([][]byte, error) {
	f := &l.in
	if err := f.makeRoom(); err != nil {
		return nil, err
	}
	room := f.buf[f.end:]
	n, err := f.src.Read(room)
	f.end += n
	f.full, f.got = n > len(room)-len(room)/4, n // as in Frames
	l.out = l.out[:0]
	if n > 0 {
		l.cut()
		return l.out, nil
	}
	if err == io.EOF && f.start < f.end {
		if rest := f.buf[f.start:f.end]; json.Valid(rest) {
			l.add(rest)
		}
		f.start, f.looked = f.end, 0
		if len(l.out) > 0 || f.large {
			return l.out, nil
		}
	}
	return nil, err
}

func (l *Lines) cut() {
	f := &l.in
	if !f.begun && !f.begin() {
		return
	}
	for f.start < f.end {
		rest := f.buf[f.start:f.end]
		n := bytes.IndexByte(rest[f.looked:], '\n')
		if n < 0 {
			f.looked = len(rest)
			return
		}
		n += f.looked
		f.looked = 0
		f.start += n + 1
		l.add(rest[:n])
	}
}

// add drops the CR of a CRLF with other space around a line. Nothing is told behind a
// line over the limit.
func (l *Lines) add(line []byte) {
	line = bytes.TrimSpace(line)
	l.in.large = l.in.large || len(line) > l.in.limit
	if len(line) > 0 && !l.in.large {
		l.out = append(l.out, line)
	}
}
