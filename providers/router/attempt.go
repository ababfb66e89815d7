package router

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// attempt is one try at one target. Its timer is armed for the phase the try is in
// and cancels the try's context with the *providers.Error that says why; events only
// note their time. While a batch is with the reader the clocks stand still: a slow
// client is not the upstream's fault.
//
// Once tokens flow, a batch takes no lock: it stores its time, then lent, then looks at
// rang; the timer stores rang, then looks at lent. Whoever comes second sees the other.
type attempt struct {
	target *Target
	limits Phases
	scope  streaming.Scope

	phase atomic.Uint32
	token atomic.Int64 // uptime when the phase began, or of the last content
	alive atomic.Int64 // uptime of the last sign of life
	lent  atomic.Bool  // a batch is with the reader
	rang  atomic.Bool  // the timer ended while a batch was with the reader

	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

type phase = uint32

const (
	awaitHeaders phase = iota
	awaitFirst
	flowing
)

func newAttempt(ctx context.Context, t *Target, req *providers.Request, firstToken time.Duration) *attempt {
	a := &attempt{target: t, limits: t.Phases}
	a.limits.FirstToken = firstToken
	if atOnce(req) {
		a.limits.Headers = max(orNever(a.limits.Headers), orNever(firstToken))
	}
	a.scope.Begin(ctx)
	now := streaming.Uptime()
	a.token.Store(int64(now))
	a.alive.Store(int64(now))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = time.AfterFunc(max(a.left(now), 0), a.expire)
	return a
}

// atOnce reports whether an upstream may send its headers only with the whole answer.
func atOnce(req *providers.Request) bool { return !req.Stream || req.Op == providers.Passthrough }

func (a *attempt) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.timer.Stop()
	a.scope.Cancel(nil)
}

// never stands for a limit that is switched off.
const never = 1000 * time.Hour

func orNever(d time.Duration) time.Duration {
	if d <= 0 {
		return never
	}
	return d
}

// limit is how long the phase may last.
func (a *attempt) limit() time.Duration {
	switch a.phase.Load() {
	case awaitHeaders:
		return orNever(a.limits.Headers)
	case awaitFirst:
		return orNever(a.limits.FirstToken)
	default:
		return orNever(a.limits.Between)
	}
}

// left is how long may still pass; not more than 0 means too late.
func (a *attempt) left(now time.Duration) time.Duration {
	left := a.limit() - (now - time.Duration(a.token.Load()))
	if a.phase.Load() != awaitHeaders {
		left = min(left, orNever(a.limits.Silence)-(now-time.Duration(a.alive.Load())))
	}
	return left
}

func (a *attempt) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return
	}
	a.rang.Store(true)
	if a.lent.Load() {
		return // saw arms the timer again
	}
	a.rang.Store(false)
	if left := a.left(streaming.Uptime()); left > 0 {
		a.timer.Reset(left)
		return
	}
	a.scope.Cancel(a.timeout())
}

func (a *attempt) timeout() error {
	what := [...]string{"did not answer", "brought no token", "stopped in the middle of the answer"}[a.phase.Load()]
	limit := a.limit()
	if streaming.Uptime()-time.Duration(a.token.Load()) < limit {
		what, limit = "showed no sign of life", a.limits.Silence
	}
	return &providers.Error{Kind: providers.Timeout, Target: a.target.Name, Message: fmt.Sprintf("the upstream %s for %s", what, limit)}
}

// lend stops the clocks until saw.
func (a *attempt) lend() { a.lent.Store(true) }

// saw notes a batch that the reader has taken; content says that it carries some.
// from is when the reader got a batch without content.
func (a *attempt) saw(content bool, from time.Duration) {
	now := streaming.Uptime()
	a.alive.Store(int64(now))
	before := a.phase.Load()
	switch {
	case content:
		a.token.Store(int64(now))
		if before != flowing {
			a.phase.Store(flowing)
		}
	case before == awaitHeaders:
		a.token.Store(int64(now))
		a.phase.Store(awaitFirst)
	default:
		a.token.Add(int64(now - from))
	}
	a.lent.Store(false)
	if a.phase.Load() != before || a.rang.Load() {
		a.arm(now)
	}
}

// arm sets the timer for what is left. It stays out of saw, which every token calls.
func (a *attempt) arm(now time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rang.Store(false)
	if !a.over {
		a.timer.Reset(max(a.left(now), 0))
	}
}

// stream runs the try.
func (a *attempt) stream(req *providers.Request, p *streaming.Progress) streaming.Stream {
	return a.target.Provider.Stream(&a.scope, req, p)
}
