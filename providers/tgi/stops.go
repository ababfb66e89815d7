package tgi

import (
	"sluice/providers/kit"
	"sluice/streaming"
)

// stopper ends an answer at the marks of the model's format and at the caller's stop
// sequences, by the rule of kit.Ends: the server leaves them in the text, takes only a
// few, and stops at them in thoughts too. Unlike a filter it tells where in a batch the
// answer ended, for that is how its tokens are counted.
type stopper struct {
	marks, stops kit.Matcher
	split        *kit.Splitter // nil: the text is not searched for thoughts here
	parts, out   []streaming.Event
}

// cut returns a batch as the caller gets it, and how many of its events were looked at
// before the answer ended at a sequence; -1 while it runs on or ends by itself.
func (s *stopper) cut(batch []streaming.Event) (out []streaming.Event, ended int) {
	s.out = s.out[:0]
	for i := range batch {
		ev := batch[i]
		switch ev.Kind {
		case streaming.Text:
			pass, probs, marked := s.marks.Push(ev.Text, ev.Logprobs)
			if s.answer(pass, probs) || marked && s.rest() {
				return s.out, i + 1
			}
			if marked {
				s.out = append(s.out, streaming.Event{Kind: streaming.Stop, Stop: "stop"})
				return s.out, i + 1
			}
		case streaming.Stop:
			if s.answer(s.marks.Rest()) || s.rest() {
				return s.out, i + 1
			}
			s.out = append(s.out, ev)
		default:
			s.out = append(s.out, ev)
		}
	}
	return s.out, -1
}

// answer takes text without marks and reports whether a sequence has ended the answer.
func (s *stopper) answer(text string, probs *streaming.LogprobData) (ended bool) {
	switch {
	case text == "":
		return false
	case s.split == nil || s.split.Passes(text):
		return s.search(text, probs)
	}
	s.parts = s.split.Push(s.parts[:0], text, probs)
	return s.pieces()
}

// pieces passes thoughts on and searches the rest.
func (s *stopper) pieces() (ended bool) {
	for _, p := range s.parts {
		if p.Kind == streaming.Reasoning {
			s.out = append(s.out, p)
		} else if s.search(p.Text, p.Logprobs) {
			return true
		}
	}
	return false
}

func (s *stopper) search(text string, probs *streaming.LogprobData) (ended bool) {
	pass, probs, matched := s.stops.Push(text, probs)
	s.text(pass, probs)
	if matched {
		s.out = append(s.out, streaming.Event{Kind: streaming.Stop, Stop: "stop"})
	}
	return matched
}

// rest passes on what was held, for the text is over.
func (s *stopper) rest() (ended bool) {
	if s.split != nil {
		s.parts = s.split.Rest(s.parts[:0])
		if s.pieces() {
			return true
		}
	}
	s.text(s.stops.Rest())
	return false
}

func (s *stopper) text(text string, probs *streaming.LogprobData) {
	if text != "" {
		s.out = append(s.out, streaming.Event{Kind: streaming.Text, Text: text, Logprobs: probs})
	}
}
