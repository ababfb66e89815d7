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
	return func(yield func([]streaming.Event, error) bool) {
		f := &thinkFilter{Think: k, choices: map[int]*Splitter{}}
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
	choices map[int]*Splitter
	out     []streaming.Event
}

func (f *thinkFilter) event(ev *streaming.Event) {
	if !ev.Kind.Commits() {
		f.out = append(f.out, *ev)
		return
	}
	c := f.choices[ev.Index]
	if c == nil {
		c = f.Splitter(ev.Index)
		f.choices[ev.Index] = c
	}
	if ev.Kind != streaming.Text {
		f.out = append(c.Rest(f.out), *ev)
		if ev.Kind == streaming.Reasoning { // who tells thoughts apart itself is not searched
			c.at = outside
		}
		return
	}
	if c.Passes(ev.Text) {
		f.out = append(f.out, *ev)
		return
	}
	f.out = c.Push(f.out, ev.Text, ev.Logprobs)
	if ev.Stop != "" {
		f.out = append(c.Rest(f.out), streaming.Event{Kind: streaming.Stop, Index: ev.Index, Stop: ev.Stop})
	}
}

func (f *thinkFilter) flush(yield func([]streaming.Event, error) bool) bool {
	f.out = f.out[:0]
	for _, index := range slices.Sorted(maps.Keys(f.choices)) {
		f.out = f.choices[index].Rest(f.out)
	}
	return len(f.out) == 0 || yield(f.out, nil)
}

// Splitter splits the text of one choice, which comes in pieces. It is used by one
// goroutine at a time.
type Splitter struct {
	open, close string
	index       int
	at          place
	held        string
	trail       trail // of what is held
	length      int   // of the text that is looked at
}

// Splitter returns the splitter of one choice.
func (k Think) Splitter(index int) *Splitter {
	s := &Splitter{open: k.Open, close: k.Close, index: index}
	if s.open == "" {
		s.open = "<think>"
	}
	if s.close == "" {
		s.close = "</think>"
	}
	if k.Begun {
		s.at = openSpace
	}
	return s
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

// Passes reports whether the next piece, which is not empty, is a part of the answer as
// it stands: it need not be pushed. Once that is so it stays so.
func (s *Splitter) Passes(text string) bool {
	if s.at == atStart && s.held == "" && !s.begins(text) {
		s.at = outside
	}
	return s.at == outside
}

// begins reports whether the beginning of a choice could be that of a block.
func (s *Splitter) begins(text string) bool {
	body := strings.TrimLeft(text, white)
	return strings.HasPrefix(body, s.open) || strings.HasPrefix(s.open, body)
}

const white = " \t\r\n"

// Push takes the next piece, with the log probabilities of its tokens or nil, and appends
// what is certain of it to dst, as events without Raw. What could still become a mark is
// held; nothing else is. Tokens of marks are left out.
func (s *Splitter) Push(dst []streaming.Event, text string, probs *streaming.LogprobData) []streaming.Event {
	s.trail.come(len(s.held), text, probs)
	text = s.held + text
	s.held, s.length = "", len(text)
	dst = s.split(dst, text)
	s.trail.shift(s.length - len(s.held))
	return dst
}

func (s *Splitter) split(dst []streaming.Event, text string) []streaming.Event {
	for text != "" {
		switch s.at {
		case atStart:
			body := strings.TrimLeft(text, white)
			switch {
			case strings.HasPrefix(body, s.open):
				s.at, text = openSpace, body[len(s.open):]
			case strings.HasPrefix(s.open, body): // also of white space alone
				s.held = strings.Clone(text)
				return dst
			default:
				s.at = outside
			}
		case openSpace, closeSpace:
			if text = strings.TrimLeft(text, white); text != "" {
				s.at++
			}
		case inside:
			dst, text = s.think(dst, text)
		case outside:
			return s.add(dst, streaming.Text, text, s.length-len(text))
		}
	}
	return dst
}

// think passes on thoughts and returns what stands behind their end.
func (s *Splitter) think(dst []streaming.Event, text string) (_ []streaming.Event, rest string) {
	from := s.length - len(text)
	if before, after, found := strings.Cut(text, s.close); found {
		s.at = closeSpace
		return s.add(dst, streaming.Reasoning, before, from), after
	}
	hold := heldBack(text, s.close)
	s.held = strings.Clone(text[len(text)-hold:])
	return s.add(dst, streaming.Reasoning, text[:len(text)-hold], from), ""
}

// Rest appends what was held to dst, for nothing follows that could make a mark of it.
func (s *Splitter) Rest(dst []streaming.Event) []streaming.Event {
	if s.held == "" {
		return dst
	}
	kind, text := streaming.Reasoning, s.held
	if s.held = ""; s.at == atStart { // the answer has begun with it
		kind, s.at = streaming.Text, outside
	}
	return s.add(dst, kind, text, 0)
}

// add appends a piece, which begins at from in the text that is looked at.
func (s *Splitter) add(dst []streaming.Event, kind streaming.Kind, text string, from int) []streaming.Event {
	if text == "" {
		return dst
	}
	return append(dst, streaming.Event{Kind: kind, Index: s.index, Text: text, Logprobs: s.trail.take(from, from+len(text))})
}
