package router

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// Shadow says which calls are copied to another model, whose answers nobody gets. The zero
// value copies none.
type Shadow struct {
	Model   string
	Percent float64 // of the calls, 0 to 100
}

// drawn says whether a call is one of those.
func (s *Shadow) drawn() bool {
	return s.Model != "" && (s.Percent >= 100 || rand.Float64()*100 < s.Percent)
}

// ShadowOptions bound the copies of calls.
type ShadowOptions struct {
	Running int           // at the same time
	Bytes   int64         // of the requests that run
	Limit   time.Duration // for one
	// Done, if not nil, is told how a copy has ended. It is called from any goroutine.
	Done func(c *Copy)
}

// Copy is a call that was made for nobody.
type Copy struct {
	Target  *Target
	Request *providers.Request
	Report  streaming.Report
	Err     error // nil: it came to its end
}

// Shadows makes copies of calls beside them. A copy beyond the bounds is not made. It
// outlives the routers that use it, and is safe for concurrent use.
type Shadows struct {
	opt     atomic.Pointer[ShadowOptions]
	ctx     context.Context
	stop    context.CancelCauseFunc
	all     sync.WaitGroup
	dropped atomic.Int64

	mu      sync.Mutex
	over    bool
	running int
	bytes   int64
}

// NewShadows makes copies until Close.
func NewShadows(opt ShadowOptions) *Shadows {
	s := &Shadows{}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	s.Bound(opt)
	return s
}

// Bound puts other bounds in force. What runs goes on.
func (s *Shadows) Bound(opt ShadowOptions) { s.opt.Store(&opt) }

// Dropped counts the copies that were not made because the bounds were reached.
func (s *Shadows) Dropped() int64 { return s.dropped.Load() }

// Running counts those under way.
func (s *Shadows) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// Stop ends all copies. No others are made.
func (s *Shadows) Stop() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.stop(streaming.ErrDraining)
}

// Close is Stop, and waits for the copies' ends.
func (s *Shadows) Close() {
	s.Stop()
	s.all.Wait()
}

// take makes room for a copy of so many bytes.
func (s *Shadows) take(opt *ShadowOptions, bytes int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	if s.running >= opt.Running || s.bytes+bytes > opt.Bytes {
		s.dropped.Add(1)
		return false
	}
	s.running++
	s.bytes += bytes
	s.all.Add(1)
	return true
}

func (s *Shadows) leave(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.bytes -= bytes
	s.all.Done()
}

// mirror makes a copy of the call when a rule, or its model, says so. It is called when the
// call itself has been let in, and waits for nothing.
func (c *chase) mirror() {
	if c.mirrored || c.opt.Shadows == nil {
		return
	}
	c.mirrored = true
	model := c.asked.Route.Shadow
	if s := &c.own.Shadow; model == "" && s.drawn() {
		model = s.Model
	}
	if model != "" {
		c.opt.Shadows.start(c.Router, c.asked, model)
	}
}

func (s *Shadows) start(r *Router, req *providers.Request, model string) {
	opt, bytes := s.opt.Load(), int64(len(req.Body))
	if !s.take(opt, bytes) {
		return
	}
	again := *req
	again.ID, again.PresentAs, again.Hints.Version = req.ID+".shadow", "", ""
	again.Route = providers.Route{Model: model}
	go func() {
		defer s.leave(bytes)
		ctx, cancel := context.WithTimeout(s.ctx, opt.Limit)
		defer cancel()
		c := &Copy{Request: &again}
		if c.run(ctx, r); opt.Done != nil && c.Target != nil {
			opt.Done(c)
		}
	}()
}

// run asks one target, once. What becomes of it is not held against the target: calls of
// clients must not suffer from copies.
func (c *Copy) run(ctx context.Context, r *Router) {
	p := streaming.NewProgress(time.Now())
	defer func() {
		if v := recover(); v != nil {
			c.Err = &streaming.PanicError{Value: v}
		}
		c.Report = p.Report()
	}()
	pool, err := r.resolve(ctx, c.Request)
	if err != nil {
		c.Err = err
		return
	}
	t := pool.copies(ctx, c.Request, &r.opt.Breaker)
	if t == nil {
		return
	}
	release := func(Spent) {}
	if r.opt.Gate != nil {
		if release, err = r.opt.Gate.Acquire(ctx, &Try{Target: t, Request: c.Request, Number: 1}); err != nil {
			return // its places are for clients
		}
	}
	c.Target = t
	p.SetTarget(t.Name)
	p.AddAttempt()
	t.state().running.Add(1)
	defer func() {
		t.state().running.Add(-1)
		release(spentBy(c.Request, p, p.Report().TTFT > 0))
	}()
	c.Err = c.pass(ctx, t, p)
}

// pass reads the answer and lets it go.
func (c *Copy) pass(ctx context.Context, t *Target, p *streaming.Progress) error {
	a := newAttempt(ctx, t, c.Request, t.Phases.FirstToken)
	defer a.close()
	for batch, err := range a.stream(c.Request, p) {
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return err
		}
		now := streaming.Uptime()
		p.Count(batch, now)
		a.saw(hasContent(batch), now)
	}
	return nil
}

// copies is the target of a copy: one that is well, has room and serves the request; nil
// when there is none. No probe is made for a copy.
func (p *Pool) copies(ctx context.Context, req *providers.Request, cfg *Breaker) *Target {
	unfit, _, err := p.unfit(ctx, req)
	if err != nil {
		return nil
	}
	q := &query{shut: &unfit, now: uptime(), cfg: cfg, req: req}
	f := finder{pool: p, query: q, best: rankNone}
	for i, t := range p.Targets {
		s := t.state()
		full := t.MaxRunning > 0 && s.running.Load() >= int64(t.MaxRunning)
		if !unfit.has(i) && !t.Drained && !full && s.well(q.now) && s.judge(cfg, q.now).share > 0 {
			f.add(i, t.rank(0, 0))
		}
	}
	if f.best == rankNone {
		return nil
	}
	return p.Targets[p.choose(&f.found, q)]
}
