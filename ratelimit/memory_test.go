package ratelimit_test

import (
	"sync"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest"
)

// clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newTestClock() *clock {
	return &clock{now: time.Date(2026, 3, 14, 15, 9, 26, 535897000, time.UTC)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// book keeps all rows.
type book struct {
	mu   sync.Mutex
	rows []ledger.Row
}

func (b *book) Post(row *ledger.Row) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows = append(b.rows, *row)
}

func (b *book) Rows() []ledger.Row {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]ledger.Row(nil), b.rows...)
}

func mustRules(t testing.TB, declared ...ratelimit.Rule) *ratelimit.Rules {
	t.Helper()
	rules, err := ratelimit.NewRules(declared)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestMemoryPassesTheSuite(t *testing.T) {
	ratelimittest.Run(t, func(t *testing.T) ratelimittest.Harness {
		clock, book, rules := newTestClock(), new(book), mustRules(t)
		m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: rules, Book: book, Now: clock.Now})
		return ratelimittest.Harness{Limiter: m, Rules: rules, Now: clock.Now, Advance: clock.Advance, Rows: book.Rows}
	})
}
