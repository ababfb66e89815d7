package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"sluice/providers"
	"sluice/streaming"
)

// Options bound what the router does for one answer.
type Options struct {
	Tries         int           // attempts in all
	BackoffMin    time.Duration // first pause is drawn from 0 to this
	BackoffMax    time.Duration // later ones from 0 to at most this
	RetryAfterMax time.Duration // a longer wish of the upstream means another target and a cool-down
	Budget        Budget
	HoldEvents    int // events held back before content
	HoldBytes     int
	FirstFailover time.Duration // to the first token while another target remains
	FailoverPer1K time.Duration // added for each thousand prompt tokens
	Gate          Gate          // asked before each attempt; nil lets all pass
}

// Resolver finds the pool behind a model name; an unknown one is an *providers.Error.
type Resolver interface {
	Resolve(ctx context.Context, model string) (*Pool, error)
}

// Router is a Provider over pools of targets.
type Router struct {
	opt   Options
	pools Resolver
}

// New returns a router.
func New(pools Resolver, opt Options) *Router { return &Router{opt: opt, pools: pools} }

// Stream implements providers.Provider: it tries targets until one brings content,
// and from there on passes on what comes, its failure included.
func (r *Router) Stream(ctx context.Context, req *providers.Request, p *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		pool, err := r.pools.Resolve(ctx, req.Model)
		if err != nil {
			yield(nil, err)
			return
		}
		if pool.PresentAs != "" {
			req = req.With(pool.PresentAs)
		}
		unfit, err := pool.unfit(ctx, req)
		if err != nil {
			yield(nil, err)
			return
		}
		c := &chase{Router: r, pool: pool, req: req, progress: p, yield: yield, unfit: unfit, spent: unfit}
		if len(pool.Targets)-len(unfit) > 1 {
			c.lenient, c.req = req, req.Strictly()
		}
		if err := c.run(ctx); err != nil && !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	}
}

// errStopped says that the reader of the stream wants no more.
var errStopped = errors.New("the reader has stopped")

// chase is the way of one request through the targets of its pool.
type chase struct {
	*Router
	pool     *Pool
	req      *providers.Request
	progress *streaming.Progress
	yield    func([]streaming.Event, error) bool
	tried    []*Target
	unfit    []*Target          // those that must not be asked
	spent    []*Target          // these, and those that are not asked again
	lenient  *providers.Request // what is asked when no target serves it whole; nil: req
	refused  refusal
	failed   error // the last attempt's
	tries    int
	asked    int           // how often the gate was
	pause    time.Duration // what the last target asked for
}

func (c *chase) run(ctx context.Context) error {
	err := backoff.Retry(func() error { return c.try(ctx) }, &pauses{chase: c, ctx: ctx})
	if ctx.Err() != nil && !errors.Is(err, errStopped) {
		return context.Cause(ctx)
	}
	return err
}

// pauses is what lies between tries: full jitter, and at least as long as the upstream
// asked. Most answers need none, so the jitter is made for the first pause.
type pauses struct {
	chase  *chase
	ctx    context.Context
	jitter backoff.BackOff
}

// NextBackOff implements backoff.BackOff. The library draws from interval ± its factor,
// so an interval of half the most and a factor of 1 draw from 0 to the most.
func (p *pauses) NextBackOff() time.Duration {
	if p.ctx.Err() != nil {
		return backoff.Stop
	}
	if o := &p.chase.opt; p.jitter == nil {
		p.jitter = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(o.BackoffMin/2), backoff.WithMaxInterval(o.BackoffMax/2),
			backoff.WithRandomizationFactor(1), backoff.WithMultiplier(2), backoff.WithMaxElapsedTime(0))
	}
	return max(p.jitter.NextBackOff(), p.chase.pause)
}

// Reset implements backoff.BackOff; pauses are used once.
func (p *pauses) Reset() {}

// Context implements backoff.BackOffContext.
func (p *pauses) Context() context.Context { return p.ctx }

// try makes one attempt; a permanent error ends the chase. Targets that refuse the
// request before they send anything are passed over at once: that is no attempt.
func (c *chase) try(ctx context.Context) error {
	for {
		t, others, release, err := c.admit(ctx)
		switch {
		case t != nil:
		case err != nil:
			return backoff.Permanent(err)
		case c.relax():
			continue
		default:
			return backoff.Permanent(c.nobody())
		}
		if served, err := c.attempt(ctx, t, others, release); served {
			return err
		}
	}
}

// attempt asks one target. served is false when it has refused the request itself.
func (c *chase) attempt(ctx context.Context, t *Target, others int, release func(Spent)) (served bool, err error) {
	c.tries++
	c.progress.SetTarget(t.Name)
	h := &hold{chase: c, target: t}
	if release != nil {
		defer func() { release(spentBy(c.req, c.progress, h.committed)) }()
	}
	err = h.run(ctx, c.firstToken(t, others))
	if e := providers.AsError(err); e != nil && e.NotServed() && !h.committed && ctx.Err() == nil {
		c.tries--
		c.refuse(t, e)
		return false, nil
	}
	c.count(t)
	switch {
	case err == nil:
		return true, nil
	case h.committed || ctx.Err() != nil || errors.Is(err, errStopped) || !c.again(ctx, t, err):
		return true, backoff.Permanent(err)
	default:
		c.failed = err
		return true, err
	}
}

