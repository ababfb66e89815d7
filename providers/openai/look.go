package openai

import (
	"bytes"

	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// look is what one pass over a streamed payload tells: whether it is JSON, where
// the members stand that matter, and what the first choice carries.
type look struct {
	id, object, created, model, usage, fault jsonscan.Span

	usageKey int  // where the key of usage begins
	others   int  // members that OpenAI does not define for every chunk
	listed   bool // choices is an array
	choices  int  // how many it has

	index    int
	indexed  bool
	odd      bool // the choice or its delta has a shape that no client reads
	delta    bool
	role     jsonscan.Span
	texted   bool // completions: text is there
	finish   jsonscan.Span
	kind     streaming.Kind
	size     int // bytes of content
	tools    []toolLook
	toolsOdd bool
}

type toolLook struct {
	index    int
	indexed  bool
	id, name jsonscan.Span
}

// scan reads one payload; false means that it is no JSON object.
func (l *look) scan(b []byte) bool {
	*l = look{tools: l.tools[:0]}
	c := jsonscan.Cursor{B: b}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "choices":
			l.scanChoices(&c)
		case "id":
			l.id = c.Skip()
		case "object":
			l.object = c.Skip()
		case "created":
			l.created = c.Skip()
		case "model":
			l.model = c.Skip()
		case "usage":
			l.usageKey = c.KeyAt
			l.usage = c.Skip()
		case "error":
			l.fault = c.Skip()
		case "system_fingerprint", "service_tier":
			c.Skip()
		default:
			l.others++
			c.Skip()
		}
	}
	return c.End()
}

func (l *look) scanChoices(c *jsonscan.Cursor) {
	if c.Peek() != '[' {
		c.Skip()
		return
	}
	l.listed = true
	for c.Array(); c.Elem(); l.choices++ {
		if l.choices > 0 || c.Peek() != '{' {
			l.odd = l.odd || l.choices == 0
			c.Skip()
			continue
		}
		l.scanChoice(c)
	}
}

func (l *look) scanChoice(c *jsonscan.Cursor) {
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "index":
			l.index, l.indexed = smallInt(c)
		case "delta":
			l.scanDelta(c)
		case "text":
			l.texted = c.Peek() == '"'
			l.content(c.Skip(), c.B, streaming.Text)
		case "finish_reason":
			l.finish = c.Skip()
		default:
			c.Skip()
		}
	}
}

func (l *look) scanDelta(c *jsonscan.Cursor) {
	if c.Peek() != '{' {
		l.odd = c.Peek() != 'n' || l.odd
		c.Skip()
		return
	}
	l.delta = true
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "content":
			l.content(c.Skip(), c.B, streaming.Text)
		case "role":
			l.role = c.Skip()
		case "reasoning_content", "reasoning", "reasoning_details":
			l.content(c.Skip(), c.B, streaming.Reasoning)
		case "tool_calls":
			l.scanTools(c)
		case "function_call":
			l.content(c.Skip(), c.B, streaming.ToolCall)
		default:
			l.content(c.Skip(), c.B, streaming.Text)
		}
	}
}

// content counts a value that a client would show. Whatever a delta carries that is
// not empty is content, known or not, since it cannot be taken back.
func (l *look) content(v jsonscan.Span, b []byte, kind streaming.Kind) {
	n := v.End - v.Start
	if n <= 2 || n == 4 && string(v.Of(b)) == "null" {
		return
	}
	if b[v.Start] == '"' {
		n -= 2
	}
	l.size += n
	if l.kind == streaming.Lifecycle {
		l.kind = kind
	}
}

func (l *look) scanTools(c *jsonscan.Cursor) {
	if c.Peek() != '[' {
		l.toolsOdd = c.Peek() != 'n'
		c.Skip()
		return
	}
	from := c.I
	for c.Array(); c.Elem(); {
		if c.Peek() != '{' {
			l.toolsOdd = true
			c.Skip()
			continue
		}
		l.scanTool(c)
	}
	if len(l.tools) > 0 {
		l.kind = streaming.ToolCall
		l.size += c.I - from
	}
}

func (l *look) scanTool(c *jsonscan.Cursor) {
	var t toolLook
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "index":
			t.index, t.indexed = smallInt(c)
		case "id":
			t.id = c.Skip()
		case "function":
			t.name = toolName(c)
		default:
			c.Skip()
		}
	}
	l.tools = append(l.tools, t)
}

func toolName(c *jsonscan.Cursor) (name jsonscan.Span) {
	if c.Peek() != '{' {
		c.Skip()
		return name
	}
	for c.Object(); c.Key(); {
		if string(c.Name) == "name" {
			name = c.Skip()
		} else {
			c.Skip()
		}
	}
	return name
}

// smallInt reads an index from 0 to 127; anything else is not ok.
func smallInt(c *jsonscan.Cursor) (n int, ok bool) {
	v := c.Skip().Of(c.B)
	if len(v) == 0 || len(v) > 3 {
		return 0, false
	}
	for _, ch := range v {
		if ch < '0' || ch > '9' {
			return 0, false
		}
		n = 10*n + int(ch-'0')
	}
	return n, n < 128
}

// isSet reports whether a string member is there with at least one character.
func isSet(v jsonscan.Span, b []byte) bool {
	return v.End-v.Start > 2 && b[v.Start] == '"'
}

// isNull reports whether a member is missing or null.
func isNull(v jsonscan.Span, b []byte) bool {
	return v.Empty() || bytes.Equal(v.Of(b), null)
}

var null = []byte("null")
