package dialect

import (
	"bytes"
	"net/http"
	"slices"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// ReasoningHeader is how a Meta event, and with it the client, is told that reasoning is
// presented in another way than usual: ReasoningBoth or ReasoningInline.
const ReasoningHeader = "X-Sluice-Reasoning"

// The ways in which reasoning reaches clients. ReasoningContent is the usual one.
const (
	// ReasoningContent is the member reasoning_content beside content.
	ReasoningContent = "reasoning_content"
	// ReasoningBoth is that, and the same in the member reasoning.
	ReasoningBoth = "both"
	// ReasoningInline is a block inside content, before the text.
	ReasoningInline = "inline"
)

// What stands around reasoning inside the text, as models write it themselves.
const (
	thoughtOpen  = "<think>\n"
	thoughtClose = "\n</think>\n\n"
)

// thoughts is how reasoning is presented. Adapters bring it as events of kind Reasoning,
// or as reasoning_content in payloads of their own; that is also the usual presentation,
// so that the zero value changes nothing.
type thoughts uint8

const (
	apart thoughts = iota
	twice
	inline
)

// thoughtsOf reads what a Meta event says, if it says something.
func thoughtsOf(h http.Header, before thoughts) thoughts {
	switch h.Get(ReasoningHeader) {
	case ReasoningBoth:
		return twice
	case ReasoningInline:
		return inline
	default:
		return before
	}
}

// appendThought adds the delta of a piece of reasoning.
func (s *chunks) appendThought(dst []byte, c *choice, text string) []byte {
	switch s.opts.thoughts {
	case inline:
		if !c.thinking {
			c.thinking = true
			text = thoughtOpen + text
		}
		return s.appendContent(dst, c, text)
	case twice:
		dst = jsonscan.AppendQuote(append(dst, `"delta":{"reasoning_content":`...), text)
		dst = append(dst, `,"reasoning":`...)
	default:
		dst = append(dst, `"delta":{"reasoning_content":`...)
	}
	return append(jsonscan.AppendQuote(dst, text), '}')
}

// endThought adds the chunk that ends a block inside the text, before what ev brings.
func (s *chunks) endThought(dst []byte, c *choice, ev *streaming.Event) []byte {
	if !c.thinking || ev.Kind == streaming.Reasoning || !ev.Kind.Commits() && ev.Stop == "" {
		return dst
	}
	c.thinking = false
	dst = s.open(dst, ev.Index)
	return s.close(s.appendContent(dst, c, thoughtClose), nil, "")
}

// presentRaw returns what goes out of a payload that came in the client's dialect, and
// adds what goes out before it. Only reasoning is looked for, and the first text behind
// it, for a payload may hold the end of the one and the beginning of the other, and
// calls, which some servers send together with what was thought before them.
func (s *chunks) presentRaw(dst []byte, c *choice, ev *streaming.Event) (_, raw []byte) {
	mixed := (ev.Kind == streaming.ToolCall || ev.Kind == streaming.Text && !c.answering) && bytes.Contains(ev.Raw, reasoningKey)
	if ev.Kind == streaming.Reasoning || mixed {
		if raw := s.presentChunk(c, ev); raw != nil {
			c.answering = false
			return dst, raw
		}
	}
	c.answering = c.answering || ev.Kind == streaming.Text
	return s.endThought(dst, c, ev), ev.Raw
}

var reasoningKey = []byte(`"reasoning_content"`)

// presentChunk returns a payload with its reasoning as it is to be; nil: it has none.
func (s *chunks) presentChunk(c *choice, ev *streaming.Event) []byte {
	at := memberOfChoices(ev.Raw, "delta")
	if len(at) != 1 {
		return nil
	}
	m := readMessage(at[0].Of(ev.Raw))
	if !m.thinks() {
		return nil
	}
	var delta []byte
	if s.opts.thoughts == twice {
		delta = m.twice()
	} else {
		var begin, end string
		if !c.thinking {
			begin = thoughtOpen
		}
		if c.thinking = ev.Kind != streaming.ToolCall && ev.Stop == "" && len(m.content) <= len(`""`); !c.thinking {
			end = thoughtClose
		}
		delta = m.inline(begin, end)
	}
	return slices.Concat(ev.Raw[:at[0].Start], delta, ev.Raw[at[0].End:])
}

// Present returns a complete body with its reasoning presented as it is to be. how is
// one of the ways above; the body itself is returned when nothing has to change.
func Present(op providers.Op, body []byte, how string) []byte {
	way := thoughtsOf(http.Header{ReasoningHeader: {how}}, apart)
	if op != providers.Chat || way == apart || !bytes.Contains(body, reasoningKey) {
		return body
	}
	var out []byte
	from := 0
	for _, at := range memberOfChoices(body, "message") {
		m := readMessage(at.Of(body))
		if !m.thinks() {
			continue
		}
		out = append(out, body[from:at.Start]...)
		if from = at.End; way == twice {
			out = append(out, m.twice()...)
		} else {
			out = append(out, m.inline(thoughtOpen, thoughtClose)...)
		}
	}
	return append(out, body[from:]...)
}

// memberOfChoices finds the objects that choices have under a name.
func memberOfChoices(b []byte, name string) (all []jsonscan.Span) {
	c := jsonscan.Cursor{B: b, Limit: 1 << 12}
	for c.Object(); c.Key(); {
		if string(c.Name) != "choices" || c.Peek() != '[' {
			c.Skip()
			continue
		}
		for c.Array(); c.Elem(); {
			if c.Peek() != '{' {
				c.Skip()
				continue
			}
			for c.Object(); c.Key(); {
				is := string(c.Name) == name && c.Peek() == '{'
				if v := c.Skip(); is {
					all = append(all, v)
				}
			}
		}
	}
	if c.Bad {
		return nil
	}
	return all
}

// message is the object that has content and reasoning: a delta, or a whole message.
type message struct {
	object           []byte
	content, thought []byte // JSON; nil when missing, content also when it is null
}

func readMessage(object []byte) message {
	m := message{object: object}
	c := jsonscan.Cursor{B: object, Limit: 1 << 12}
	for c.Object(); c.Key(); {
		name := string(c.Name)
		switch v := c.Skip().Of(object); {
		case name == "reasoning_content":
			m.thought = v
		case name == "content" && string(v) != "null":
			m.content = v
		}
	}
	return m
}

// thinks reports whether there is any reasoning.
func (m *message) thinks() bool { return len(m.thought) > len(`""`) && m.thought[0] == '"' }

// each calls visit for every member.
func (m *message) each(visit func(name string, value []byte)) {
	c := jsonscan.Cursor{B: m.object, Limit: 1 << 12}
	for c.Object(); c.Key(); {
		name := string(c.Name)
		visit(name, c.Skip().Of(m.object))
	}
}

// twice gives the reasoning both names. What the upstream itself calls reasoning goes.
func (m *message) twice() []byte {
	var dst []byte
	m.each(func(name string, value []byte) {
		if name == "reasoning" {
			return
		}
		dst = appendMember(dst, name, value)
		if name == "reasoning_content" {
			dst = appendMember(dst, "reasoning", value)
		}
	})
	return append(dst, '}')
}

// inline puts the reasoning before the text, and takes its own members out. The text of a
// JSON string is not looked into for that.
func (m *message) inline(begin, end string) []byte {
	content := jsonscan.AppendQuote(nil, begin)
	content = append(content[:len(content)-1], m.thought[1:len(m.thought)-1]...)
	tail := jsonscan.AppendQuote(nil, end)
	content = append(content, tail[1:len(tail)-1]...)
	if len(m.content) > 0 && m.content[0] == '"' {
		content = append(content, m.content[1:len(m.content)-1]...)
	}
	content = append(content, '"')
	var dst []byte
	placed := false
	m.each(func(name string, value []byte) {
		switch name {
		case "reasoning", "thinking":
		case "content", "reasoning_content":
			if !placed {
				placed = true
				dst = appendMember(dst, "content", content)
			}
		default:
			dst = appendMember(dst, name, value)
		}
	})
	return append(dst, '}')
}

// appendMember adds a member to an object, which begins with the first.
func appendMember(dst []byte, name string, value []byte) []byte {
	if len(dst) == 0 {
		dst = append(dst, '{', '"')
	} else {
		dst = append(dst, ',', '"')
	}
	dst = append(append(dst, name...), '"', ':')
	return append(dst, value...)
}

// textOf is the text of a choice, with its reasoning where that is presented inside.
func (s *whole) textOf(a *answer) string {
	if s.opts.thoughts != inline || len(a.reasoning) == 0 {
		return string(a.text)
	}
	return thoughtOpen + string(a.reasoning) + thoughtClose + string(a.text)
}

// scoresOf are the tokens of textOf.
func (s *whole) scoresOf(a *answer) []scored {
	if s.opts.thoughts != inline || len(a.reasoning) == 0 {
		return a.scores
	}
	all := make([]scored, 0, len(a.thoughtScores)+len(a.scores))
	for _, t := range a.thoughtScores {
		all = append(all, scored{t.TokenLogprob, len(thoughtOpen) + t.at})
	}
	for _, t := range a.scores {
		all = append(all, scored{t.TokenLogprob, len(thoughtOpen) + len(a.reasoning) + len(thoughtClose) + t.at})
	}
	return all
}

// appendReasoning adds the members of a message that carry reasoning.
func (s *whole) appendReasoning(dst []byte, a *answer) []byte {
	if len(a.reasoning) == 0 || s.opts.thoughts == inline {
		return dst
	}
	quoted := jsonscan.AppendQuote(nil, string(a.reasoning))
	dst = append(append(dst, `,"reasoning_content":`...), quoted...)
	if s.opts.thoughts == twice {
		dst = append(append(dst, `,"reasoning":`...), quoted...)
	}
	return dst
}
