package tokens

import (
	"bytes"
	"math"

	"sluice/providers"
	"sluice/streaming/jsonscan"
)

// Around each message, and before the answer, a chat model's template puts tokens of its
// own (OpenAI, "How to count tokens with tiktoken").
const (
	perMessage = 3
	perPrompt  = 3
)

// maxCounted bounds the bytes that a tokenizer reads of one request. The rest is taken to
// be of the same kind.
const maxCounted = 256 << 10

// maxWalk bounds the nesting that is looked into. Bodies are not deeper than sizes.json_depth.
const maxWalk = 64

// reading is what has been found in a request.
type reading struct {
	m               *Model
	tokens, images  int64
	counted, beyond int // bytes of text that were counted, and that were not
}

// read walks a request's body once.
func read(req *providers.Request, m *Model) *reading {
	r := &reading{m: m}
	c := jsonscan.Cursor{B: req.Body, Limit: 1 << 20} // bounded when it was parsed
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "messages", "prompt", "input", "instructions", "tools", "functions":
			r.value(&c, string(c.Name), 0)
		default:
			c.Skip()
		}
	}
	if r.tokens > 0 {
		r.tokens += perPrompt
	}
	if r.beyond > 0 && r.counted > 0 {
		r.tokens += int64(math.Ceil(float64(r.tokens) * float64(r.beyond) / float64(r.counted)))
	}
	return r
}

// unread are members whose texts a model does not see as text.
var unread = map[string]bool{
	"type": true, "role": true, "id": true, "call_id": true, "tool_call_id": true, "detail": true,
	"file_data": true, "data": true, "format": true, "file_id": true, "url": true,
}

// value looks at one value; name is the member that it stands in.
func (r *reading) value(c *jsonscan.Cursor, name string, depth int) {
	if depth > maxWalk {
		c.Skip()
		return
	}
	switch ch := c.Peek(); {
	case ch == '{':
		r.object(c, depth)
	case ch == '[':
		for c.Array(); c.Elem(); {
			r.value(c, name, depth+1)
		}
	case ch == '"' && !unread[name]:
		r.text(c.Skip().Of(c.B))
	case ch == '-' || ch >= '0' && ch <= '9':
		c.Skip()
		if name == "prompt" || name == "input" {
			r.tokens++ // an array of tokens
		}
	default:
		c.Skip()
	}
}

// object looks at an object, which may be a message or an image.
func (r *reading) object(c *jsonscan.Cursor, depth int) {
	var url, detail jsonscan.Span
	for c.Object(); c.Key(); {
		switch name := string(c.Name); {
		case name == "role":
			r.tokens += perMessage
			c.Skip()
		case name == "image_url" && c.Peek() == '"' || name == "url" && c.Peek() == '"':
			url = c.Skip()
		case name == "detail" && c.Peek() == '"':
			detail = c.Skip()
		default:
			r.value(c, name, depth+1)
		}
	}
	if !url.Empty() {
		r.images += r.m.image(url.Of(c.B), detail.Of(c.B))
	}
}

// text counts one string.
func (r *reading) text(quoted []byte) {
	if r.m.Count == nil {
		return
	}
	s, _ := jsonscan.Unquote(quoted)
	if room := maxCounted - r.counted; len(s) > room {
		r.beyond += len(s) - room
		s = s[:room]
	}
	r.counted += len(s)
	if s != "" {
		r.tokens += int64(r.m.Count(s))
	}
}

func mayHaveImages(body []byte) bool { return bytes.Contains(body, []byte("image_url")) }
