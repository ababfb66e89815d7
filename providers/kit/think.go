package kit

import (
	"maps"
	"slices"
	"strings"

	"sluice/streaming"
)

// Think tells the thoughts of a model that writes them into its text from the answer.
// A block counts only where a choice begins, so that an answer may speak of the marks.
// White space behind a mark belongs to neither side.
type Think struct {
	Open, Close string // "" means "<think>" and "</think>"
	// Begun says that a choice begins inside the block: the prompt has opened it.
	Begun bool
}

// Filter returns src with the text inside the blocks as Reasoning. What is held because
// it may be a part of a mark does not survive an error.
func (k Think) Filter(src streaming.Stream) streaming.Stream {
	if k.Open == "" {
		k.Open = "<think>"
	}
	if k.Close == "" {
		k.Close = "</think>"
	}
	return func(yield func([]streaming.Event, error) bool) {
		f := &thinkFilter{Think: k, choices: map[int]*thinkChoice{}}
		for batch, err := range src {
			if err != nil {
				yield(nil, err)
				return
			}
			f.out = f.out[:0]
			for i := range batch {
				f.event(&batch[i])
			}
			if !yield(f.out, nil) {
				return
			}
		}
		f.flush(yield)
	}
}

// thinkFilter is one filtered answer.
type thinkFilter struct {
	Think
	choices map[int]*thinkChoice
	out     []streaming.Event
}

// thinkChoice is how far one choice has come.
type thinkChoice struct {
	at    place
	held  string
	index int
}

// place is where in a choice its text is.
type place uint8

const (
	atStart    place = iota // nothing but white space has come
	openSpace               // behind the opening mark
	inside                  // in the block
	closeSpace              // behind the closing mark
	outside                 // in the answer: nothing is looked for any more
)

func (f *thinkFilter) event(ev *streaming.Event) {
	if !ev.Kind.Commits() {
		f.out = append(f.out, *ev)
		return
	}
	c := f.choices[ev.Index]
	if c == nil {
		c = &thinkChoice{index: ev.Index}
		if f.Begun {
			c.at = openSpace
		}
		f.choices[ev.Index] = c
	}
	if ev.Kind != streaming.Text {
		f.rest(c)
		f.out = append(f.out, *ev)
		return
	}
	if c.at == atStart && c.held == "" && !f.begins(ev.Text) {
		c.at = outside
	}
	if c.at == outside {
		f.out = append(f.out, *ev)
		return
	}
	f.text(c, ev.Text)
	if ev.Stop != "" {
		f.rest(c)
		f.out = append(f.out, streaming.Event{Kind: streaming.Stop, Index: ev.Index, Stop: ev.Stop})
	}
}

// begins reports whether the beginning of a choice could be that of a block.
func (f *thinkFilter) begins(text string) bool {
	body := strings.TrimLeft(text, white)
	return strings.HasPrefix(body, f.Open) || strings.HasPrefix(f.Open, body)
}

const white = " \t\r\n"

// text walks through the places that a piece leads over.
func (f *thinkFilter) text(c *thinkChoice, text string) {
	text = c.held + text
	c.held = ""
	for text != "" {
		switch c.at {
		case atStart:
			body := strings.TrimLeft(text, white)
			switch {
			case strings.HasPrefix(body, f.Open):
				c.at, text = openSpace, body[len(f.Open):]
			case strings.HasPrefix(f.Open, body): // also of white space alone
				c.held = strings.Clone(text)
				return
			default:
				c.at = outside
			}
		case openSpace, closeSpace:
			if text = strings.TrimLeft(text, white); text != "" {
				c.at++
			}
		case inside:
			text = f.think(c, text)
		case outside:
			f.add(c, streaming.Text, text)
			return
		}
	}
}

// think passes on thoughts and returns what stands behind their end.
func (f *thinkFilter) think(c *thinkChoice, text string) (rest string) {
	if before, after, found := strings.Cut(text, f.Close); found {
		f.add(c, streaming.Reasoning, before)
		c.at = closeSpace
		return after
	}
	hold := heldBack(text, f.Close)
	f.add(c, streaming.Reasoning, text[:len(text)-hold])
	c.held = strings.Clone(text[len(text)-hold:])
	return ""
}

// rest passes on what was held, for nothing follows that could make a mark of it.
func (f *thinkFilter) rest(c *thinkChoice) {
	kind := streaming.Text
	if c.at == inside {
		kind = streaming.Reasoning
	}
	f.add(c, kind, c.held)
	c.held = ""
}

func (f *thinkFilter) add(c *thinkChoice, kind streaming.Kind, text string) {
	if text != "" {
		f.out = append(f.out, streaming.Event{Kind: kind, Index: c.index, Text: text})
	}
}

func (f *thinkFilter) flush(yield func([]streaming.Event, error) bool) bool {
	f.out = f.out[:0]
	for _, index := range slices.Sorted(maps.Keys(f.choices)) {
		f.rest(f.choices[index])
	}
	return len(f.out) == 0 || yield(f.out, nil)
}
