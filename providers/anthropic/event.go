package anthropic

import "sluice/streaming/jsonscan"

// maxDepth bounds the nesting of an event's JSON.
const maxDepth = 256

// event is what one payload of a stream says. Spans are of that payload.
type event struct {
	b       []byte
	kind    jsonscan.Span
	index   int64
	delta   jsonscan.Span
	block   jsonscan.Span
	message jsonscan.Span
	usage   jsonscan.Span
	fault   jsonscan.Span
}

// scan reads one payload and reports whether it is an event.
func (e *event) scan(b []byte) bool {
	*e = event{b: b}
	c := jsonscan.Cursor{B: b, Limit: maxDepth}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "type":
			e.kind = c.Skip()
		case "index":
			e.index = number(&c)
		case "delta":
			e.delta = c.Skip()
		case "content_block":
			e.block = c.Skip()
		case "message":
			e.message = c.Skip()
		case "usage":
			e.usage = c.Skip()
		case "error":
			e.fault = c.Skip()
		default:
			c.Skip()
		}
	}
	return c.End() && !e.kind.Empty()
}

// content is what a block or a delta carries, as JSON; empty members were not there.
type content struct {
	kind, text, thinking, signature, data, id, name, input, partial, stop []byte
}

func (v *content) read(b []byte) {
	*v = content{}
	c := jsonscan.Cursor{B: b, Limit: maxDepth}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "type":
			v.kind = c.Skip().Of(b)
		case "text":
			v.text = c.Skip().Of(b)
		case "thinking":
			v.thinking = c.Skip().Of(b)
		case "partial_json":
			v.partial = c.Skip().Of(b)
		case "signature":
			v.signature = c.Skip().Of(b)
		case "data":
			v.data = c.Skip().Of(b)
		case "id":
			v.id = c.Skip().Of(b)
		case "name":
			v.name = c.Skip().Of(b)
		case "input":
			v.input = c.Skip().Of(b)
		case "stop_reason":
			v.stop = c.Skip().Of(b)
		default:
			c.Skip()
		}
	}
}

// number reads a count; anything else, null too, is -1.
func number(c *jsonscan.Cursor) (n int64) {
	v := c.Skip().Of(c.B)
	for _, ch := range v {
		if ch < '0' || ch > '9' || n > 1<<50 {
			return -1
		}
		n = 10*n + int64(ch-'0')
	}
	if len(v) == 0 {
		return -1
	}
	return n
}

// counts is what usage said last. Members that are null, missing or zero later on leave
// what was said before: only the output grows.
type counts struct {
	told, final                    bool
	input, written, cached, output int64
	thinking                       int64
}

func (u *counts) read(b []byte) {
	if len(b) == 0 || b[0] != '{' {
		return
	}
	c := jsonscan.Cursor{B: b, Limit: maxDepth}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "input_tokens":
			u.grow(&u.input, &c)
		case "cache_creation_input_tokens":
			u.grow(&u.written, &c)
		case "cache_read_input_tokens":
			u.grow(&u.cached, &c)
		case "output_tokens":
			u.grow(&u.output, &c)
		case "output_tokens_details":
			u.details(&c)
		default:
			c.Skip()
		}
	}
}

func (u *counts) details(c *jsonscan.Cursor) {
	if c.Peek() != '{' {
		c.Skip()
		return
	}
	for c.Object(); c.Key(); {
		if string(c.Name) == "thinking_tokens" {
			u.grow(&u.thinking, c)
		} else {
			c.Skip()
		}
	}
}

func (u *counts) grow(to *int64, c *jsonscan.Cursor) {
	if n := number(c); n >= 0 {
		u.told = true
		if n > 0 {
			*to = n
		}
	}
}
