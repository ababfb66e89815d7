package router

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/providers"
)

// Explanation is where a request would go, and why. Finding it asks nobody and changes
// nothing.
type Explanation struct {
	Model      string // as asked for
	Rules      []RuleExplained
	Rule       string // that decides; "" is none
	Pool       string // that is asked
	Balance    string // how those of one place share the calls
	Candidates []Candidate
	Fallback   []string // models that come after it
	Shadows    []Shadow // that may get a copy
	Err        error    // what the caller would be told at once
}

// RuleExplained is one rule, looked at for one request.
type RuleExplained struct {
	Name    string
	Holds   bool
	Decides bool
	Skipped bool   // one before it has decided
	Why     string // it does not hold
	Then    string // what it does
}

// Candidate is one target of the pool, in the order in which they are tried. Those of the
// same Place share the calls.
type Candidate struct {
	TargetStatus
	Place int    // from 1; 0: it is not asked
	Why   string // it is not
}

// Explain tells what the rules, which may be nil, and the router would do with a request
// whose hints are known.
func (r *Router) Explain(ctx context.Context, rules *Rules, req *providers.Request) Explanation {
	again := *req
	again.Route = providers.Route{}
	out := Explanation{Model: req.Model, Rules: rules.explain(&again)}
	if out.Err = rules.Apply(&again); out.Err != nil {
		out.Rule = again.Route.Rule
		return out
	}
	out.Rule = again.Route.Rule
	pool, err := r.resolve(ctx, &again)
	if err != nil {
		out.Err = err
		return out
	}
	out.Pool, out.Balance, out.Fallback = pool.Model, pool.Balance.String(), pool.Fallback
	out.Shadows = rules.shadows(out.Rules)
	if pool.Shadow.Model != "" {
		out.Shadows = append(out.Shadows, pool.Shadow)
	}
	unfit, _, err := pool.unfit(ctx, &again)
	if err != nil {
		out.Err = err
	}
	out.Candidates = pool.candidates(&query{shut: &unfit, now: uptime(), cfg: &r.opt.Breaker, req: &again, tier: again.Route.Tier}, err != nil)
	return out
}

func (r *Rules) explain(req *providers.Request) (out []RuleExplained) {
	if r == nil {
		return nil
	}
	f := facts{req: req, base: r.names.Base(req.Model), clock: r.now, prompt: -1}
	f.versioned = req.Hints.Version != "" || r.names.Versioned(req.Model)
	decided := false
	for i := range r.rules {
		u := &r.rules[i]
		e := RuleExplained{Name: u.Name, Then: u.Then.String(), Skipped: decided}
		if why := u.holds(&f); why == held {
			e.Holds, e.Decides = true, u.decides && !decided
		} else {
			e.Why = why.String()
		}
		decided = decided || e.Decides
		out = append(out, e)
	}
	return out
}

// shadows are those of the rules that hold and are reached.
func (r *Rules) shadows(rules []RuleExplained) (out []Shadow) {
	for i := range rules {
		if s := r.rules[i].Then.Shadow; rules[i].Holds && !rules[i].Skipped && s.Model != "" {
			out = append(out, s)
		}
	}
	return out
}

// String says what the rule does.
func (t *Then) String() string {
	var parts []string
	if t.Refuse != "" {
		parts = append(parts, "refuse")
	}
	if t.Model != "" {
		parts = append(parts, "ask "+t.Model)
	}
	if t.Version != "" {
		parts = append(parts, "version "+t.Version)
	}
	if t.Tier != nil {
		parts = append(parts, "priority "+strconv.Itoa(*t.Tier)+" first")
	}
	if t.Shadow.Model != "" {
		parts = append(parts, "copy to "+t.Shadow.Model)
	}
	return strings.Join(parts, ", ")
}

// placed is a candidate with what orders it.
type placed struct {
	Candidate
	rank  int
	score float64 // lower goes first
}

// candidates orders the targets as pick would ask them, one after the other.
func (p *Pool) candidates(q *query, none bool) (out []Candidate) {
	var all []placed
	for i, t := range p.Targets {
		c := placed{Candidate: Candidate{TargetStatus: t.status(q.cfg)}, rank: rankNone}
		switch {
		case none || q.shut.has(i):
			c.Why = "it cannot serve the request"
		case t.Drained:
			c.Why = "it is drained"
		case c.Share == 0:
			c.Why = "it is left alone"
		case t.MaxRunning > 0 && c.Running >= int64(t.MaxRunning):
			c.Why = "it is full"
		case c.State == "cooling":
			c.rank = t.rank(rankCooled, q.tier)
		default:
			c.rank = t.rank(0, q.tier)
		}
		c.score = p.order(t, q)
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		if a.rank != b.rank {
			return a.rank - b.rank
		}
		switch {
		case a.score < b.score:
			return -1
		case a.score > b.score:
			return 1
		}
		return 0
	})
	place, last := 0, placed{rank: -1}
	for _, c := range all {
		if c.rank != rankNone {
			if c.rank != last.rank || p.Balance == BalanceHash {
				place++
			}
			c.Place, last = place, c
		}
		out = append(out, c.Candidate)
	}
	return out
}

// order is what a way to balance goes by among targets of one rank, as far as that is known
// before: the place of the request, what runs, what is expected; else the weight.
func (p *Pool) order(t *Target, q *query) float64 {
	switch p.Balance {
	case BalanceHash:
		return -t.score(p.Affinity.key(q.req), false)
	case BalanceTwoChoices, BalanceLeastRunning:
		return float64(t.state().running.Load()+1) / float64(t.share())
	case BalancePeakEWMA:
		return math.Min(t.cost(q), unknownCost)
	case BalanceWeighted:
		return -float64(t.Weight)
	default:
		return 0
	}
}

// At has the rules go by another clock, for tests and for what is asked of another time.
func (r *Rules) At(now func() time.Time) *Rules {
	again := *r
	again.now = now
	return &again
}
