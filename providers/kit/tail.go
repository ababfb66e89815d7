package kit

import (
	"maps"
	"slices"
	"strings"

	"sluice/streaming"
)

// TrimEnd returns src without the one of texts that a choice ends with, if its reason
// to end is "stop": some servers show the mark by which a model says that it is done.
// Only an end of text that could be such a mark is held back; an error drops it. Text that
// was held loses its log probabilities, which no server that shows the mark has.
func TrimEnd(src streaming.Stream, texts []string) streaming.Stream {
	first := NewMatcher(texts)
	if len(first.stops) == 0 {
		return src
	}
	return func(yield func([]streaming.Event, error) bool) {
		f := &tailFilter{first: first, held: map[int]string{}}
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

// tailFilter is one filtered answer.
type tailFilter struct {
	first Matcher
	held  map[int]string // by choice
	out   []streaming.Event
}

func (f *tailFilter) event(ev *streaming.Event) {
	if !ev.Kind.Commits() {
		f.out = append(f.out, *ev)
		return
	}
	held := f.held[ev.Index]
	if ev.Kind == streaming.Text && ev.Stop == "" {
		f.text(ev, held)
		return
	}
	if ev.Kind == streaming.Text {
		held += ev.Text
	}
	if ev.Stop == "stop" {
		held = f.trimmed(held)
	}
	f.add(ev.Index, held)
	delete(f.held, ev.Index)
	out := *ev
	if ev.Kind == streaming.Text {
		out = streaming.Event{Kind: streaming.Stop, Index: ev.Index, Stop: ev.Stop}
	}
	f.out = append(f.out, out)
}

// text passes on what cannot be a part of the mark.
func (f *tailFilter) text(ev *streaming.Event, held string) {
	if held == "" && !f.first.firsts.in(ev.Text) {
		f.out = append(f.out, *ev)
		return
	}
	text := held + ev.Text
	hold := 0
	for _, s := range f.first.stops {
		if strings.HasSuffix(text, s) {
			hold = max(hold, len(s))
		}
		hold = max(hold, heldBack(text, s))
	}
	if hold == 0 && held == "" {
		f.out = append(f.out, *ev)
		return
	}
	f.add(ev.Index, text[:len(text)-hold])
	f.held[ev.Index] = strings.Clone(text[len(text)-hold:])
}

// trimmed takes the longest mark off the end.
func (f *tailFilter) trimmed(text string) string {
	n := 0
	for _, s := range f.first.stops {
		if strings.HasSuffix(text, s) {
			n = max(n, len(s))
		}
	}
	return text[:len(text)-n]
}

func (f *tailFilter) add(index int, text string) {
	if text != "" {
		f.out = append(f.out, streaming.Event{Kind: streaming.Text, Index: index, Text: text})
	}
}

func (f *tailFilter) flush(yield func([]streaming.Event, error) bool) bool {
	f.out = f.out[:0]
	for _, index := range slices.Sorted(maps.Keys(f.held)) {
		f.add(index, f.held[index])
	}
	return len(f.out) == 0 || yield(f.out, nil)
}
