package handlers

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"sluice/handlers/tokens"
	"sluice/providers"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/streaming"
)

// Quota is what answers are held against, and where it is written what they cost.
type Quota struct {
	Limiter ratelimit.Limiter
	// Applies appends the buckets that a call takes from. Without one nothing is reserved.
	Applies func(dst []ratelimit.Bucket, who *ratelimit.Subject) []ratelimit.Bucket
	Prices  ratelimit.Prices
	// PriceAt is the price of a target that has its own; nil: none has.
	PriceAt func(target string) (ratelimit.Price, bool)
	// Base is the name that limits, prices and records know a model by, so that no alias or
	// version of it leads past them; nil: the one that was asked for.
	Base   func(model string) string
	Tokens *tokens.Estimator
	Ledger Ledger // nil: GET /usage has no history
}

// account is what one answer may cost and has cost. It belongs to the goroutine that
// answers, but for used.
type account struct {
	quota *Quota
	obs   *Observer
	log   *slog.Logger
	req   *providers.Request
	p     *streaming.Progress

	call     ratelimit.Call
	price    ratelimit.Price
	model    string       // as limits and records know it
	prompt   atomic.Int64 // the estimate and 1; 0: not made yet
	held     atomic.Int64 // tokens that are reserved
	reserved bool
	hard     bool
	declared bool  // a cap on output, or nothing has been estimated
	allowed  int64 // output deltas that need no more than what is reserved

	levels []ratelimit.Level // what is told to the caller

	settled bool
	bill    bill
}

// bill is what an answer has cost.
type bill struct {
	usage    streaming.UsageData
	requests int64 // 0 when it is not the caller's to pay
	money    int64 // nano-dollars
	reserved int64 // tokens
}

// open begins the account of an answer.
func (s *Server) open(c *call, p *streaming.Progress) *account {
	a := &account{declared: true, quota: s.opt.Quota, obs: s.opt.Observer, log: s.opt.Log, req: c.req, p: p, model: s.opt.Quota.ModelOf(c.req.Model)}
	if a.quota == nil {
		return a
	}
	who := &c.who
	a.price = a.quota.Prices.Of(a.model)
	a.call = ratelimit.Call{
		ID:  c.req.ID,
		Who: ratelimit.Subject{Org: who.Org, Team: who.Team, User: who.User, Key: who.Key, Model: a.model, IP: addressName(c.remote), Rules: who.Rules},
		Row: ledger.Row{
			ID: c.req.ID, Org: who.Org, Team: who.Team, User: who.User, Key: who.Key,
			Op: c.req.Op.String(), Transport: c.transport, Model: a.model,
		},
	}
	return a
}

// ModelOf is the name by which a model is counted and priced. A nil Quota knows no other.
func (q *Quota) ModelOf(model string) string {
	if q == nil || q.Base == nil {
		return model
	}
	return q.Base(model)
}

// addressName is the name of a client address in its scope. Of IPv6 it is the network
// of 64 bits, which is what one site has.
func addressName(remote string) string {
	if strings.IndexByte(remote, ':') < 0 {
		return remote
	}
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		return remote
	}
	if addr = addr.Unmap().WithZone(""); addr.Is4() {
		return addr.String()
	}
	p, _ := addr.Prefix(64)
	return p.Addr().String()
}

// reserve takes what the answer may cost. Without a limit that applies it does nothing.
func (a *account) reserve(ctx context.Context) error {
	if a.quota == nil {
		return nil
	}
	var some [8]ratelimit.Bucket
	buckets := a.quota.Applies(some[:0], &a.call.Who)
	if len(buckets) == 0 {
		return nil
	}
	a.estimate(buckets)
	a.call.Used, a.call.Lost, a.call.Row.Start = a.used, a.lost, a.p.Report().Start
	grant, err := a.quota.Limiter.Reserve(ctx, &a.call)
	if err != nil {
		a.settled = true // nothing was taken
		if d := new(ratelimit.Denied); errors.As(err, &d) {
			a.levels = levelsOver(d)
			a.obs.denied(d)
		}
		return err
	}
	a.reserved, a.hard, a.levels = true, grant.Hard, grant.Levels
	a.held.Store(a.call.Row.Reserved)
	a.obs.reservations.Inc()
	return nil
}

// lost ends an answer whose place, or what it had of a hard budget, was given to others while
// this process was asleep.
func (a *account) lost(d *ratelimit.Denied) {
	a.obs.denied(d)
	a.p.Cancel(&placeLost{d})
}

// placeLost is why an answer ends that another gateway has taken for dead.
type placeLost struct{ *ratelimit.Denied }

func (e *placeLost) Unwrap() error { return e.Denied }

// estimate says what to reserve. Tokens are counted only where a bucket counts them.
func (a *account) estimate(buckets []ratelimit.Bucket) {
	a.call.Want.Requests = 1
	for _, b := range buckets {
		switch b.Rule.Dim {
		case ratelimit.Tokens, ratelimit.Input, ratelimit.Output, ratelimit.Money:
			w := &a.call.Want
			w.Input = a.promptTokens()
			w.Output, a.declared = a.quota.Tokens.Output(a.req, a.call.Who.Key)
			w.Money = a.price.Cost(w.Input, 0, w.Output)
			a.allowed, a.call.Row.Reserved = w.Output, w.Input+w.Output
			if a.declared {
				a.allowed += w.Output/8 + overCap
			}
			return
		}
	}
}

