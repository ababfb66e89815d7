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
type Spent struct {
	Input, Output int64
	Unasked       bool // nothing was sent: the target has refused the request itself
}

// Gates asks one gate after the other; all must agree.
func Gates(gates ...Gate) Gate { return both(gates) }

type both []Gate

// Acquire implements Gate.
func (c both) Acquire(ctx context.Context, try *Try) (func(Spent), error) {
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
type Places struct {
	upstreams atomic.Pointer[map[string]*places] // the map itself never changes
}

type places struct{ most, taken atomic.Int64 }

// NewPlaces returns a gate with the most attempts by the name of the upstream. One
// that is not named, or with 0, has no bound.
func NewPlaces(most map[string]int) *Places {
	p := new(Places)
	p.upstreams.Store(&map[string]*places{})
	p.Bound(most)
	return p
}

// Bound puts other bounds in force. Attempts that run go on; they count where their upstream
// had a bound when they began, and has one now. Of two calls at the same time one is lost.
func (p *Places) Bound(most map[string]int) {
	was, is := *p.upstreams.Load(), map[string]*places{}
	for name, n := range most {
		if n <= 0 {
			continue
		}
		here := was[name]
		if here == nil {
			here = new(places)
		}
		here.most.Store(int64(n))
		is[name] = here
	}
	p.upstreams.Store(&is)
}

// untilPlace is what callers are told to wait for a place: nobody knows how long the
// answers that run will take.
const untilPlace = time.Second

// Acquire implements Gate.
func (p *Places) Acquire(_ context.Context, try *Try) (func(Spent), error) {
	here := (*p.upstreams.Load())[try.Target.Upstream]
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
	if here := (*p.upstreams.Load())[upstream]; here != nil {
		return here.taken.Load()
	}
	return 0
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
