package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"sluice/handlers"
	"sluice/providers"
	"sluice/providers/router"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// newGate is what attempts must pass: the limits of upstreams, and how much may run there
// at once; nil when there is neither.
func newGate(c *Config, q *handlers.Quota, places *router.Places) router.Gate {
	var gates []router.Gate
	if slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.MaxRunning > 0 }) {
		gates = append(gates, places)
	}
	if slices.ContainsFunc(c.Limits, func(l Limit) bool { return scopes[l.Scope] == ratelimit.Provider }) {
		gates = append(gates, &upstreamLimits{q})
	}
	switch len(gates) {
	case 0:
		return nil
	case 1:
		return gates[0]
	default:
		return router.Gates(gates...)
	}
}

// placesAt is how much may run at each upstream.
func placesAt(c *Config) map[string]int {
	most := map[string]int{}
	for i := range c.Upstreams {
		most[c.Upstreams[i].Name] = c.Upstreams[i].MaxRunning
	}
	return most
}

// upstreamLimits holds attempts against the limits of their upstream. What an attempt has
// cost there is no caller's row: callers pay for answers.
type upstreamLimits struct{ quota *handlers.Quota }

// Acquire implements router.Gate.
func (u *upstreamLimits) Acquire(ctx context.Context, try *router.Try) (func(router.Spent), error) {
	h, req := u.quota, try.Request
	model := h.ModelOf(req.Model)
	call := &ratelimit.Call{
		ID:  req.ID + "." + strconv.Itoa(try.Number),
		Who: ratelimit.Subject{Provider: try.Target.Upstream, Model: model},
	}
	var some [4]ratelimit.Bucket
	if len(h.Applies(some[:0], &call.Who)) == 0 {
		return func(router.Spent) {}, nil
	}
	price := h.Prices.Of(model)
	if own, ok := h.PriceAt(try.Target.Name); ok {
		price = own
	}
	call.Want = ratelimit.Cost{Requests: 1, Input: h.Tokens.Prompt(req)}
	call.Want.Output, _ = h.Tokens.Output(req, "")
	call.Want.Money = price.Cost(call.Want.Input, 0, call.Want.Output)
	if _, err := h.Limiter.Reserve(ctx, call); err != nil {
		return nil, overUpstream(err)
	}
	return func(s router.Spent) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
		defer cancel()
		used := ratelimit.Cost{Input: s.Input, Output: s.Output, Money: price.Cost(s.Input, 0, s.Output)}
		if !s.Unasked {
			used.Requests = 1
		}
		_ = h.Limiter.Settle(ctx, &ratelimit.Settlement{Call: call, Used: used, Row: ledger.Row{}}) // it is in the journal, or its lease runs out
	}, nil
}

// releaseTime bounds how long the settlement of an attempt may take.
const releaseTime = 5 * time.Second

// overUpstream says in the words of the router that an upstream may not be asked now. A
// prompt that the upstream's limit never lets through names no time to wait for, so that
// the refusal of any other target goes before it.
func overUpstream(err error) error {
	d := new(ratelimit.Denied)
	if errors.As(err, &d) && d.TooLarge {
		return &providers.Error{Kind: providers.BadRequest, Code: "request_too_large", Err: err,
			Message: "The prompt alone is larger than the limits of this model's upstreams ever let through at once. Make it smaller."}
	}
	e := &providers.Error{Kind: providers.RateLimited, Code: "upstream_limit_reached", RetryAfter: time.Second, Err: err,
		Message: "The upstreams of this model have been asked as much as they may be. Try again soon."}
	if d.RetryAfter > 0 {
		e.RetryAfter = d.RetryAfter
	} else if errors.Is(err, ratelimit.ErrUnavailable) {
		e.Kind, e.Code = providers.Overloaded, "quota_unavailable"
	}
	return e
}
