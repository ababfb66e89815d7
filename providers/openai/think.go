package openai

import (
	"bytes"

	"sluice/providers/kit"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// thoughts splits the texts of one streamed answer.
type thoughts struct {
	think   *kit.Think
	choices map[int]*kit.Splitter
	over    choiceSet // choices whose payloads pass as they are: their answer has begun
}

func (t *thoughts) splitter(index int) *kit.Splitter {
	s := t.choices[index]
	if s == nil {
		if t.choices == nil {
			t.choices = map[int]*kit.Splitter{}
		}
		s = t.think.Splitter(index)
		t.choices[index] = s
	}
	return s
}

// end lets everything of a choice pass from here on.
func (t *thoughts) end(index int) {
	t.over.add(index)
	delete(t.choices, index)
}

// plain reports whether a choice begins with a payload that no block begins with, text or
// something else, so that nothing of it need be searched. Most answers are plain.
func (t *thoughts) plain(index int, words []byte) bool {
	return t.choices[index] == nil && !mayBegin(t.think, words)
}

// mayBegin reports whether a block could be at the beginning of a JSON string, as far as
// its first character tells before it is unquoted.
func mayBegin(think *kit.Think, words []byte) bool {
	if think.Begun {
		return true
	}
	if len(words) <= len(`""`) || words[0] != '"' {
		return false
	}
	words = words[1 : len(words)-1]
	for {
		switch {
		case len(words) == 0 || words[0] == '<':
			return true
		case words[0] == ' ':
			words = words[1:]
		case words[0] != '\\':
			return think.Open != ""
		case words[1] != 'n' && words[1] != 'r' && words[1] != 't':
			return true // '<' may be written as \u003c
		default:
			words = words[2:]
		}
	}
}

// think puts what a payload's text is made of into the batch and returns the payload
// without it, looked at anew; nil when it says nothing else. A payload that has no part
// in a block of thoughts is returned as it came.
func (r *reader) think(b []byte) []byte {
	l, t := &r.look, r.thoughts
	stop := r.stop(b)
	if l.kind == streaming.Lifecycle && stop == "" {
		return b
	}
	words := textOf(b)
	if t.plain(l.index, words.Of(b)) {
		t.end(l.index)
		return b
	}
	s := t.splitter(l.index)
	text, _ := jsonscan.Unquote(words.Of(b))
	reasons := l.told || isSet(l.thought, b)
	if text == "" || reasons {
		r.add(s.Rest(r.batch))
		if reasons || stop != "" { // an upstream that tells thoughts apart itself is not searched
			t.end(l.index)
		}
		return b
	}
	if s.Passes(text) {
		t.end(l.index)
		return b
	}
	r.add(s.Push(r.batch, text, nil))
	if stop != "" {
		r.add(s.Rest(r.batch))
		t.end(l.index)
	}
	return r.remainder(b, words)
}

// add replaces the batch by a longer one. The encoder begins a choice that begins with
// what was added, so that its payloads must not do so again.
func (r *reader) add(batch []streaming.Event) {
	if len(batch) > len(r.batch) {
		r.start(r.look.index)
	}
	r.batch = batch
}

var contentKey = []byte(`"content"`)

// remainder is a payload without its text. It goes out as well when it begins its choice
// or when there is something in it: a finish reason, a call, log probabilities.
func (r *reader) remainder(b []byte, words jsonscan.Span) []byte {
	l := &r.look
	b = cut(b, bytes.LastIndex(b[:words.Start], contentKey), words.End)
	l.scan(b)
	if !r.begun.has(l.index) || l.kind != streaming.Lifecycle || r.stop(b) != "" || l.others > 0 || annotated(b) {
		return b
	}
	if usage := parseUsage(l.usage.Of(b)); usage != nil {
		r.batch = append(r.batch, streaming.Event{Kind: streaming.Usage, Usage: usage})
	}
	return nil
}

// textOf finds the text of the one choice of a payload, content or text. Only payloads
// whose text has to be known are walked a second time for it.
func textOf(b []byte) (words jsonscan.Span) {
	c := jsonscan.Cursor{B: b}
	member := func(name string) bool {
		for c.Key() {
			if string(c.Name) == name {
				return true
			}
			c.Skip()
		}
		return false
	}
	c.Object()
	if !member("choices") || c.Peek() != '[' || !c.Array() || !c.Elem() || c.Peek() != '{' {
		return words
	}
	for c.Object(); c.Key(); {
		switch {
		case string(c.Name) == "text":
			return c.Skip()
		case string(c.Name) != "delta" || c.Peek() != '{':
			c.Skip()
		default:
			if c.Object(); member("content") {
				words = c.Skip()
			}
			return words
		}
	}
	return words
}

// annotated reports whether a choice has a member of its own beside delta.
func annotated(b []byte) (is bool) {
	c := jsonscan.Cursor{B: b}
	for c.Object(); c.Key(); {
		if string(c.Name) != "choices" {
			c.Skip()
			continue
		}
		eachObject(&c, func(c *jsonscan.Cursor) {
			for c.Object(); c.Key(); {
				name := string(c.Name)
				if v := c.Skip(); name != "index" && name != "delta" && name != "finish_reason" && !isNull(v, b) {
					is = true
				}
			}
		})
	}
	return is
}

// splitWhole tells the thoughts of a complete text from the answer, as JSON strings; nil
// when there are none.
func splitWhole(think *kit.Think, content []byte) (thought, answer []byte) {
	if !mayBegin(think, content) {
		return nil, nil
	}
	text, _ := jsonscan.Unquote(content)
	s := think.Splitter(0)
	if text == "" || s.Passes(text) {
		return nil, nil
	}
	var parts [2]string
	for _, ev := range s.Rest(s.Push(nil, text, nil)) {
		if ev.Kind == streaming.Reasoning {
			parts[0] += ev.Text
		} else {
			parts[1] += ev.Text
		}
	}
	if parts[1] == text {
		return nil, nil
	}
	return jsonscan.AppendQuote(nil, parts[0]), jsonscan.AppendQuote(nil, parts[1])
}
