package openai

import (
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// wholeLook is what one pass over an answer in one JSON body tells.
type wholeLook struct {
	model jsonscan.Span
	usage *streaming.UsageData
	stop  string // the first finish reason that says the answer was given up, else the last
	size  int    // bytes of content over all choices, in JSON text

	listed   bool            // choices is an array
	thoughts []jsonscan.Span // reasoning in messages that do not have it under the name that clients read
}

// splice gives the answer another model's name, unless that is "", and reasoning its
// usual name beside the upstream's own. Everything else stays byte for byte.
func (l *wholeLook) splice(text []byte, model string) []byte {
	named := model != "" && !l.model.Empty()
	if !named && len(l.thoughts) == 0 {
		return text
	}
	var out []byte
	at := 0
	name := func() {
		out = jsonscan.AppendQuote(append(out, text[at:l.model.Start]...), model)
		at, named = l.model.End, false
	}
	for _, v := range l.thoughts {
		if named && l.model.Start < v.Start {
			name()
		}
		out = append(append(out, text[at:v.End]...), `,"reasoning_content":`...)
		out = append(out, v.Of(text)...)
		at = v.End
	}
	if named {
		name()
	}
	return append(out, text[at:]...)
}

// lookAtWhole expects a JSON object; whatever has another shape than OpenAI's is
// passed over.
func lookAtWhole(text []byte) (l wholeLook) {
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
	var thought jsonscan.Span
	told := false
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "content":
			l.size += contentSize(c.Skip(), c.B)
		case "reasoning_content":
			told = true
			l.size += contentSize(c.Skip(), c.B)
		case "reasoning":
			thought = c.Skip()
			l.size += contentSize(thought, c.B)
		case "tool_calls":
			eachObject(c, l.tool)
		default:
			c.Skip()
		}
	}
	if !told && isSet(thought, c.B) {
		l.thoughts = append(l.thoughts, thought)
	}
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
