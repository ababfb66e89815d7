package ratelimit

import (
	"sync"
	"sync/atomic"
	"time"
)

// breaker keeps calls from a primary that fails. It opens when at least three calls, and more
// than half, have failed or were slow within a second: when this machine has no time, a few
// calls that are under way miss their deadlines together. After a while it lets a single call
// through, and closes when that succeeds.
type breaker struct {
	slow, open time.Duration

	trouble atomic.Bool // not closed

	mu      sync.Mutex
	since   time.Time // of the trouble
	until   time.Time // no probe before
	probing bool
	row     int // failures in a row
	ring    [breakerTallies]tally
}

const (
	breakerFailures = 3
	breakerTallies  = 10
	breakerTally    = 100 * time.Millisecond
)

// tally counts the calls of a tenth of a second.
type tally struct {
	tenth      int64 // since the epoch
	calls, bad int64
}

// change is what a call did to the breaker.
type change uint8

const (
	unchanged change = iota
	hasOpened
	hasClosed
)

// pass says whether a call may be made; probing, that it is the one that decides.
func (b *breaker) pass(now time.Time) (pass, probing bool) {
	if !b.trouble.Load() {
		return true, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.trouble.Load() {
		return true, false
	}
	if b.probing || now.Before(b.until) {
		return false, false
	}
	b.probing = true
	return true, true
}

// skip takes back a pass that was not used.
func (b *breaker) skip(probing bool) {
	if probing {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.probing = false
	}
}

// done notes how a call went. Calls that were under way when the breaker opened change
// nothing.
func (b *breaker) done(now time.Time, took time.Duration, probing, bad bool) change {
	b.mu.Lock()
	defer b.mu.Unlock()
	bad = bad || took > b.slow
	switch {
	case probing:
		b.probing = false
		if bad {
			b.until = now.Add(b.open)
			return unchanged
		}
		b.trouble.Store(false)
		b.row, b.ring = 0, [breakerTallies]tally{}
		return hasClosed
	case b.trouble.Load():
		return unchanged
	}
	if b.row++; !bad {
		b.row = 0
	}
	if !b.tooBad(now.UnixNano()/int64(breakerTally), bad) {
		return unchanged
	}
	b.trouble.Store(true)
	b.since, b.until = now, now.Add(b.open)
	return hasOpened
}

// tooBad counts a call and reports whether too many were bad.
func (b *breaker) tooBad(tenth int64, bad bool) bool {
	t := &b.ring[tenth%breakerTallies]
	if t.tenth != tenth {
		*t = tally{tenth: tenth}
	}
	t.calls++
	if bad {
		t.bad++
	}
	if !bad {
		return false
	}
	var calls, failed int64
	for i := range b.ring {
		if tenth-b.ring[i].tenth < breakerTallies {
			calls += b.ring[i].calls
			failed += b.ring[i].bad
		}
	}
	return failed >= breakerFailures && failed*2 > calls
}

// shaky reports whether the last call failed, or calls are kept away.
func (b *breaker) shaky() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.row > 0 || b.trouble.Load()
}

// state reports whether there is trouble, and since when.
func (b *breaker) state() (trouble bool, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trouble.Load(), b.since
}
