package streaming

import (
	"errors"
	"slices"
	"time"
)

// Try is one attempt at one target.
type Try struct {
	Target     string
	Begin, End time.Duration // after the start of the answer; of one that runs End is now
	Err        error         // why it failed; nil: it has brought the answer, or runs
}

// maxTries bounds the tries that are kept of one answer; later ones are counted only.
const maxTries = 16

// EndTry notes how the try ended that the last SetTarget began. One that succeeded is known
// already. It is called by the goroutine that called SetTarget.
func (p *Progress) EndTry(err error) {
	if err == nil {
		return
	}
	begin := p.trying.Swap(0)
	if begin == 0 {
		return
	}
	p.addTry(Try{Target: load(&p.target), Begin: time.Duration(begin), End: time.Duration(p.now()), Err: err})
}

// AddTry notes a try that ran beside the one of SetTarget, such as a hedge that lost. It may
// be called concurrently.
func (p *Progress) AddTry(t Try) { p.addTry(t) }

func (p *Progress) addTry(t Try) {
	for {
		old := p.tries.Load()
		var have []Try
		if old != nil {
			have = *old
		}
		if len(have) >= maxTries {
			return
		}
		more := append(slices.Clip(have), t)
		if p.tries.CompareAndSwap(old, &more) {
			return
		}
	}
}

// Tries are the attempts so far, in the order in which they ended, the one that runs or has
// brought the answer last. They are appended to dst.
func (p *Progress) Tries(dst []Try) []Try {
	if t := p.tries.Load(); t != nil {
		dst = append(dst, *t...)
	}
	if begin := p.trying.Load(); begin != 0 {
		dst = append(dst, Try{Target: load(&p.target), Begin: time.Duration(begin), End: time.Duration(p.now())})
	}
	return dst
}

// Cancel ends the answer: the relay that runs it tells the client of cause, and one that
// has not begun yet begins nothing. Only the first call counts. It may be called from any
// goroutine, and does not wait.
func (p *Progress) Cancel(cause error) {
	if !p.cause.CompareAndSwap(nil, &cause) {
		return
	}
	if x := p.run.Load(); x != nil {
		x.scope.Cancel(cause)
	}
}

// Cancelled is what Cancel was first called with; nil: it was not.
func (p *Progress) Cancelled() error {
	if c := p.cause.Load(); c != nil {
		return *c
	}
	return nil
}

// wasFirst reports whether Cancel came before whatever else ended the answer for cause.
func (p *Progress) wasFirst(cause error) bool {
	c := p.cause.Load()
	return c != nil && errors.Is(cause, *c)
}

// attach ties the answer to the relay that runs it, after which either that relay or Cancel
// sees the other.
func (p *Progress) attach(x *run) {
	p.run.Store(x)
	if c := p.cause.Load(); c != nil {
		x.scope.Cancel(*c)
	}
}

// Blocked is how long the client has been taking what was written last; 0 when nothing
// is being written.
func (p *Progress) Blocked() time.Duration {
	x := p.run.Load()
	if x == nil {
		return 0
	}
	if x.mu.TryLock() {
		x.mu.Unlock()
		return 0
	}
	last := p.last.Load()
	if last == 0 {
		return 0
	}
	return max(time.Duration(p.now()-last), 0)
}
