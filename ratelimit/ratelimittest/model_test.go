package ratelimittest

import (
	"sync"
	"testing"
	"time"

	"sluice/ratelimit"
)

// manual is a clock that is moved by hand.
type manual struct {
	mu  sync.Mutex
	now time.Time
}

func newManual() *manual {
	return &manual{now: time.Date(2026, 3, 14, 15, 9, 26, 535897000, time.UTC)}
}

func (m *manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

func (m *manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}

func TestModelPassesTheSuite(t *testing.T) {
	Run(t, func(t *testing.T) Harness {
		rules, err := ratelimit.NewRules(nil)
		if err != nil {
			t.Fatal(err)
		}
		clock := newManual()
		m := NewModel(rules, clock.Now)
		return Harness{Limiter: m, Rules: rules, Now: clock.Now, Advance: clock.Advance, Rows: m.Rows}
	})
}
