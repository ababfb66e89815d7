// Package jsonscan walks JSON text in one pass without decoding it: it validates
// and tells where values stand, so that callers can look at a few fields and splice
// bytes while everything they do not know stays as it was.
package jsonscan

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"unicode/utf8"
)

// Span is the place of a value in the text: B[Start:End], strings with their quotes.
type Span struct{ Start, End int }

// Empty reports whether the span marks nothing.
func (s Span) Empty() bool { return s.End <= s.Start }

// Of returns the bytes of the span in b.
func (s Span) Of(b []byte) []byte { return b[s.Start:s.End] }

// Cursor reads values one after another. After a syntax fault Bad is set, I is
// where it was seen, and every further call returns the zero value.
//
//	for c.Object(); c.Key(); {
//		switch string(c.Name) {
//		case "id": id = c.Skip()
//		default: c.Skip()
//		}
//	}
//
// Each key's value must be consumed before the next Key, each element before the
// next Elem.
type Cursor struct {
	B     []byte
	I     int
	Depth int
	Limit int // depth beyond which a value is refused; 0 means 64
	Bad   bool
	Deep  bool   // refused because of Limit
	Name  []byte // the key that Key found, without quotes, escapes as they stand
	KeyAt int    // where that key begins, with its quote
	first bool
}

const defaultDepth = 64

func (c *Cursor) fail() {
	c.Bad = true
}

// space returns the next byte that is no white space, without consuming it.
func (c *Cursor) space() byte {
	if c.I < len(c.B) && c.B[c.I] > ' ' {
		return c.B[c.I]
	}
	return c.skipSpace()
}

func (c *Cursor) skipSpace() byte {
	for ; c.I < len(c.B); c.I++ {
		switch ch := c.B[c.I]; ch {
		case ' ', '\n', '\t', '\r':
		default:
			return ch
		}
	}
	return 0
}

func (c *Cursor) open(ch byte) bool {
	if c.Bad {
		return false
	}
	if c.space() != ch {
		c.fail()
		return false
	}
	limit := c.Limit
	if limit == 0 {
		limit = defaultDepth
	}
	if c.Depth++; c.Depth > limit {
		c.Deep = true
		c.fail()
		return false
	}
	c.I++
	c.first = true
	return true
}

// Object enters an object; follow it with Key.
func (c *Cursor) Object() bool { return c.open('{') }

// Array enters an array; follow it with Elem.
func (c *Cursor) Array() bool { return c.open('[') }

// next handles what stands between two members; false at the closing bracket.
func (c *Cursor) next(end byte) bool {
	if c.Bad {
		return false
	}
	ch := c.space()
	if ch == end {
		c.I++
		c.Depth--
		c.first = false
		return false
	}
	if c.first {
		c.first = false
		return true
	}
	if ch != ',' {
		c.fail()
		return false
	}
	c.I++
	if c.space() == end {
		c.fail()
		return false
	}
	return true
}

// Key moves to the next member and sets Name; false at the end of the object.
func (c *Cursor) Key() bool {
	if !c.next('}') {
		return false
	}
	s := c.str()
	if c.Bad {
		return false
	}
	c.Name, c.KeyAt = c.B[s.Start+1:s.End-1], s.Start
	if c.space() != ':' {
		c.fail()
		return false
	}
	c.I++
	return true
}

// Elem moves to the next element; false at the end of the array.
func (c *Cursor) Elem() bool { return c.next(']') }

// Peek returns the first byte of the next value: one of { [ " t f n - 0-9, or 0.
func (c *Cursor) Peek() byte {
	if c.Bad {
		return 0
	}
	return c.space()
}

// Skip consumes one value of any kind and returns its place.
func (c *Cursor) Skip() Span {
	if c.Bad {
		return Span{}
	}
	switch ch := c.space(); ch {
	case '"':
		return c.str()
	case '{':
		start := c.I
		for c.Object(); c.Key(); {
			c.Skip()
		}
		return Span{start, c.I}
	case '[':
		start := c.I
		for c.Array(); c.Elem(); {
			c.Skip()
		}
		return Span{start, c.I}
	case 't':
		return c.word("true")
	case 'f':
		return c.word("false")
	case 'n':
		return c.word("null")
	default:
		return c.number()
	}
}

func (c *Cursor) word(w string) Span {
	end := c.I + len(w)
	if end > len(c.B) || string(c.B[c.I:end]) != w {
		c.fail()
		return Span{}
	}
	s := Span{c.I, end}
	c.I = end
	return s
}

