package ollama

import "sluice/streaming/jsonscan"

// maxDepth bounds the nesting of a line's JSON, arguments of tools included.
const maxDepth = 256

// scan reads one line and reports whether it is one of Ollama's.
func (l *line) scan(b []byte) bool {
	*l = line{b: b}
	c := jsonscan.Cursor{B: b, Limit: maxDepth}
	for c.Object(); c.Key(); {
		l.member(&c)
	}
	return c.End() && l.known
}

func (l *line) member(c *jsonscan.Cursor) {
	switch string(c.Name) {
	case "message":
		l.known = true
		l.message(c)
	case "response":
		l.known = true
		l.text = c.Skip()
	case "thinking":
		l.thinking = c.Skip()
	case "tool_calls":
		l.toolCalls(c)
	case "done":
		l.known = true
		l.done = c.Peek() == 't'
		c.Skip()
	case "done_reason":
		l.reason = c.Skip()
	case "error":
		l.known = true
		l.fault = c.Skip()
	case "logprobs":
		l.logprobs = c.Skip()
	case "prompt_eval_count":
		l.counts.prompt = number(c)
	case "eval_count":
		l.counts.eval = number(c)
	default:
		l.duration(c)
	}
}

func (l *line) duration(c *jsonscan.Cursor) {
	switch string(c.Name) {
	case "total_duration":
		l.counts.total = number(c)
	case "load_duration":
		l.counts.load = number(c)
	case "prompt_eval_duration":
		l.counts.promptDuration = number(c)
	case "eval_duration":
		l.counts.evalFor = number(c)
	default:
		c.Skip()
	}
}

func (l *line) message(c *jsonscan.Cursor) {
	if c.Peek() != '{' {
		c.Skip()
		return
	}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "content":
			l.text = c.Skip()
		case "thinking":
			l.thinking = c.Skip()
		case "tool_calls":
			l.toolCalls(c)
		default:
			c.Skip()
		}
	}
}

func (l *line) toolCalls(c *jsonscan.Cursor) {
	l.listed = c.Peek() == '['
	l.calls = c.Skip()
}

// number reads a count that is not negative.
func number(c *jsonscan.Cursor) (n int64) {
	for _, ch := range c.Skip().Of(c.B) {
		if ch < '0' || ch > '9' || n > 1<<58 {
			return n
		}
		n = 10*n + int64(ch-'0')
	}
	return n
}
