package router

import (
	"context"
	"errors"
	"iter"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// Hedge asks a second target when the first is slower than it mostly is; who brings
// content first answers. The zero value never does. Only streams are hedged.
type Hedge struct {
	Quantile float64 // of the target's times to the first content after which the second is asked; 0: never
	AtLeast  int     // times that must be known
	Share    float64 // of the pool's calls at most, e.g. 0.02
}

// hedges counts how many a pool may make.
type hedges struct{ budget }

// errHedged ends the slower one of two attempts.
var errHedged = errors.New("another target was faster")

// hedgeAfter is how long the target may take before a second is asked; 0: none is.
func (c *chase) hedgeAfter(t *try) time.Duration {
	h := &c.pool.Hedge
	if h.Quantile <= 0 || atOnce(c.req) || t.others == 0 || t.probe {
		return 0
	}
	c.pool.hedged.call(Budget{Share: h.Share}, time.Now())
	t.state.mu.Lock()
	after, n := t.state.streams.quantile(h.Quantile)
	t.state.mu.Unlock()
	if n < h.AtLeast {
		return 0
	}
	return after
}

// lane is one of two attempts side by side. Its first step is made by a goroutine of its
// own, the others by whoever has taken the first from it.
type lane struct {
	*try
	ctx    context.Context
	cancel context.CancelCauseFunc
	hold   *hold
	next   func() ([]streaming.Event, error, bool)
	stop   func()
	first  chan step // has room for one
	beside bool      // it is the second of the two
}

type step struct {
	batch []streaming.Event
	err   error
	more  bool
	panic any
}

// good reports whether a first step decides the race: there is content, or a true end.
func (s *step) good() bool { return s.err == nil }

// start begins an attempt. What its adapter tells of the answer is kept apart until it
// is known whose answer it is.
func (t *try) start(ctx context.Context, firstToken time.Duration) *lane {
	l := &lane{try: t, first: make(chan step, 1)}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	t.progress = streaming.NewProgress(time.Now())
	l.hold = &hold{try: t}
	t.send()
	l.next, l.stop = iter.Pull2(func(yield func([]streaming.Event, error) bool) {
		l.hold.yield = yield
		if err := l.hold.run(l.ctx, firstToken); err != nil && !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	})
	go func() { l.first <- l.step() }()
	return l
}

func (l *lane) step() (s step) {
	defer func() {
		if v := recover(); v != nil {
			s = step{panic: v}
		}
	}()
	s.batch, s.err, s.more = l.next()
	return s
}

// race asks the target, and after a while another one beside it.
func (c *chase) race(ctx context.Context, t *try, after time.Duration) (served bool, err error) {
	own := *t // the slower one outlives the next attempt
	t = &own
	c.progress.SetTarget(t.target.Name)
	a := t.start(ctx, c.firstToken(t.target, t.others))
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case s := <-a.first:
		return a.carry(ctx, s)
	case <-timer.C:
	}
	b := c.second(ctx, t)
	if b == nil {
		return a.carry(ctx, <-a.first)
	}
	won, lost := a, b
	var s step
	select {
	case s = <-a.first:
	case s = <-b.first:
		won, lost = b, a
	}
	if s.good() {
		c.losers.Go(lost.lose)
		return won.carry(ctx, s)
	}
	won.fail(ctx, s)
	c.failed = s.err
	return lost.carry(ctx, <-lost.first)
}

// second starts the attempt beside another, if a target that is well may be asked.
func (c *chase) second(ctx context.Context, t *try) *lane {
	shut := c.spent.clone()
	for i := c.tried.after(-1); i >= 0; i = c.tried.after(i) {
		shut.add(i)
	}
	shut.add(t.at)
	now := uptime()
	found := c.pool.pick(&query{tried: &c.tried, shut: &shut, now: now, cfg: &c.opt.Breaker, req: c.req, probed: true, tier: c.tier()})
	if found.target == nil || found.probe || !found.target.state().well(now) || !c.pool.hedged.take(Budget{Share: c.pool.Hedge.Share}, time.Now()) {
		return nil
	}
	u := &try{chase: c, target: found.target, req: c.req, at: found.at, state: found.target.state(), sent: now}
	if c.opt.Gate != nil {
		c.gated++
		release, err := c.opt.Gate.Acquire(ctx, &Try{Target: u.target, Request: c.req, Number: c.gated})
		if err != nil {
			return nil
		}
		u.release = release
	}
	c.tried.add(u.at)
	c.progress.AddAttempt()
	l := u.start(ctx, u.target.Phases.FirstToken)
	l.beside = true
	return l
}

// carry passes on what the lane brings, which is the answer.
func (l *lane) carry(ctx context.Context, s step) (served bool, err error) {
	c := l.chase
	refused := false
	defer func() {
		l.cancel(nil)
		l.stop()
		l.adopt()
		l.end(l.hold, refused)
	}()
	if l.beside {
		c.progress.EndTry(errHedged)
		c.progress.SetTarget(l.target.Name)
	}
	for s.more && s.err == nil && s.panic == nil {
		if !c.yield(s.batch, nil) {
			s = step{err: errStopped}
			break
		}
		s = l.step()
	}
	if s.panic != nil {
		panic(s.panic)
	}
	served, refused, err = l.finish(ctx, l.hold, s.err)
	return served, err
}

// adopt hands on what the adapter has told.
func (l *lane) adopt() {
	r, p := l.progress.Report(), l.chase.progress
	if r.Reported {
		p.SetUsage(&r.Usage)
	}
	if r.Unstopped > 0 {
		p.AddUnstopped(r.Unstopped)
	}
	for range r.Malformed {
		p.AddMalformed()
	}
	for range r.Repaired {
		p.AddRepaired()
	}
}

// fail lets go of an attempt that has failed while the other one runs.
func (l *lane) fail(ctx context.Context, s step) {
	defer l.cancel(nil)
	l.stop()
	e := providers.AsError(s.err)
	refused := e != nil && e.NotServed()
	if refused {
		l.chase.refuse(l.try, e)
	} else if s.panic == nil {
		l.judge(ctx, l.hold, s.err)
	}
	l.end(l.hold, refused)
	l.told(s.err)
}

// told puts the attempt among those of the answer, as one that has ended.
func (l *lane) told(err error) {
	p := l.chase.progress
	if !l.beside {
		p.EndTry(err)
		return
	}
	now := time.Since(p.Report().Start)
	p.AddTry(streaming.Try{Target: l.target.Name, Begin: now - (uptime() - l.sent), End: now, Err: err})
}

// lose ends the slower one. What it has cost is the gateway's own loss.
func (l *lane) lose() {
	l.cancel(errHedged)
	<-l.first
	func() {
		defer func() { _ = recover() }() // an adapter's cleanup: the answer is another's
		l.stop()
	}()
	l.state.slow(uptime() - l.sent)
	if l.beside {
		l.told(errHedged)
	}
	spent := spentBy(l.req, l.progress, l.hold.committed)
	l.end(l.hold, false)
	if l.opt.Lost != nil {
		if spent.Input == 0 {
			spent.Input = l.req.PromptEstimate() // it was sent, and read
		}
		r := l.progress.Report()
		l.opt.Lost(&Loss{Target: l.target, Request: l.req, Start: r.Start, Took: time.Since(r.Start), Spent: spent})
	}
}

// slow notes a first content that did not come in time.
func (s *state) slow(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams.note(took, uptime())
}
