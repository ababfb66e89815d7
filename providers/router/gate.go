package router

import (
	"context"
	"sync/atomic"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// Gate says whether a target may be asked now. It is safe for concurrent use.
type Gate interface {
	// Acquire is called before each attempt. release is called once when the attempt has
	// ended. The error is an *providers.Error whose RetryAfter says when to try again; it
	// is the gateway's own, so that the target is passed over but not blamed.
	Acquire(ctx context.Context, try *Try) (release func(Spent), err error)
}

// Try is an attempt that a Gate is asked about. It is read only.
type Try struct {
	Target  *Target
	Request *providers.Request
	Number  int // of the question, from 1: unique among those of one request
}

// Spent is what an attempt has cost at its target, in tokens. A failed attempt that
// brought no content has cost none that anybody knows of.
type Spent struct{ Input, Output int64 }

// Gates asks one gate after the other; all must agree.
func Gates(gates ...Gate) Gate { return chain(gates) }

type chain []Gate

// Acquire implements Gate.
func (c chain) Acquire(ctx context.Context, try *Try) (func(Spent), error) {
	var held []func(Spent)
	release := func(s Spent) {
		for _, r := range held {
			r(s)
		}
	}
	for _, g := range c {
		r, err := g.Acquire(ctx, try)
		if err != nil {
			release(Spent{})
			return nil, err
		}
		held = append(held, r)
	}
	return release, nil
}

// Places is a Gate that bounds how many attempts of this process run at an upstream at the
// same time.
type Places struct{ upstreams map[string]*places }

type places struct{ most, taken atomic.Int64 }

// NewPlaces returns a gate with the most attempts by the name of the upstream. One
// that is not named, or with 0, has no bound.
func NewPlaces(most map[string]int) *Places {
	p := &Places{upstreams: map[string]*places{}}
	for name, n := range most {
		if n > 0 {
			here := new(places)
			here.most.Store(int64(n))
			p.upstreams[name] = here
		}
	}
	return p
}

// untilPlace is what callers are told to wait for a place: nobody knows how long the
// answers that run will take.
const untilPlace = time.Second

// Acquire implements Gate.
func (p *Places) Acquire(_ context.Context, try *Try) (func(Spent), error) {
	here := p.upstreams[try.Target.Upstream]
	if here == nil {
		return func(Spent) {}, nil
	}
	if here.taken.Add(1) > here.most.Load() {
		here.taken.Add(-1)
		return nil, &providers.Error{Kind: providers.RateLimited, Code: "upstream_concurrency_exceeded", RetryAfter: untilPlace,
			Message: "As many answers as the upstreams of this model may give at the same time are running. Try again soon."}
	}
	return func(Spent) { here.taken.Add(-1) }, nil
}

// Running is how many attempts run at an upstream that has a bound.
func (p *Places) Running(upstream string) int64 {
	if here := p.upstreams[upstream]; here != nil {
		return here.taken.Load()
	}
	return 0
}

// admit picks a target that its gates let be asked. Those that are refused are passed
// over for this try. When none is left the error is the refusal that ends first.
func (c *chase) admit(ctx context.Context) (t *Target, others int, release func(Spent), err error) {
	if c.opt.Gate == nil {
		t, others = c.pool.pick(c.tried, c.spent, time.Now())
		return t, others, nil, nil
	}
	closed := c.spent
	for {
		t, others = c.pool.pick(c.tried, closed, time.Now())
		if t == nil {
			return nil, 0, nil, err
		}
		c.asked++
		r, refusal := c.opt.Gate.Acquire(ctx, &Try{Target: t, Request: c.req, Number: c.asked})
		if refusal == nil {
			return t, others, r, nil
		}
		closed = append(closed[:len(closed):len(closed)], t)
		err = sooner(err, refusal)
	}
}

// sooner is the refusal with the shorter wait; one that names none is the last resort.
func sooner(a, b error) error {
	x, y := providers.AsError(a), providers.AsError(b)
	switch {
	case x == nil:
		return b
	case y == nil || y.RetryAfter <= 0:
		return a
	case x.RetryAfter <= 0 || y.RetryAfter < x.RetryAfter:
		return b
	default:
		return a
	}
}

// spentBy is what an attempt has cost; answered says that it brought content.
func spentBy(req *providers.Request, p *streaming.Progress, answered bool) Spent {
	if !answered {
		return Spent{}
	}
	r := p.Report()
	s := Spent{Input: r.Usage.Prompt, Output: r.Usage.Completion}
	if !r.Reported {
		s.Input = req.PromptEstimate()
	} else if r.Since > 0 {
		s.Output += r.Since
	}
	return s
}
