package openai

import (
	"slices"

	"sluice/providers/kit"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// wholeLook is what one pass over an answer in one JSON body tells.
type wholeLook struct {
	model jsonscan.Span
	usage *streaming.UsageData
	stop  string // the first finish reason that says the answer was given up, else the last
	size  int    // bytes of content over all choices, in JSON text

	listed bool // choices is an array
	think  *kit.Think
	edits  []edit // what gives reasoning the name that clients read, in their order
}

// edit puts other text in the place of a part.
type edit struct {
	at   jsonscan.Span
	with []byte
}

// splice gives the answer another model's name, unless that is "", and reasoning its
// usual name beside the upstream's own. Everything else stays byte for byte.
func (l *wholeLook) splice(text []byte, model string) []byte {
	edits := l.edits
	if model != "" && !l.model.Empty() {
		edits = append(slices.Clone(edits), edit{l.model, jsonscan.AppendQuote(nil, model)})
		slices.SortFunc(edits, func(a, b edit) int { return a.at.Start - b.at.Start })
	}
	if len(edits) == 0 {
		return text
	}
	var out []byte
	from := 0
	for _, e := range edits {
		out = append(append(out, text[from:e.at.Start]...), e.with...)
		from = e.at.End
	}
	return append(out, text[from:]...)
}

// lookAtWhole expects a JSON object; whatever has another shape than OpenAI's is
// passed over. think, which may be nil, splits the texts of messages.
func lookAtWhole(text []byte, think *kit.Think) (l wholeLook) {
	l.think = think
	c := jsonscan.Cursor{B: text, Limit: 1 << 12}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "usage":
			l.usage = parseUsage(c.Skip().Of(text))
		case "model":
			l.model = c.Skip()
		case "choices":
			l.listed = c.Peek() == '['
			eachObject(&c, l.choice)
		default:
			c.Skip()
		}
	}
	return l
}

func (l *wholeLook) choice(c *jsonscan.Cursor) {
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "text":
			l.size += contentSize(c.Skip(), c.B)
		case "message":
			l.message(c)
		case "finish_reason":
			if v := c.Skip(); isSet(v, c.B) && l.stop != "abort" && l.stop != "error" {
				l.stop = string(c.B[v.Start+1 : v.End-1])
			}
		default:
			c.Skip()
		}
	}
}

func (l *wholeLook) message(c *jsonscan.Cursor) {
	if c.Peek() != '{' {
		c.Skip()
		return
	}
	var content, told, thought jsonscan.Span
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "content":
			content = c.Skip()
			l.size += contentSize(content, c.B)
		case "reasoning_content":
			told = c.Skip()
			l.size += contentSize(told, c.B)
		case "reasoning", "thinking":
			thought = c.Skip()
			l.size += contentSize(thought, c.B)
		case "tool_calls":
			eachObject(c, l.tool)
		default:
			c.Skip()
		}
	}
	switch {
	case isSet(told, c.B):
	case isSet(thought, c.B):
		l.name(told, thought, thought.Of(c.B))
	case l.think != nil && isSet(content, c.B):
		if apart, rest := splitWhole(l.think, content.Of(c.B)); apart != nil {
			l.edits = append(l.edits, edit{content, rest})
			if len(apart) > len(`""`) {
				l.name(told, content, apart)
			}
		}
	}
}

// name adds reasoning_content behind the member that its value was found in, or gives it
// that value where it stands without one.
func (l *wholeLook) name(told, behind jsonscan.Span, value []byte) {
	e := edit{told, value}
	if told.Empty() {
		e = edit{jsonscan.Span{Start: behind.End, End: behind.End}, slices.Concat([]byte(`,"reasoning_content":`), value)}
	}
	l.edits = append(l.edits, e)
	slices.SortStableFunc(l.edits, func(a, b edit) int { return a.at.Start - b.at.Start })
}

func (l *wholeLook) tool(c *jsonscan.Cursor) {
	for c.Object(); c.Key(); {
		if string(c.Name) == "function" {
			_, n := toolFunction(c)
			l.size += n
		} else {
			c.Skip()
		}
	}
}

// eachObject calls visit for each object of an array, and skips everything else.
func eachObject(c *jsonscan.Cursor, visit func(*jsonscan.Cursor)) {
	if c.Peek() != '[' {
		c.Skip()
		return
	}
	for c.Array(); c.Elem(); {
		if c.Peek() == '{' {
			visit(c)
		} else {
			c.Skip()
		}
	}
}
