package router

import (
	"math"
	"strings"
	"unicode/utf8"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// maxTold bounds the text that is kept of an answer, so that another target could go on with
// it. Beyond it a break in the middle is an error again.
const maxTold = 256 << 10

// told is what a client has been told of an answer of plain text.
type told struct {
	yield  func([]streaming.Event, error) bool // the client's
	text   []byte
	deltas int64
	other  bool // something else came: the answer cannot be continued
}

// keep passes a batch on, and remembers its text.
func (t *told) keep(batch []streaming.Event, err error) bool {
	if !t.yield(batch, err) {
		return false
	}
	for i := range batch {
		if t.other {
			t.text = nil
			break
		}
		t.note(&batch[i])
	}
	return true
}

func (t *told) note(ev *streaming.Event) {
	switch ev.Kind {
	case streaming.Text:
		text, ok := textOf(ev)
		if !ok || ev.Index != 0 || ev.Stop != "" || len(t.text)+len(text) > maxTold {
			t.other = true
			return
		}
		t.text = append(t.text, text...)
		t.deltas++
	case streaming.Lifecycle, streaming.Meta, streaming.Usage:
	default:
		t.other = true
	}
}

// whole reports whether another can go on: there is text, and it ends with a whole character.
func (t *told) whole() bool {
	r, _ := utf8.DecodeLastRune(t.text)
	return !t.other && len(t.text) > 0 && r != utf8.RuneError
}

// tokens estimates the tokens of a text that came in so many deltas.
func tokens(deltas int64, bytes int) int64 {
	return max(deltas, int64(math.Ceil(float64(bytes)/3.3)))
}

// textOf is the text of the first choice that an event brings, and nothing but text. What is
// beside it (reasoning, a refusal, a tool's call) makes ok false.
func textOf(ev *streaming.Event) (text string, ok bool) {
	if ev.Tool != nil || ev.Logprobs != nil {
		return "", false
	}
	if len(ev.Raw) == 0 {
		return ev.Text, true
	}
	if ev.Dialect != streaming.Chat && ev.Dialect != streaming.Completions {
		return "", false
	}
	c := jsonscan.Cursor{B: ev.Raw, Limit: 1 << 10}
	for c.Object(); c.Key(); {
		if string(c.Name) != "choices" || c.Peek() != '[' {
			c.Skip()
			continue
		}
		choices := 0
		for c.Array(); c.Elem(); choices++ {
			text, ok = choiceText(&c)
		}
		ok = ok && choices == 1
	}
	return text, ok && !c.Bad
}

// choiceText consumes a choice.
func choiceText(c *jsonscan.Cursor) (text string, ok bool) {
	if c.Peek() != '{' {
		c.Skip()
		return "", false
	}
	pure := true
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "text":
			text, ok = jsonscan.Unquote(c.Skip().Of(c.B))
		case "delta":
			if c.Peek() != '{' {
				c.Skip()
				continue
			}
			for c.Object(); c.Key(); {
				name := string(c.Name)
				v := c.Skip().Of(c.B)
				switch name {
				case "content":
					text, ok = jsonscan.Unquote(v)
				case "role":
				default:
					pure = pure && nothing(v)
				}
			}
		default:
			c.Skip()
		}
	}
	return text, ok && pure && !strings.HasSuffix(text, "\ufffd")
}

func nothing(v []byte) bool {
	switch string(v) {
	case "null", `""`, "[]", "{}":
		return true
	}
	return false
}

// sum is what two calls cost that made one answer.
func sum(a, b *streaming.UsageData) streaming.UsageData {
	return streaming.UsageData{
		Prompt: a.Prompt + b.Prompt, Completion: a.Completion + b.Completion,
		Total:  a.Prompt + b.Prompt + a.Completion + b.Completion,
		Cached: a.Cached + b.Cached, Reasoning: a.Reasoning + b.Reasoning,
		Estimated: a.Estimated || b.Estimated,
	}
}

// before is what the call has cost that broke.
func before(r streaming.Report, req *providers.Request) streaming.UsageData {
	u := r.Usage
	if !r.Reported {
		u.Prompt, u.Estimated = req.PromptEstimate(), true
	} else if r.Since > 0 {
		u.Completion, u.Estimated = u.Completion+r.Since, true
	}
	return u
}
