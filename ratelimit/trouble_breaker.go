package ratelimit

import (
	"sync"
	"sync/atomic"
	"time"
)

// breaker keeps calls from a primary that fails. It opens when three calls in a row have
// failed, or three and more than one in a hundred of the last ten seconds have failed or
// were slow. After a while it lets a single call through, and closes when that succeeds.
type breaker struct {
	slow, open time.Duration

	trouble atomic.Bool // not closed

	mu      sync.Mutex
	since   time.Time // of the trouble
	until   time.Time // no probe before
	probing bool
	row     int // failures in a row
	ring    [breakerSeconds]tally
}

const (
	breakerFailures = 3
	breakerSeconds  = 10
)

// tally counts the calls of one second.
type tally struct {
	second     int64
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
		b.row, b.ring = 0, [breakerSeconds]tally{}
		return hasClosed
	case b.trouble.Load():
		return unchanged
	}
	if b.row++; !bad {
		b.row = 0
	}
	if !b.tooBad(now.Unix(), bad) && b.row < breakerFailures {
		return unchanged
	}
	b.trouble.Store(true)
	b.since, b.until = now, now.Add(b.open)
	return hasOpened
}

// tooBad counts a call and reports whether too many were bad.
func (b *breaker) tooBad(second int64, bad bool) bool {
	t := &b.ring[second%breakerSeconds]
	if t.second != second {
		*t = tally{second: second}
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
		if second-b.ring[i].second < breakerSeconds {
			calls += b.ring[i].calls
			failed += b.ring[i].bad
		}
	}
	return failed >= breakerFailures && failed*100 > calls
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