// promptTokens is the estimate of the prompt, made once. It may be called concurrently.
func (a *account) promptTokens() int64 {
	if n := a.prompt.Load(); n > 0 {
		return n - 1
	}
	var n int64
	if a.quota != nil {
		n = a.quota.Tokens.Prompt(a.req)
	} else {
		n = a.req.PromptEstimate()
	}
	a.prompt.Store(n + 1)
	return n
}

// used is what has flowed so far.
func (a *account) used() ratelimit.Cost {
	r := a.p.Report()
	if r.TTFT == 0 {
		return ratelimit.Cost{}
	}
	return a.cost(r.Target, a.flowed(&r, errUnfinished), 1)
}

// priceAt is what the model costs where it was asked.
func (a *account) priceAt(target string) ratelimit.Price {
	if a.quota != nil && a.quota.PriceAt != nil {
		if p, ok := a.quota.PriceAt(target); ok {
			return p
		}
	}
	return a.price
}

func (a *account) cost(target string, u streaming.UsageData, requests int64) ratelimit.Cost {
	return ratelimit.Cost{Requests: requests, Input: u.Prompt, Output: u.Completion, Money: a.priceAt(target).Cost(u.Prompt, u.Cached, u.Completion)}
}

// errUnfinished stands for the end of an answer that runs.
var errUnfinished = errors.New("the answer runs")

// estimated is what an answer cost: as the upstream said, else by what flowed. An answer
// of which nothing came costs nothing.
func (a *account) estimated(r *streaming.Report) streaming.UsageData {
	u := r.Usage
	if !r.Reported && r.TTFT > 0 {
		u.Prompt = a.promptTokens()
		u.Total = u.Prompt + u.Completion
		u.Estimated = true
	}
	return u
}

// soFar is what is known of an answer that runs. Nothing is estimated for it that was not
// before. It may be called from any goroutine.
func (a *account) soFar(r *streaming.Report) streaming.UsageData {
	u := r.Usage
	switch n := a.prompt.Load(); {
	case r.Reported && r.Since > 0:
		u.Completion, u.Total, u.Estimated = u.Completion+r.Since, u.Total+r.Since, true
	case !r.Reported && n > 0:
		u.Prompt, u.Total = n-1, n-1+u.Completion
	}
	return u
}

// flowed is what an answer that ended with err cost. A count that the upstream told in the
// middle of an answer that was then cut is older than what flowed, and of an answer that
// failed before anything of it came nothing counts, whatever an upstream told.
func (a *account) flowed(r *streaming.Report, err error) streaming.UsageData {
	if err != nil && r.TTFT == 0 {
		return streaming.UsageData{}
	}
	u := a.estimated(r)
	if err != nil && r.Since > 0 {
		u.Completion, u.Total, u.Estimated = u.Completion+r.Since, u.Total+r.Since, true
	}
	return u
}

// charge makes the bill.
func (a *account) charge(r *streaming.Report, err error) bill {
	b := bill{usage: a.flowed(r, err), requests: 1, reserved: a.call.Row.Reserved}
	if err != nil && r.TTFT == 0 && !callersFault(describe(err).end) {
		b.requests = 0
	}
	b.money = a.priceAt(r.Target).Cost(b.usage.Prompt, b.usage.Cached, b.usage.Completion)
	return b
}

// callersFault tells ends that no upstream and no gateway is to blame for.
func callersFault(e end) bool {
	return e.status < http.StatusInternalServerError && e.status != http.StatusTooManyRequests
}

// settle pays, once. It is called when the end of the answer is known, before the client
// is told of it: a client that asks again has got its place back. The limiter bounds the
// time that it takes.
func (a *account) settle(ctx context.Context, err error) {
	if a.settled {
		return
	}
	a.settled = true
	r := a.p.Report()
	a.bill = a.charge(&r, err)
	if a.quota == nil {
		return
	}
	if a.reserved {
		a.obs.reservations.Dec()
	}
	if err == nil && !a.declared {
		a.quota.Tokens.Learn(a.req, a.call.Who.Key, a.bill.usage.Completion)
	}
	s := &ratelimit.Settlement{Call: &a.call, Used: a.cost(r.Target, a.bill.usage, a.bill.requests), Row: a.row(&r, err)}
	a.correct(&s.Used)
	if err := a.quota.Limiter.Settle(context.WithoutCancel(ctx), s); err != nil {
		a.obs.settleFailures.Inc()
		a.log.Error("an answer could not be settled", slog.String("request_id", a.req.ID), slog.Any("error", err))
	}
}

func (a *account) row(r *streaming.Report, err error) ledger.Row {
	row, u := a.call.Row, &a.bill.usage
	row.Start, row.TTFT, row.Total, row.Target, row.Attempts = r.Start, r.TTFT, time.Since(r.Start), r.Target, r.Attempts
	row.Requests, row.Input, row.Cached, row.Output, row.Reasoning = a.bill.requests, u.Prompt, u.Cached, u.Completion, u.Reasoning
	row.Estimated, row.Money, row.End = u.Estimated, a.bill.money, describe(err).name
	if row.Target == "" {
		row.Model = noModel
	}
	return row
}

// noModel is the model of calls that reached no target. Their callers may have made its
// name up, and names are bounded in the records.
const noModel = "unknown"
