package router

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v4"

	"sluice/providers"
)

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

// maxCool bounds a cool-down: an upstream that asks for an hour (or whose clock is
// wrong) would else be gone for as long, though limits are mostly counted by the minute.
const maxCool = 5 * time.Minute

// coolRefused is how long a target is left alone that refuses the gateway's credential or
// has none left to spend: others answer meanwhile, and nobody waits for it.
const coolRefused = 30 * time.Second

// leastLeft is how much of the total time must remain for another try.
const leastLeft = time.Second

// again decides whether a failed try is followed by another, and how soon.
func (c *chase) again(ctx context.Context, t *try, err error) bool {
	e := providers.AsError(err)
	if e == nil {
		return false
	}
	c.pause = 0
	if tooLong(e) {
		return c.enough(ctx) && c.fall(ctx, true)
	}
	if !e.Retryable() {
		return false
	}
	switch {
	case e.RetryAfter > c.opt.RetryAfterMax:
		t.state.coolFor(min(e.RetryAfter, maxCool))
	case e.Kind == providers.UpstreamCredential || e.Final():
		t.state.coolFor(coolRefused)
	}
	if c.onlyElsewhere(e) {
		c.spent.add(t.at)
	}
	return c.enough(ctx) && c.further(ctx, e)
}

// further looks for a place for the next try. Other targets of the model come first, then
// the same ones again; the last try is kept for the fallback.
func (c *chase) further(ctx context.Context, e *providers.Error) bool {
	o := c.pool.survey(&c.tried, &c.spent, &c.opt.Breaker, uptime())
	left := c.most - c.tries
	fall := c.mayFall(false)
	switch {
	case o.fresh > 0 && (left > 1 || left == 1 && !fall):
		return o.well || c.pool.budget.take(c.opt.Budget, time.Now())
	case fall && (o.again == 0 || left <= 1 || e.Kind == providers.Timeout):
		return c.fall(ctx, false)
	case o.again > 0 && left > 0:
		if e.RetryAfter <= c.opt.RetryAfterMax {
			c.pause = e.RetryAfter
		}
		return c.enough(ctx) && c.pool.budget.take(c.opt.Budget, time.Now())
	default:
		return false
	}
}

// enough reports whether there is time for another try.
func (c *chase) enough(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return !ok || time.Until(end) >= leastLeft+c.pause
}

// onlyElsewhere reports whether the target that failed so must not be asked again for
// this answer. After a timeout of a whole answer it may still be working on it: every
// further try there is paid and comes no sooner. A server that lacks the path, or is
// another than was expected, will not have become the right one.
func (c *chase) onlyElsewhere(e *providers.Error) bool {
	return e.Kind == providers.UpstreamCredential || e.Final() || e.Kind == providers.Protocol && e.Status >= 400 || e.RetryAfter > c.opt.RetryAfterMax ||
		e.Kind == providers.Timeout && atOnce(c.req)
}
