// Package fair knows who is served next when many tenants want the few places of a
// model: the one who has had the fewest tokens of late. It knows nothing of models,
// requests or clients.
//
// The order is that of the Virtual Token Counter (Sheng et al., Fairness in Serving Large
// Language Models, OSDI 2024): each tenant has a counter of the tokens it was served; the
// waiting tenant with the lowest counter is next; who comes back from idleness is lifted to
// the lowest counter in the line, so that nobody saves up credit by being away.
package fair

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// ErrFull means that there is neither a place nor room in the line.
var ErrFull = errors.New("the line is full")

// ErrLate means that no place became free in time.
var ErrLate = errors.New("waited too long for a place")

// ErrStopped means that the caller wants to wait no longer.
var ErrStopped = errors.New("stopped waiting")

// Options bound a queue.
type Options struct {
	Places int // calls that run at the same time; more than 0
	// Depth is how many calls may wait; 0 means twice the places, less than 0 none. A call
	// that finds the line full is turned away, or takes the last place in it of a tenant
	// that has more calls waiting than its own.
	Depth int
	// Wait is how long a call may wait; 0 means 5 s.
	Wait time.Duration
	// Tell is how often a waiting call is told its position at most; 0 means each second.
	Tell time.Duration
}

// maxIdle bounds the counters that are kept of tenants without a call. Beyond it those
// with the lowest are forgotten, which come back at the lowest counter in the line anyway.
const maxIdle = 4096

// Queue hands out places. All methods may be called concurrently. It has no goroutine of
// its own: a call waits in its own.
type Queue struct {
	mu      sync.Mutex
	opt     Options
	running int
	waiting int
	tenants map[string]*tenant
	line    list.List // of *tenant that wait; who was served longest ago first
	last    *tenant   // who was served last; nil before the first
	idle    int       // tenants without a call
	stats   Stats
}

// tenant is one who calls, by name.
type tenant struct {
	name    string
	used    int64     // by calls that have ended, in tokens, and what it was lifted by
	pending int64     // estimates of calls that run
	waiting list.List // of *waiter, first come first
	running int
	at      *list.Element // in the line; nil while nobody waits
}

// waiter is a call in the line. Its fields are guarded by the queue.
type waiter struct {
	tenant  *tenant
	cost    int64
	at      *list.Element // in the tenant's list; nil once it has left the line
	arrived time.Time
	ready   chan struct{} // closed with outcome set
	outcome error
}

// Stats are counts since the queue was made, and its state now.
type Stats struct {
	Running, Waiting int
	Passed           int64         // got a place at once
	Served           int64         // got a place after waiting
	Full, Late, Left int64         // turned away, waited too long, gave up
	Waited           time.Duration // of those served, together
}

// New returns a queue with all its places free.
func New(opt Options) *Queue { return &Queue{opt: opt.filled(), tenants: map[string]*tenant{}} }

func (opt Options) filled() Options {
	if opt.Depth == 0 {
		opt.Depth = 2 * opt.Places
	}
	if opt.Wait <= 0 {
		opt.Wait = 5 * time.Second
	}
	if opt.Tell <= 0 {
		opt.Tell = time.Second
	}
	return opt
}

// Resize puts other bounds in force. Further places are given at once, and those that are
// too many now are taken back as their calls end. Calls that wait stay, for as long as
// they were let wait.
func (q *Queue) Resize(opt Options) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opt = opt.filled()
	q.hand()
}

// Stats returns what is known now.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	s.Running, s.Waiting = q.running, q.waiting
	return s
}

// Place is a call's right to run. It must be left once.
type Place struct {
	queue  *Queue
	tenant *tenant
	cost   int64
	// Waited is how long the call stood in the line.
	Waited time.Duration
	left   bool
}

// Wait takes a place for a call of the tenant that is estimated at cost tokens. While it
// waits, in the caller's goroutine, it calls tell with the position in the line, from 1, at
// first and whenever that has changed; when tell returns false the call leaves the line.
// The error is ErrFull, ErrLate, ErrStopped or the cause of ctx's end.
func (q *Queue) Wait(ctx context.Context, tenant string, cost int64, tell func(position int) bool) (*Place, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	cost = max(cost, 0)
	q.mu.Lock()
	t := q.tenant(tenant)
	if q.running < q.opt.Places && q.waiting == 0 {
		q.stats.Passed++
		q.lift(t)
		q.charge(t, cost)
		q.mu.Unlock()
		return &Place{queue: q, tenant: t, cost: cost}, nil
	}
	w, opt := q.join(t, cost), q.opt
	q.mu.Unlock()
	if w == nil {
		return nil, ErrFull
	}
	return q.stand(ctx, w, opt, tell)
}

// stand waits until w has a place or leaves the line.
func (q *Queue) stand(ctx context.Context, w *waiter, opt Options, tell func(int) bool) (*Place, error) {
	late := time.NewTimer(opt.Wait)
	defer late.Stop()
	again := time.NewTicker(opt.Tell)
	defer again.Stop()
	for told := 0; ; {
		if at := q.position(w); at != 0 && at != told {
			if told = at; !tell(at) {
				return q.leave(w, ErrStopped)
			}
		}
		select {
		case <-w.ready:
			return q.outcome(w)
		case <-ctx.Done():
			return q.leave(w, context.Cause(ctx))
		case <-late.C:
			return q.leave(w, ErrLate)
		case <-again.C:
		}
	}
}

// outcome is what became of a call that waits no longer.
func (q *Queue) outcome(w *waiter) (*Place, error) {
	if w.outcome != nil {
		return nil, w.outcome
	}
	return &Place{queue: q, tenant: w.tenant, cost: w.cost, Waited: time.Since(w.arrived)}, nil
}

// leave takes a call out of the line. One that got its place meanwhile keeps it if it
// only was late.
func (q *Queue) leave(w *waiter, why error) (*Place, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.at == nil {
		if w.outcome != nil || errors.Is(why, ErrLate) {
			return q.outcome(w)
		}
		q.free(w.tenant, w.cost, 0)
		q.stats.Left++
		return nil, why
	}
	q.remove(w)
	if errors.Is(why, ErrLate) {
		q.stats.Late++
	} else {
		q.stats.Left++
	}
	q.forget(w.tenant)
	return nil, why
}

// Leave gives the place back. used is what the call has cost in tokens: its tenant is
// charged that instead of the estimate. Only the first Leave counts.
func (p *Place) Leave(used int64) {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	if p.left {
		return
	}
	p.left = true
	p.queue.free(p.tenant, p.cost, used)
}
