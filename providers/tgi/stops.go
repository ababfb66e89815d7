package tgi

import (
	"sluice/providers/kit"
	"sluice/streaming"
)

// stopper ends an answer at the caller's stop sequences, for the server leaves them in
// the text and takes only a few.
type stopper struct {
	kit.Matcher
	out []streaming.Event
}

// cut returns a batch as the caller gets it, and how many of its events were looked at
// before the answer ended at a sequence; -1 while it runs on or ends by itself.
func (s *stopper) cut(batch []streaming.Event) (out []streaming.Event, ended int) {
	s.out = s.out[:0]
	for i := range batch {
		ev := batch[i]
		switch ev.Kind {
		case streaming.Text:
			pass, matched := s.Push(ev.Text)
			s.text(pass)
			if matched {
				s.out = append(s.out, streaming.Event{Kind: streaming.Stop, Stop: "stop"})
				return s.out, i + 1
			}
		case streaming.Stop:
			s.text(s.Rest())
			s.out = append(s.out, ev)
		default:
			s.out = append(s.out, ev)
		}
	}
	return s.out, -1
}

func (s *stopper) text(text string) {
	if text != "" {
		s.out = append(s.out, streaming.Event{Kind: streaming.Text, Text: text})
	}
}
