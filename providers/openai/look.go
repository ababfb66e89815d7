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
	unusable bool // an index that names no choice or call, or too many choices

	index    int
	indexed  bool
	odd      bool // the choice or its delta has a shape that no client reads
	delta    bool
	thought  jsonscan.Span // reasoning under another name than clients read
	told     bool          // reasoning_content says something, the name that clients read
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
		switch {
		case c.Peek() != '{':
			l.odd = l.odd || l.choices == 0
			c.Skip()
		case l.choices == 0:
			l.scanChoice(c)
		default:
			l.scanOther(c)
		}
	}
	if l.choices > maxChoices {
		l.unusable = true
	}
}

// scanOther looks at a choice behind the first only as far as the payload may have
// to be refused for it; what it carries is read when each stands alone.
func (l *look) scanOther(c *jsonscan.Cursor) {
	for c.Object(); c.Key(); {
		if string(c.Name) == "index" {
			l.number(c)
		} else {
			c.Skip()
		}
	}
}

func (l *look) scanChoice(c *jsonscan.Cursor) {
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "index":
			l.index, l.indexed = l.number(c)
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
		case "reasoning_content":
			v := c.Skip()
			l.told = isSet(v, c.B)
			l.content(v, c.B, streaming.Reasoning)
		case "reasoning", "thinking": // vLLM and OpenRouter; servers with Ollama's names
			l.thought = c.Skip()
			l.content(l.thought, c.B, streaming.Reasoning)
		case "reasoning_details":
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

// unnamed reports whether the delta carries reasoning that clients would not find.
func (l *look) unnamed(b []byte) bool { return !l.told && isSet(l.thought, b) }

// content counts a value that a client would show. Whatever a delta carries that is
// not empty is content, known or not, since it cannot be taken back.
func (l *look) content(v jsonscan.Span, b []byte, kind streaming.Kind) {
	n := contentSize(v, b)
	if n == 0 {
		return
	}
	l.size += n
	if l.kind == streaming.Lifecycle {
		l.kind = kind
	}
}

// contentSize is how many bytes of text a value holds: of a string what it stands for, so
// that escapes are not counted as tokens; of anything else its JSON; nothing for null and
// what is empty.
func contentSize(v jsonscan.Span, b []byte) int {
	n := v.End - v.Start
	switch {
	case n <= 2 || n == 4 && string(v.Of(b)) == "null":
		return 0
	case b[v.Start] == '"':
		return textSize(b[v.Start+1 : v.End-1])
	default:
		return n
	}
}

func (l *look) scanTools(c *jsonscan.Cursor) {
	if c.Peek() != '[' {
		l.toolsOdd = c.Peek() != 'n'
		c.Skip()
		return
	}
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
	}
}

func (l *look) scanTool(c *jsonscan.Cursor) {
	var t toolLook
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "index":
			t.index, t.indexed = l.number(c)
		case "id":
			t.id = c.Skip()
		case "function":
			var n int
			t.name, n = toolFunction(c)
			l.size += n
		default:
			c.Skip()
		}
	}
	l.tools = append(l.tools, t)
}

// toolFunction finds the name of a call's function, and how many bytes of content
// its name and arguments are.
func toolFunction(c *jsonscan.Cursor) (name jsonscan.Span, size int) {
	if c.Peek() != '{' {
		c.Skip()
		return name, 0
	}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "name":
			name = c.Skip()
			size += contentSize(name, c.B)
		case "arguments":
			size += contentSize(c.Skip(), c.B)
		default:
			c.Skip()
		}
	}
	return name, size
}

const (
	// maxIndex is the highest index of a choice or a tool call.
	maxIndex = 4095
	// maxChoices is how many choices one payload may hold.
	maxChoices = 128
)

// number reads an index. One that is null counts as missing; one that is there but
// is no index makes the payload unusable, for nobody knows whose content it is.
func (l *look) number(c *jsonscan.Cursor) (n int, ok bool) {
	v := c.Skip().Of(c.B)
	if string(v) == "null" {
		return 0, false
	}
	if n, ok = smallInt(v); !ok {
		l.unusable = true
	}
	return n, ok
}

// smallInt reads an index from 0 to maxIndex; anything else is 0 and not ok.
func smallInt(v []byte) (n int, ok bool) {
	if len(v) == 0 || len(v) > 4 {
		return 0, false
	}
	for _, ch := range v {
		if ch < '0' || ch > '9' {
			return 0, false
		}
		n = 10*n + int(ch-'0')
	}
	if n > maxIndex {
		return 0, false
	}
	return n, true
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
