package gemini

import "sluice/streaming/jsonscan"

// maxDepth bounds the nesting of an event's JSON, arguments of calls included.
const maxDepth = 256

// chunk is what one GenerateContentResponse says. Spans are of its text. Nearly all have
// one candidate with one part, which is read on the way; others are walked again.
type chunk struct {
	b          []byte
	candidates jsonscan.Span
	first      candidate
	single     bool // there is one candidate, which is first
	id, model  jsonscan.Span
	feedback   jsonscan.Span
	fault      jsonscan.Span
	counts     counts
	known      bool // it has a member of an answer
}

// scan reads one payload and reports whether it is an answer or an error.
func (k *chunk) scan(b []byte) bool {
	*k = chunk{b: b}
	c := jsonscan.Cursor{B: b, Limit: maxDepth}
	for c.Object(); c.Key(); {
		known := true
		switch string(c.Name) {
		case "candidates":
			k.list(&c)
		case "usageMetadata":
			k.counts = readCounts(&c)
		case "responseId":
			k.id = c.Skip()
		case "modelVersion":
			k.model = c.Skip()
		case "promptFeedback":
			k.feedback = c.Skip()
		case "error":
			k.fault = c.Skip()
		default:
			c.Skip()
			known = false
		}
		k.known = k.known || known
	}
	return c.End() && k.known
}

// list finds the candidates.
func (k *chunk) list(c *jsonscan.Cursor) {
	n := 0
	if k.candidates.Start = c.I; c.Peek() == '[' {
		k.candidates.Start = c.I
		for c.Array(); c.Elem(); n++ {
			if n == 0 {
				k.first.read(c)
			} else {
				c.Skip()
			}
		}
	} else {
		c.Skip()
	}
	k.candidates.End, k.single = c.I, n == 1
}

// candidate is one answer's share of a chunk.
type candidate struct {
	index                  int64
	parts, finish, message []byte
	pieces                 int   // how many parts there are
	piece                  piece // the first of them
	logprobs               []byte
}

func (v *candidate) read(c *jsonscan.Cursor) {
	*v = candidate{}
	if c.Peek() != '{' {
		c.Skip()
		return
	}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "index":
			v.index = number(c)
		case "content":
			v.content(c)
		case "finishReason":
			v.finish = c.Skip().Of(c.B)
		case "finishMessage":
			v.message = c.Skip().Of(c.B)
		case "logprobsResult":
			v.logprobs = c.Skip().Of(c.B)
		default:
			c.Skip()
		}
	}
}

func (v *candidate) content(c *jsonscan.Cursor) {
	if c.Peek() != '{' {
		c.Skip()
		return
	}
	for c.Object(); c.Key(); {
		if string(c.Name) != "parts" || c.Peek() != '[' {
			c.Skip()
			continue
		}
		start := c.I
		v.pieces = 0
		for c.Array(); c.Elem(); v.pieces++ {
			if v.pieces == 0 {
				v.piece.read(c)
			} else {
				c.Skip()
			}
		}
		v.parts = c.B[start:c.I]
	}
}

// piece is one part of a candidate's content.
type piece struct {
	text, signature, call []byte
	thought, other        bool
}

func (v *piece) read(c *jsonscan.Cursor) {
	*v = piece{}
	if c.Peek() != '{' {
		c.Skip()
		return
	}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "text":
			v.text = c.Skip().Of(c.B)
		case "thought":
			v.thought = c.Peek() == 't'
			c.Skip()
		case "thoughtSignature":
			v.signature = c.Skip().Of(c.B)
		case "functionCall":
			v.call = c.Skip().Of(c.B)
		case "inlineData", "fileData":
			v.other = true
			c.Skip()
		default:
			c.Skip()
		}
	}
}

// number reads a count; anything else is 0.
func number(c *jsonscan.Cursor) (n int64) {
	for _, ch := range c.Skip().Of(c.B) {
		if ch < '0' || ch > '9' || n > 1<<50 {
			return 0
		}
		n = 10*n + int64(ch-'0')
	}
	return n
}

// counts is a usageMetadata: the running total of one request.
type counts struct{ prompt, tools, cached, candidates, thoughts int64 }

func readCounts(c *jsonscan.Cursor) (n counts) {
	if c.Peek() != '{' {
		c.Skip()
		return n
	}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "promptTokenCount":
			n.prompt = number(c)
		case "toolUsePromptTokenCount":
			n.tools = number(c)
		case "cachedContentTokenCount":
			n.cached = number(c)
		case "candidatesTokenCount":
			n.candidates = number(c)
		case "thoughtsTokenCount":
			n.thoughts = number(c)
		default:
			c.Skip()
		}
	}
	return n
}

// text reads a string that may be absent.
func text(v []byte) string {
	if len(v) <= len(`""`) {
		return ""
	}
	s, _ := jsonscan.Unquote(v)
	return s
}
