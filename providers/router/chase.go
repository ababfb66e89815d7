package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// chase is the way of one request through the targets of its pool, and of the pools that
// stand in for it.
type chase struct {
	*Router
	own      *Pool              // of the model that was asked for
	pool     *Pool              // that is asked now
	asked    *providers.Request // as it came
	req      *providers.Request // as the pool's targets are asked
	lenient  *providers.Request // what they are asked when none serves it whole; nil: req
	progress *streaming.Progress
	yield    func([]streaming.Event, error) bool
	tried    set // of the pool's targets
	spent    set // those that must not be asked, or not again
	refused  refusal
	failed   error // the last attempt's
	tries    int
	most     int           // of them
	gated    int           // how often the gate was asked
	pause    time.Duration // what the last target asked for
	probed   bool          // a target was asked that may not have been well
	over     bool          // the last error is final
	mirrored bool          // a copy was considered
	chain    *chain        // of fallbacks; nil: none was gone to
	one      try           // the attempt that runs
	held     hold          // what it has brought before its content
	told     *told         // to the client; nil: a broken answer is not continued
}

// try is one attempt of a chase.
type try struct {
	*chase
	target  *Target
	req     *providers.Request // the chase's when the attempt began
	at      int                // in the pool
	others  int
	state   *state
	probe   bool
	sent    time.Duration // uptime
	release func(Spent)   // of the gate; nil: there is none
	// progress is what the adapter writes to: the answer's, unless two race for it.
	progress *streaming.Progress
}

// next makes one attempt; c.over says that its error ends the chase. Targets that refuse the
// request before they send anything are passed over at once: that is no attempt.
func (c *chase) next(ctx context.Context) error {
	for {
		t, err := c.admit(ctx)
		switch {
		case t != nil:
		case err == nil && c.relax(ctx):
			continue
		case c.tries == 0 && c.fall(ctx, false):
			continue
		default:
			c.over = true
			return c.nobody(err)
		}
		if served, err := t.run(ctx); served {
			return err
		}
	}
}

// run asks one target. served is false when it has refused the request itself.
func (t *try) run(ctx context.Context) (served bool, err error) {
	t.tries++
	if after := t.hedgeAfter(t); after > 0 {
		return t.race(ctx, t, after)
	}
	t.progress.SetTarget(t.target.Name)
	h := &t.held
	*h = hold{try: t, yield: t.yield}
	refused := false
	t.send()
	defer func() { t.end(h, refused) }()
	served, refused, err = t.finish(ctx, h, h.run(ctx, t.firstToken(t.target, t.others)))
	return served, err
}

// finish judges an attempt whose answer, or failure, is the chase's.
func (t *try) finish(ctx context.Context, h *hold, err error) (served, refused bool, _ error) {
	c := t.chase
	if err == nil {
		c.count(t)
		t.judge(ctx, h, nil)
		return true, false, nil
	}
	if e := providers.AsError(err); e != nil && e.NotServed() && !h.committed && ctx.Err() == nil {
		c.tries--
		c.refuse(t, e)
		return false, true, nil
	}
	c.count(t)
	t.judge(ctx, h, err)
	if ctx.Err() == nil && !errors.Is(err, errStopped) { // else it ended as the answer did
		c.progress.EndTry(err)
	}
	c.over = h.committed || ctx.Err() != nil || errors.Is(err, errStopped)
	if !c.over {
		c.failed = err
		c.over = !c.again(ctx, t, err)
	}
	return true, false, err
}

func (t *try) send() { t.state.send(&t.opt.Breaker, t.probe, t.sent) }

// judge notes what the attempt tells of its target. Who leaves tells nothing.
func (t *try) judge(ctx context.Context, h *hold, err error) {
	switch {
	case err == nil && !h.content: // an answer without content is one
		t.state.first(&t.opt.Breaker, t.probe, false, 0, uptime())
	case err != nil && ctx.Err() == nil && blames(err):
		t.state.fail(&t.opt.Breaker, t.probe, err)
	case err != nil && ctx.Err() == nil && !errors.Is(err, errStopped):
		t.state.mu.Lock()
		t.state.say(err)
		t.state.mu.Unlock()
	}
}

// end gives back what the attempt held.
func (t *try) end(h *hold, refused bool) {
	t.state.end(t.probe)
	switch {
	case t.release == nil:
	case refused:
		t.release(Spent{Unasked: true})
	default:
		t.release(spentBy(t.req, t.progress, h.committed))
	}
}

// count notes an attempt, and with the first one the call.
func (c *chase) count(t *try) {
	c.tried.add(t.at)
	c.progress.AddAttempt()
	if c.tries == 1 {
		c.pool.budget.call(c.opt.Budget, time.Now())
	}
}

// firstToken is how long a target may think: less while another could be asked.
func (c *chase) firstToken(t *Target, others int) time.Duration {
	last := t.Phases.FirstToken
	if fall := c.mayFall(false); !fall && (others == 0 || c.tries >= c.most) {
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

// admit picks a target that its gates let be asked. Those that are refused are passed
// over for this try. When none is left the error is the refusal that ends first, or says
// why the pool cannot be asked; nil: all have refused the request.
func (c *chase) admit(ctx context.Context) (*try, error) {
	var refusal error
	closed := &c.spent
	for {
		q := query{tried: &c.tried, shut: closed, now: uptime(), cfg: &c.opt.Breaker, req: c.req, probed: c.probed, tier: c.tier()}
		found := c.pool.pick(&q)
		if found.target == nil {
			return nil, sooner(refusal, c.pool.away(found))
		}
		t := &c.one
		*t = try{chase: c, target: found.target, req: c.req, at: found.at, others: found.others, state: found.target.state(), probe: found.probe, sent: q.now, progress: c.progress}
		if c.opt.Gate == nil {
			c.probed = c.probed || t.probe
			c.mirror()
			return t, nil
		}
		c.gated++
		release, err := c.opt.Gate.Acquire(ctx, &Try{Target: t.target, Request: c.req, Number: c.gated})
		if err == nil {
			t.release, t.sent = release, uptime()
			c.probed = c.probed || t.probe
			c.mirror()
			return t, nil
		}
		if closed == &c.spent {
			own := c.spent.clone()
			closed = &own
		}
		closed.add(t.at)
		refusal = sooner(refusal, err)
	}
}

// tier is the one that a rule prefers, in the pool that it has led to.
func (c *chase) tier() int {
	if c.pool == c.own {
		return c.asked.Route.Tier
	}
	return 0
}

// drainedRetry is what callers are told to wait when an operator has taken all targets away.
const drainedRetry = 30 * time.Second

// away says why none of the targets that could serve a request can be asked; nil when it
// is not for what is known of them.
func (p *Pool) away(f picked) error {
	switch {
	case f.down > 0:
		return &providers.Error{Kind: providers.Overloaded, Code: "no_healthy_target", RetryAfter: max(f.wait, time.Second),
			Message: fmt.Sprintf("The servers of the model %q are failing, and are left alone for a moment. Try again soon.", p.Model)}
	case f.full > 0:
		return &providers.Error{Kind: providers.RateLimited, Code: "upstream_concurrency_exceeded", RetryAfter: untilPlace,
			Message: "As many answers as the upstreams of this model may give at the same time are running. Try again soon."}
	case f.drained > 0:
		return &providers.Error{Kind: providers.Overloaded, Code: "model_drained", RetryAfter: drainedRetry,
			Message: fmt.Sprintf("The model %q takes no requests at present: its servers are being drained.", p.Model)}
	default:
		return nil
	}
}
