package openai

import (
	"strconv"

	"sluice/streaming/jsonscan"
)

// mend writes the payload anew as every client can read it: what is missing is
// added, what some client stumbles over is taken out or replaced, and every other
// member stays, in its order, byte for byte.
func (s *state) mend(dst, b []byte) []byte {
	var has struct{ id, object, created, model, choices bool }
	m := writer{dst: append(dst, '{')}
	c := jsonscan.Cursor{B: b}
	for c.Object(); c.Key(); {
		switch name := string(c.Name); name {
		case "id":
			has.id = m.replace(&c, s.id)
		case "object":
			has.object = m.replace(&c, []byte(s.object()))
		case "created":
			has.created = m.replace(&c, s.created)
		case "model":
			has.model = m.replace(&c, s.model)
		case "error":
			c.Skip()
		case "usage":
			if v := c.Skip(); s.keepsUsage(v, b) {
				m.member(name, v.Of(b))
			}
		case "choices":
			has.choices = true
			s.mendChoices(&m, &c)
		default:
			m.member(name, c.Skip().Of(b))
		}
	}
	m.missing(has.id, "id", s.id)
	m.missing(has.object, "object", []byte(s.object()))
	m.missing(has.created, "created", s.created)
	m.missing(has.model, "model", s.model)
	m.missing(has.choices, "choices", []byte("[]"))
	return append(m.dst, '}')
}

// keepsUsage: a usage beside a choice is told at the end, and null only to who asked.
func (s *state) keepsUsage(v jsonscan.Span, b []byte) bool {
	if isNull(v, b) {
		return s.wantsUsage
	}
	return s.look.choices == 0
}

func (s *state) mendChoices(m *writer, c *jsonscan.Cursor) {
	m.key("choices")
	m.dst = append(m.dst, '[')
	if c.Peek() != '[' {
		c.Skip()
	} else {
		for c.Array(); c.Elem(); {
			if c.Peek() != '{' {
				c.Skip()
				continue
			}
			s.mendChoice(m, c)
		}
	}
	m.dst = append(m.dst, ']')
}

func (s *state) mendChoice(m *writer, c *jsonscan.Cursor) {
	var hasIndex, hasBody bool
	body := "text"
	if s.chat {
		body = "delta"
	}
	inner := writer{dst: append(m.dst, '{')}
	for c.Object(); c.Key(); {
		switch name := string(c.Name); {
		case name == "index":
			hasIndex = inner.replace(c, intValue(s.look.index))
		case name == "finish_reason":
			c.Skip()
			inner.member(name, s.finishValue(c.B))
		case name == "delta" && s.chat:
			hasBody = true
			s.mendDelta(&inner, c)
		case name == "text" && !s.chat && c.Peek() != '"':
			c.Skip()
		default:
			hasBody = hasBody || name == body
			inner.member(name, c.Skip().Of(c.B))
		}
	}
	inner.missing(hasIndex, "index", intValue(s.look.index))
	if !hasBody && s.chat {
		inner.key("delta")
		inner.dst = append(inner.dst, s.emptyDelta()...)
	} else {
		inner.missing(hasBody, body, []byte(`""`))
	}
	m.dst = append(inner.dst, '}')
}

func (s *state) emptyDelta() string {
	if s.begun.has(s.look.index) {
		return "{}"
	}
	return `{"role":"assistant"}`
}

func (s *state) finishValue(b []byte) []byte {
	if word := s.stop(b); word != "" {
		return jsonscan.AppendQuote(nil, word)
	}
	return null
}

func (s *state) mendDelta(m *writer, c *jsonscan.Cursor) {
	m.key("delta")
	if c.Peek() != '{' {
		c.Skip()
		m.dst = append(m.dst, s.emptyDelta()...)
		return
	}
	inner := writer{dst: append(m.dst, '{')}
	if !s.begun.has(s.look.index) {
		inner.member("role", []byte(`"assistant"`))
	}
	for c.Object(); c.Key(); {
		switch name := string(c.Name); {
		case name == "role":
			c.Skip()
		case name == "tool_calls" && c.Peek() == '[':
			s.mendTools(&inner, c)
		case name == "tool_calls":
			c.Skip()
		case name == "reasoning_content" && s.look.unnamed(c.B):
			c.Skip()
		case name == "reasoning" || name == "thinking":
			v := c.Skip()
			inner.member(name, v.Of(c.B))
			if v == s.look.thought && s.look.unnamed(c.B) {
				inner.member("reasoning_content", v.Of(c.B))
			}
		default:
			inner.member(name, c.Skip().Of(c.B))
		}
	}
	m.dst = append(inner.dst, '}')
}

