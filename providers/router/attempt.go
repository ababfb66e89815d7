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
type attempt struct {
	target *Target
	limits Phases
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	phase phase
	token time.Time // when the phase began, or of the last content
	alive time.Time // of the last sign of life
	timer *time.Timer
	rang  bool // the timer ended while a batch was with the reader
	over  bool

	lent atomic.Bool // a batch is with the reader
}

type phase uint8

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
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.token = time.Now()
	a.alive = a.token
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = time.AfterFunc(max(a.left(a.token), 0), a.expire)
	return a
}

// atOnce reports whether an upstream may send its headers only with the whole answer.
func atOnce(req *providers.Request) bool { return !req.Stream || req.Op == providers.Passthrough }

func (a *attempt) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.timer.Stop()
	a.cancel(nil)
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
	switch a.phase {
	case awaitHeaders:
		return orNever(a.limits.Headers)
	case awaitFirst:
		return orNever(a.limits.FirstToken)
	default:
		return orNever(a.limits.Between)
	}
}

// left is how long may still pass; not more than 0 means too late.
func (a *attempt) left(now time.Time) time.Duration {
	left := a.limit() - now.Sub(a.token)
	if a.phase != awaitHeaders {
		left = min(left, orNever(a.limits.Silence)-now.Sub(a.alive))
	}
	return left
}

func (a *attempt) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return
	}
	if a.lent.Load() {
		a.rang = true
		return
	}
	if left := a.left(time.Now()); left > 0 {
		a.timer.Reset(left)
		return
	}
	a.cancel(a.timeout())
}

func (a *attempt) timeout() error {
	what := [...]string{"did not answer", "brought no token", "stopped in the middle of the answer"}[a.phase]
	limit := a.limit()
	if time.Since(a.token) < limit {
		what, limit = "showed no sign of life", a.limits.Silence
	}
	return &providers.Error{Kind: providers.Timeout, Target: a.target.Name, Message: fmt.Sprintf("the upstream %s for %s", what, limit)}
}

// lend stops the clocks until saw.
func (a *attempt) lend() { a.lent.Store(true) }

// saw notes a batch that the reader has taken; content says that it carries some.
// from is when the reader got a batch without content.
func (a *attempt) saw(content bool, from time.Time) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lent.Store(false)
	a.alive = now
	before := a.phase
	switch {
	case content:
		a.phase, a.token = flowing, now
	case a.phase == awaitHeaders:
		a.phase, a.token = awaitFirst, now
	default:
		a.token = a.token.Add(now.Sub(from))
	}
	if a.phase != before || a.rang {
		a.rang = false
		a.timer.Reset(max(a.left(now), 0))
	}
}

// stream runs the try.
func (a *attempt) stream(req *providers.Request, p *streaming.Progress) streaming.Stream {
	return a.target.Provider.Stream(a.ctx, req, p)
}
