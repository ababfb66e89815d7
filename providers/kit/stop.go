package kit

import (
	"maps"
	"slices"
	"strings"

	"sluice/streaming"
)

// Matcher finds stop sequences in text that comes in pieces. What could still become a
// match is held back; nothing else is. The sequence that ends first ends the text, and
// of those that end together the longest, so that it makes no difference where the
// pieces begin. The zero value matches nothing. It is used by one goroutine at a time.
type Matcher struct {
	stops  []string
	firsts firsts
	held   string
	trail  trail // of what is held
}

// NewMatcher ignores empty sequences; stops is not kept.
func NewMatcher(stops []string) Matcher {
	own := slices.DeleteFunc(slices.Clone(stops), func(s string) bool { return s == "" })
	return Matcher{stops: own, firsts: firstsOf(own...)}
}

// Push takes the next piece, with the log probabilities of its tokens or nil, and returns
// what may be passed on, with its own. matched says that a sequence was found: it and what
// stands behind it are dropped, and the matcher must not be used again.
func (m *Matcher) Push(text string, probs *streaming.LogprobData) (pass string, of *streaming.LogprobData, matched bool) {
	if m.held == "" && !m.firsts.in(text) {
		return text, probs, false
	}
	m.trail.come(len(m.held), text, probs)
	text = m.held + text
	if at := m.find(text); at >= 0 {
		of = m.trail.take(0, at)
		m.held, m.trail = "", nil
		return text[:at], of, true
	}
	hold := 0
	for _, s := range m.stops {
		hold = max(hold, heldBack(text, s))
	}
	m.held = text[len(text)-hold:]
	if hold > 0 { // text is valid until the caller's next step only
		m.held = strings.Clone(m.held)
	}
	pass = text[:len(text)-hold]
	of = m.trail.take(0, len(pass))
	m.trail.shift(len(pass))
	return pass, of, false
}

// find returns where the sequence that ends first begins, or -1.
func (m *Matcher) find(text string) int {
	start, end := -1, len(text)+1
	for _, s := range m.stops {
		if at := strings.Index(text, s); at >= 0 && (at+len(s) < end || at+len(s) == end && at < start) {
			start, end = at, at+len(s)
		}
	}
	return start
}

// Rest returns what was held back, when no more text follows.
func (m *Matcher) Rest() (rest string, of *streaming.LogprobData) {
	rest, of = m.held, m.trail.take(0, len(m.held))
	m.held = ""
	return rest, of
}

// Stops ends the choices of an answer at stop sequences.
type Stops struct {
	Sequences []string
	// Choices is how many answers there will be, at least 1. When all have ended, one of
	// them by a sequence, the rest of the stream is not waited for.
	Choices int
	// Usage returns what is known of the usage when the rest of the stream is not waited
	// for. Nil, or a nil result, tells nothing.
	Usage func() *streaming.UsageData
}

// Filter returns src without what stands at and behind the sequences; the reason of a
// choice that was ended so is "stop". Only Text is searched. An event of which nothing
// is cut or held keeps its Raw. Behind an error nothing comes, also nothing that was
// held: a failed answer is a beginning of the whole one.
func (s Stops) Filter(src streaming.Stream) streaming.Stream {
	first := NewMatcher(s.Sequences)
	if len(first.stops) == 0 {
		return src
	}
	return func(yield func([]streaming.Event, error) bool) {
		f := &stopFilter{Stops: s, first: first, choices: map[int]*stopChoice{}}
		for batch, err := range src {
			if err != nil { // what is held may be a part of what the whole answer would not have
				yield(nil, err)
				return
			}
			over := f.filter(batch)
			if !yield(f.out, nil) || over {
				return
			}
		}
		f.flush(yield)
	}
}

// stopFilter is one filtered answer.
type stopFilter struct {
	Stops
	first   Matcher
	choices map[int]*stopChoice
	ended   int
	matched bool
	out     []streaming.Event
}

type stopChoice struct {
	Matcher
	index int
	ended bool
}

// filter fills out and reports whether the answer is over.
func (f *stopFilter) filter(batch []streaming.Event) (over bool) {
	f.out = f.out[:0]
	for i := range batch {
		ev := &batch[i]
		if !ev.Kind.Commits() {
			f.out = append(f.out, *ev)
			continue
		}
		c := f.choice(ev.Index)
		if c.ended {
			continue
		}
		f.event(c, ev)
		if f.matched && f.ended >= max(f.Choices, 1) {
			f.tellUsage()
			return true
		}
	}
	return false
}

func (f *stopFilter) choice(index int) *stopChoice {
	c := f.choices[index]
	if c == nil {
		c = &stopChoice{Matcher: f.first, index: index}
		f.choices[index] = c
	}
	return c
}

// event passes on what is certain of an event.
func (f *stopFilter) event(c *stopChoice, ev *streaming.Event) {
	if ev.Kind != streaming.Text {
		f.rest(c)
		f.out = append(f.out, *ev)
		if ev.Kind == streaming.Stop || ev.Stop != "" {
			f.end(c)
		}
		return
	}
	pass, probs, matched := c.Push(ev.Text, ev.Logprobs)
	switch {
	case matched:
		f.text(c, pass, probs)
		f.matched = true
		f.out = append(f.out, streaming.Event{Kind: streaming.Stop, Index: c.index, Stop: "stop"})
		f.end(c)
	case len(pass) == len(ev.Text) && c.held == "" && pass == ev.Text:
		f.out = append(f.out, *ev)
		if ev.Stop != "" {
			f.end(c)
		}
	default:
		f.text(c, pass, probs)
		if ev.Stop != "" {
			f.rest(c)
			f.out = append(f.out, streaming.Event{Kind: streaming.Stop, Index: c.index, Stop: ev.Stop})
			f.end(c)
		}
	}
}

func (f *stopFilter) end(c *stopChoice) {
	c.ended = true
	f.ended++
}

func (f *stopFilter) text(c *stopChoice, text string, probs *streaming.LogprobData) {
	if text != "" {
		f.out = append(f.out, streaming.Event{Kind: streaming.Text, Index: c.index, Text: text, Logprobs: probs})
	}
}

// rest passes on what was held.
func (f *stopFilter) rest(c *stopChoice) {
	text, probs := c.Rest()
	f.text(c, text, probs)
}

func (f *stopFilter) tellUsage() {
	if f.Usage == nil {
		return
	}
	if u := f.Usage(); u != nil {
		f.out = append(f.out, streaming.Event{Kind: streaming.Usage, Usage: u})
	}
}

// flush yields what is held when the stream ended without an end of its choices.
func (f *stopFilter) flush(yield func([]streaming.Event, error) bool) bool {
	f.out = f.out[:0]
	for _, index := range slices.Sorted(maps.Keys(f.choices)) {
		if c := f.choices[index]; !c.ended {
			f.rest(c)
		}
	}
	return len(f.out) == 0 || yield(f.out, nil)
}
