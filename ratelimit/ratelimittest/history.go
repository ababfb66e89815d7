package ratelimittest

import (
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"sluice/ratelimit"
)

// Event is what one call took from a bucket that fills steadily, at some time from From to
// To. A negative Took was given back.
type Event struct {
	From, To time.Time
	Took     int64
}

// History is what was taken from one bucket, in any order. Its methods may be called
// concurrently.
type History struct {
	mu     sync.Mutex
	events []Event
}

// Add records an event.
func (h *History) Add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// Check returns an error if in any window of time more was taken than a bucket of the rule
// can give: burst + amount·T/period, exactly. Of an event that may lie outside of a window
// only what was given back counts in it, so that a true history never fails. The cost is
// the square of the number of events.
func (h *History) Check(rule *ratelimit.Rule) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	byEnd := slices.Clone(h.events)
	slices.SortStableFunc(byEnd, func(a, b Event) int { return a.To.Compare(b.To) })
	for _, first := range byEnd {
		var sum int64
		for i, e := range byEnd {
			if e.Took > 0 && !e.From.Before(first.From) || e.Took < 0 && !e.To.Before(first.From) {
				sum += e.Took
			}
			if i+1 < len(byEnd) && byEnd[i+1].To.Equal(e.To) {
				continue
			}
			length := e.To.Sub(first.From)
			if length < 0 || sum <= rule.Full() {
				continue
			}
			if most := given(rule, length); sum > most && sum-laterGiven(byEnd[i+1:], e.To) > most {
				return fmt.Errorf("%d were taken in %v from %v, at most %d may be",
					sum, length, first.From.UTC().Format(time.RFC3339Nano), most)
			}
		}
	}
	return nil
}

// laterGiven is what may have been given back by a time, of events that ended after it.
func laterGiven(events []Event, by time.Time) (back int64) {
	for _, e := range events {
		if e.Took < 0 && !e.From.After(by) {
			back -= e.Took
		}
	}
	return back
}

// given is the most that a bucket can give in a time.
func given(rule *ratelimit.Rule, d time.Duration) int64 {
	n := big.NewInt(max(d.Microseconds(), 0))
	n.Mul(n, big.NewInt(rule.Amount))
	n.Div(n, big.NewInt(period(rule).Microseconds()))
	return n.Int64() + rule.Full()
}

// Left is what a bucket has at a time, if the events, of which each lies at one moment, are
// all that happened to it.
func (h *History) Left(rule *ratelimit.Rule, now time.Time) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	events := slices.Clone(h.events)
	slices.SortStableFunc(events, func(a, b Event) int { return a.From.Compare(b.From) })
	var a account
	for _, e := range events {
		a.advance(rule, e.From)
		a.add(rule, -e.Took)
	}
	a.advance(rule, now)
	return a.left()
}
