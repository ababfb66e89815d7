package router

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"sluice/providers"
	"sluice/streaming"
)

// Options bound what the router does for one answer.
type Options struct {
	Tries         int           // attempts in all; each model of a fallback chain has one at least
	BackoffMin    time.Duration // first pause is drawn from 0 to this
	BackoffMax    time.Duration // later ones from 0 to at most this
	RetryAfterMax time.Duration // a longer wish of the upstream means another target and a cool-down
	Budget        Budget
	HoldEvents    int // events held back before content
	HoldBytes     int
	FirstFailover time.Duration // to the first token while another target remains
	FailoverPer1K time.Duration // added for each thousand prompt tokens
	Gate          Gate          // asked before each attempt; nil lets all pass
	Breaker       Breaker
	// Lost, if not nil, is told what an attempt has cost that no caller pays for: the slower
	// one of two that were hedged. It is called from any goroutine.
	Lost func(*Loss)
	// Shadows makes the copies of calls; nil makes none.
	Shadows *Shadows
}

// Loss is an attempt that no caller pays for.
type Loss struct {
	Target  *Target
	Request *providers.Request // read only
	Start   time.Time
	Took    time.Duration
	Spent   Spent
}

// Resolver finds the pool behind a model name; an unknown one is an *providers.Error.
type Resolver interface {
	Resolve(ctx context.Context, model string) (*Pool, error)
}

// versioned is a Resolver whose models have versions.
type versioned interface {
	// ResolveVersion finds the targets of a model that have a version.
	ResolveVersion(ctx context.Context, model, version string) (*Pool, error)
}

// Router is a Provider over pools of targets.
type Router struct {
	opt    Options
	pools  Resolver
	losers sync.WaitGroup // attempts that outlive their answers
}

// New returns a router.
func New(pools Resolver, opt Options) *Router { return &Router{opt: opt, pools: pools} }

// Wait returns when the last attempt is over that has outlived its answer. It is called
// when no answers run, and none begin.
func (r *Router) Wait() { r.losers.Wait() }

// Stream implements providers.Provider: it tries targets until one brings content,
// and from there on passes on what comes, its failure included.
func (r *Router) Stream(ctx context.Context, req *providers.Request, p *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		pool, err := r.resolve(ctx, req)
		if err != nil {
			yield(nil, err)
			return
		}
		c := &chase{Router: r, own: pool, asked: req, progress: p, yield: yield, most: r.opt.Tries}
		if err := c.enter(ctx, pool); err != nil {
			yield(nil, err)
			return
		}
		c.listen()
		if err := c.run(ctx); err != nil && !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	}
}

func (r *Router) resolve(ctx context.Context, req *providers.Request) (*Pool, error) {
	model, version := req.Asks(), req.Route.Version
	if version == "" && req.Route.Model == "" {
		version = req.Hints.Version // it is one of the model that was asked for
	}
	if v, ok := r.pools.(versioned); ok && version != "" {
		return v.ResolveVersion(ctx, model, version)
	}
	return r.pools.Resolve(ctx, model)
}

// errStopped says that the reader of the stream wants no more.
var errStopped = errors.New("the reader has stopped")

// run makes the first attempt, and what is needed for further ones only then.
func (c *chase) run(ctx context.Context) error {
	err := c.next(ctx)
	if err != nil && !c.over {
		err = c.repeat(ctx, err)
	}
	if err != nil && c.told != nil {
		err = c.resume(ctx, err)
	}
	if ctx.Err() != nil && !errors.Is(err, errStopped) {
		return context.Cause(ctx)
	}
	return err
}

// repeat makes further attempts after the failure of the first one.
func (c *chase) repeat(ctx context.Context, failed error) error {
	return backoff.Retry(func() error {
		err := failed
		if failed = nil; err == nil {
			err = c.next(ctx)
		}
		if err != nil && c.over {
			return backoff.Permanent(err)
		}
		return err
	}, &pauses{chase: c, ctx: ctx})
}
