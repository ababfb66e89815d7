// Package streamtest knows how streams and sinks misbehave: a scripted stream whose
// buffers do not survive the step they belong to, a sink that remembers, and one
// that stalls.
package streamtest

import (
	"context"
	"sync"
	"time"

	"sluice/streaming"
)

// Step is one move of a scripted stream: it waits, then yields its batch, fails or
// panics. A step with none of them is a sign of life.
type Step struct {
	Wait  time.Duration
	Batch []streaming.Event
	Err   error
	Panic any
}

// Stream plays the steps. After each yield it overwrites the batch and its bytes, as
// a reader that reuses its buffers does. It ends early when ctx does.
func Stream(ctx context.Context, steps ...Step) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		for _, s := range steps {
			if !wait(ctx, s.Wait) {
				yield(nil, context.Cause(ctx))
				return
			}
			if s.Panic != nil {
				panic(s.Panic)
			}
			if s.Err != nil {
				yield(nil, s.Err)
				return
			}
			if !lend(s.Batch, yield) {
				return
			}
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lend yields copies and spoils them afterwards.
func lend(batch []streaming.Event, yield func([]streaming.Event, error) bool) bool {
	lent := make([]streaming.Event, len(batch))
	for i := range batch {
		lent[i] = batch[i].Clone()
	}
	ok := yield(lent, nil)
	for i := range lent {
		for j := range lent[i].Raw {
			lent[i].Raw[j] = '#'
		}
		lent[i] = streaming.Event{Kind: streaming.Whole, Text: "spoiled"}
	}
	return ok
}

// Sink remembers everything it is given. It is safe for concurrent use.
type Sink struct {
	mu         sync.Mutex
	events     []streaming.Event
	sent       []time.Time
	heartbeats []time.Time
	ends       []error
	// Block, when set, is called in Send before anything is kept.
	Block func() error
}

// Send keeps clones of the events.
func (s *Sink) Send(batch []streaming.Event) error {
	if s.Block != nil {
		if err := s.Block(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch {
		s.events = append(s.events, batch[i].Clone())
		s.sent = append(s.sent, time.Now())
	}
	return nil
}

// Heartbeat keeps the time.
func (s *Sink) Heartbeat() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heartbeats = append(s.heartbeats, time.Now())
	return true, nil
}

// End keeps the error.
func (s *Sink) End(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, err)
	return err
}

// Events returns what was sent, and when.
func (s *Sink) Events() ([]streaming.Event, []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]streaming.Event(nil), s.events...), append([]time.Time(nil), s.sent...)
}

// Heartbeats returns when there was a sign of life.
func (s *Sink) Heartbeats() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.heartbeats...)
}

// Ends returns every end; there must be one.
func (s *Sink) Ends() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.ends...)
}

// Text returns a batch of one text event.
func Text(index int, text string) []streaming.Event {
	return []streaming.Event{{Kind: streaming.Text, Index: index, Text: text, Raw: []byte(text)}}
}