func (c *Cursor) digits() bool {
	from := c.I
	for c.I < len(c.B) && c.B[c.I]-'0' <= 9 {
		c.I++
	}
	return c.I > from
}

func (c *Cursor) at(ch byte) bool { return c.I < len(c.B) && c.B[c.I] == ch }

// number follows RFC 8259 section 6.
func (c *Cursor) number() Span {
	start := c.I
	if c.at('-') {
		c.I++
	}
	if c.at('0') {
		c.I++
	} else if !c.digits() {
		c.fail()
		return Span{}
	}
	if c.at('.') {
		if c.I++; !c.digits() {
			c.fail()
			return Span{}
		}
	}
	if c.at('e') || c.at('E') {
		if c.I++; c.at('+') || c.at('-') {
			c.I++
		}
		if !c.digits() {
			c.fail()
			return Span{}
		}
	}
	return Span{start, c.I}
}

// str consumes a string and returns its place with the quotes.
func (c *Cursor) str() Span {
	if !c.at('"') {
		c.fail()
		return Span{}
	}
	start := c.I
	ascii := true
	for i := start + 1; ; {
		i = plain(c.B, i)
		if i == len(c.B) {
			c.I = i
			c.fail()
			return Span{}
		}
		switch ch := c.B[i]; {
		case ch == '"':
			if !ascii && !utf8.Valid(c.B[start:i]) {
				c.fail()
				return Span{}
			}
			c.I = i + 1
			return Span{start, c.I}
		case ch >= utf8.RuneSelf:
			ascii = false
			for i++; i < len(c.B) && c.B[i] >= utf8.RuneSelf; i++ {
			}
		case ch == '\\' && c.escape(i):
			i = c.I
		default:
			c.I = i
			c.fail()
			return Span{}
		}
	}
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain returns the first index from i on that ends a run of ordinary ASCII: a
// quote, a backslash, a control character, a byte over 127, or the end. It looks
// at eight bytes at a time; the lowest flag is exact, for borrows only travel up.
func plain(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		quote, slash := x^('"'*ones), x^('\\'*ones)
		if m := ((quote - ones) | (slash - ones) | (x - ' '*ones) | x) & highs; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' && b[i] < utf8.RuneSelf {
		i++
	}
	return i
}

// escape checks the escape sequence at i and moves I behind it.
func (c *Cursor) escape(i int) bool {
	if i+1 >= len(c.B) {
		return false
	}
	switch c.B[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		c.I = i + 2
		return true
	case 'u':
		if i+6 > len(c.B) {
			return false
		}
		for _, ch := range c.B[i+2 : i+6] {
			if !isHex(ch) {
				return false
			}
		}
		c.I = i + 6
		return true
	default:
		return false
	}
}

func isHex(ch byte) bool {
	return ch-'0' <= 9 || ch-'a' <= 5 || ch-'A' <= 5
}

// End reports whether only white space is left and nothing was wrong.
func (c *Cursor) End() bool {
	return !c.Bad && c.space() == 0 && c.I == len(c.B)
}

// Unquote returns the string that a span with quotes stands for; ok is false when
// the value is no string.
func Unquote(v []byte) (s string, ok bool) {
	if len(v) < 2 || v[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return string(v[1 : len(v)-1]), true
	}
	if json.Unmarshal(v, &s) != nil {
		return "", false
	}
	return s, true
}

// AppendQuote appends s as a JSON string; bytes that are no UTF-8 become U+FFFD.
func AppendQuote(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		ch := s[i]
		if ch >= ' ' && ch < utf8.RuneSelf && ch != '"' && ch != '\\' {
			i++
			continue
		}
		if ch >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		dst = append(dst, s[from:i]...)
		dst = appendEscape(dst, ch)
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}

func appendEscape(dst []byte, ch byte) []byte {
	const hex = "0123456789abcdef"
	switch {
	case ch == '"' || ch == '\\':
		return append(dst, '\\', ch)
	case ch == '\n':
		return append(dst, '\\', 'n')
	case ch == '\t':
		return append(dst, '\\', 't')
	case ch == '\r':
		return append(dst, '\\', 'r')
	case ch >= utf8.RuneSelf:
		return append(dst, "\uFFFD"...)
	default:
		return append(dst, '\\', 'u', '0', '0', hex[ch>>4], hex[ch&15])
	}
}