// count notes an attempt, and with the first one the call.
func (c *chase) count(t *Target) {
	c.tried = append(c.tried, t)
	c.progress.AddAttempt()
	if c.tries == 1 {
		c.pool.budget.call(c.opt.Budget, time.Now())
	}
}

// firstToken is how long a target may think: less while another could be asked.
func (c *chase) firstToken(t *Target, others int) time.Duration {
	last := t.Phases.FirstToken
	if others == 0 || c.tries >= c.opt.Tries {
		return last
	}
	if c.pool.FailoverAfter > 0 {
		return c.pool.FailoverAfter
	}
	if t.Local {
		return last
	}
	d := c.opt.FirstFailover + c.opt.FailoverPer1K*time.Duration(c.req.PromptEstimate()/1000)
	if c.req.Reasoning {
		d *= 4
	}
	return min(d, orNever(last))
}

// maxCool bounds a cool-down: an upstream that asks for an hour (or whose clock is
// wrong) would else be gone for as long, though limits are mostly counted by the minute.
const maxCool = 5 * time.Minute

// leastLeft is how much of the total time must remain for another try.
const leastLeft = time.Second

// again decides whether a failed try is followed by another, and how soon.
func (c *chase) again(ctx context.Context, t *Target, err error) bool {
	e := providers.AsError(err)
	if e == nil || !e.Retryable() {
		return false
	}
	now := time.Now()
	c.pause = 0
	if e.RetryAfter > c.opt.RetryAfterMax {
		t.coolFor(min(e.RetryAfter, maxCool), now)
	}
	if c.onlyElsewhere(e) {
		c.spent = append(c.spent, t)
	}
	next, _ := c.pool.pick(c.tried, c.spent, now)
	if next == nil || c.tries >= c.opt.Tries {
		return false
	}
	if slices.Contains(c.tried, next) && e.RetryAfter <= c.opt.RetryAfterMax {
		c.pause = e.RetryAfter
	}
	if end, ok := ctx.Deadline(); ok && end.Sub(now) < leastLeft+c.pause {
		return false
	}
	return c.pool.budget.take(c.opt.Budget, now)
}

// onlyElsewhere reports whether the target that failed so must not be asked again for
// this answer. After a timeout of a whole answer it may still be working on it: every
// further try there is paid and comes no sooner. A server that lacks the path, or is
// another than was expected, will not have become the right one.
func (c *chase) onlyElsewhere(e *providers.Error) bool {
	return e.Kind == providers.UpstreamCredential || e.Final() || e.Kind == providers.Protocol && e.Status >= 400 || e.RetryAfter > c.opt.RetryAfterMax ||
		e.Kind == providers.Timeout && atOnce(c.req)
}

// hold keeps what comes before the first content back, so that a failure in
// between can still be mended by another try.
type hold struct {
	*chase
	target    *Target
	events    []streaming.Event
	bytes     int
	committed bool
}

func (h *hold) run(ctx context.Context, firstToken time.Duration) error {
	a := newAttempt(ctx, h.target, h.req, firstToken)
	defer a.close()
	h.introduce()
	for batch, err := range a.stream(h.req, h.progress) {
		if err != nil {
			return h.named(err)
		}
		h.present(batch)
		content := hasContent(batch)
		var from time.Duration
		if !content { // the clock of the next token goes on after it
			from = streaming.Uptime()
		}
		a.lend()
		if !h.pass(batch, content) {
			return errStopped
		}
		a.saw(content, from)
	}
	if !h.committed && !h.flush(nil) {
		return errStopped
	}
	return nil
}

// introduce begins what the client gets with the name of the target. It stays out of
// run's frame, which every waiting stream keeps on its stack.
//
//go:noinline
func (h *hold) introduce() {
	h.events = append(h.events, streaming.Event{Kind: streaming.Meta, Meta: &streaming.MetaData{Header: h.target.header()}})
}

// present gives the answer the pool's name of the model; adapters that pass bytes
// on do the same in them.
func (h *hold) present(batch []streaming.Event) {
	if h.req.PresentAs == "" {
		return
	}
	for i := range batch {
		if m := batch[i].Meta; m != nil && m.Model != "" {
			m.Model = h.req.PresentAs
		}
	}
}

// named tells in which target an error happened.
//
//go:noinline
func (h *hold) named(err error) error {
	if e := providers.AsError(err); e != nil {
		e.Target = h.target.Name
		return err
	}
	return fmt.Errorf("%s: %w", h.target.Name, err)
}

func hasContent(batch []streaming.Event) bool {
	for i := range batch {
		if batch[i].Kind.Commits() {
			return true
		}
	}
	return false
}

// pass yields a batch, or keeps it while there is no content in it.
func (h *hold) pass(batch []streaming.Event, content bool) bool {
	if h.committed {
		return len(batch) == 0 || h.yield(batch, nil)
	}
	if content {
		return h.flush(batch)
	}
	h.keep(batch)
	if len(h.events) > h.opt.HoldEvents || h.bytes > h.opt.HoldBytes {
		return h.flush(nil)
	}
	return true
}

func (h *hold) keep(batch []streaming.Event) {
	for i := range batch {
		h.bytes += len(batch[i].Raw)
		h.events = append(h.events, batch[i].Clone())
	}
}

func (h *hold) flush(batch []streaming.Event) bool {
	h.committed = true
	held := append(h.events, batch...)
	h.events = nil
	return h.yield(held, nil)
}