func (s *state) mendTools(m *writer, c *jsonscan.Cursor) {
	m.key("tool_calls")
	m.dst = append(m.dst, '[')
	n := 0
	for c.Array(); c.Elem(); {
		if c.Peek() != '{' {
			c.Skip()
			continue
		}
		if n > 0 {
			m.dst = append(m.dst, ',')
		}
		s.mendTool(m, c, &s.look.tools[n])
		n++
	}
	m.dst = append(m.dst, ']')
}

// mendTool writes id and name only in the first fragment of a call. A fragment
// without an index belongs to the newest call, or opens one when it brings an id.
func (s *state) mendTool(m *writer, c *jsonscan.Cursor, t *toolLook) {
	if !t.indexed {
		t.index, t.indexed = s.guessTool(t, c.B), true
	}
	repeated := s.seenTool(t.index)
	inner := writer{dst: append(m.dst, '{')}
	inner.member("index", intValue(t.index))
	for c.Object(); c.Key(); {
		switch name := string(c.Name); {
		case name == "index", name == "id" && repeated:
			c.Skip()
		case name == "function" && repeated && c.Peek() == '{':
			inner.without(c, name, "name")
		default:
			inner.member(name, c.Skip().Of(c.B))
		}
	}
	m.dst = append(inner.dst, '}')
	if !repeated {
		s.tools = append(s.tools, toolSeen{s.look.index, t.index})
	}
}

func (s *state) guessTool(t *toolLook, b []byte) int {
	newest := -1
	for _, seen := range s.tools {
		if seen.choice == s.look.index {
			newest = max(newest, seen.index)
		}
	}
	if isSet(t.id, b) || newest < 0 {
		newest++
	}
	return newest
}

// split writes one payload for each choice of a payload that has several.
func split(b []byte, choices int) [][]byte {
	out := make([][]byte, 0, choices)
	for want := range choices {
		m := writer{dst: []byte{'{'}}
		c := jsonscan.Cursor{B: b}
		for c.Object(); c.Key(); {
			name := string(c.Name)
			if name != "choices" {
				if v := c.Skip(); name != "usage" || want == choices-1 {
					m.member(name, v.Of(b))
				}
				continue
			}
			m.key(name)
			m.dst = append(m.dst, '[')
			i := 0
			for c.Array(); c.Elem(); i++ {
				if v := c.Skip(); i == want {
					m.dst = append(m.dst, v.Of(b)...)
				}
			}
			m.dst = append(m.dst, ']')
		}
		out = append(out, append(m.dst, '}'))
	}
	return out
}

// writer appends members of an object.
type writer struct {
	dst []byte
	any bool
}

func (m *writer) key(name string) {
	if m.any {
		m.dst = append(m.dst, ',')
	}
	m.any = true
	m.dst = append(m.dst, '"')
	m.dst = append(m.dst, name...)
	m.dst = append(m.dst, '"', ':')
}

func (m *writer) member(name string, value []byte) {
	m.key(name)
	m.dst = append(m.dst, value...)
}

// replace skips a value and writes another in its place.
func (m *writer) replace(c *jsonscan.Cursor, value []byte) bool {
	name := string(c.Name)
	c.Skip()
	m.member(name, value)
	return true
}

func (m *writer) missing(has bool, name string, value []byte) {
	if !has {
		m.member(name, value)
	}
}

// without copies an object but for one member.
func (m *writer) without(c *jsonscan.Cursor, name, omit string) {
	m.key(name)
	inner := writer{dst: append(m.dst, '{')}
	for c.Object(); c.Key(); {
		if key := string(c.Name); key == omit {
			c.Skip()
		} else {
			inner.member(key, c.Skip().Of(c.B))
		}
	}
	m.dst = append(inner.dst, '}')
}

func intValue(n int) []byte { return strconv.AppendInt(nil, int64(n), 10) }
