package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// here is the limits as this process keeps them alone.
type here struct {
	local    *Memory // without rules of its own: each call brings those that apply, by share
	replicas func() int

	mu      sync.Mutex
	n       int // replicas that shares are for
	shares  map[*Rule]*share
	marks   map[slotKey]*mark
	episode int // of trouble
}

// share is a rule, and what of it this process has.
type share struct {
	of     *Rule
	rule   *Rule // with the same ID
	shown  *Rule // to callers: the declared rule with the amount of this part
	budget bool
	// unseen is what a bucket begins with that the primary has said nothing of. One that
	// fills in hours, or only when a day begins, would stay empty: it has its share of a grace.
	unseen int64
}

// mark is a bucket that was used here.
type mark struct {
	bucket  Bucket // of the primary
	budget  bool
	episode int // in which the bucket was last begun
	// without is the bucket here as if nobody had used it since the mark was made, or since
	// what was used was handed over.
	without fill
	cut     int64 // of the slot, when it was last looked at
	handed  int64 // over to the primary
}

const (
	maxShares = 1 << 14
	maxMarks  = 1 << 17 // beyond it, use of further buckets is not handed over
	// graceShare and graceTokens are the grace of a budget that names none.
	graceShare  = 100
	graceTokens = 10_000
)

func newHere(replicas func() int) *here {
	none, _ := NewRules(nil) // no rule can be wrong
	return &here{local: NewMemory(MemoryOptions{Rules: none}), replicas: replicas,
		shares: map[*Rule]*share{}, marks: map[slotKey]*mark{}}
}

// count is how many replicas share the limits.
func (h *here) count() int {
	if h.replicas == nil {
		return 1
	}
	return max(h.replicas(), 1)
}

// share finds this process's part of a rule.
func (h *here) share(r *Rule) *share {
	n := h.count()
	h.mu.Lock()
	defer h.mu.Unlock()
	if n != h.n || len(h.shares) >= maxShares {
		clear(h.shares)
		h.n = n
	}
	s := h.shares[r]
	if s == nil {
		s = newShare(r, int64(n))
		h.shares[r] = s
	}
	return s
}

func newShare(r *Rule, n int64) *share {
	part := *r
	s := &share{of: r, rule: &part, budget: r.Hard || r.Dim == Money}
	if s.budget {
		// One that a new day fills: it is filled too when what was used is handed over.
		part.Per, part.Amount, part.Burst = CalendarDay, grace(r)/n, 0
		s.unseen = part.Amount
		s.show()
		return s
	}
	part.Amount = max(r.Amount/n, 1)
	if r.Burst > 0 {
		part.Burst = max(r.Burst/n, 1)
	}
	if r.Per >= Hour {
		s.unseen = grace(r) / n
	}
	s.show()
	return s
}

func (s *share) show() {
	shown := *s.of
	shown.Amount, shown.Burst = s.rule.Amount, s.rule.Burst
	s.shown = &shown
}

// grace is what a budget lets pass in trouble, all replicas together.
func grace(r *Rule) int64 {
	switch {
	case r.Grace > 0:
		return min(r.Grace, r.Amount)
	case r.Dim == Tokens || r.Dim == Input || r.Dim == Output:
		return min(r.Amount/graceShare, graceTokens)
	default:
		return r.Amount / graceShare
	}
}

// plan is a call as this process decides it.
type plan struct {
	here   *here
	call   *Call
	shares []*share
}

func (p *plan) empty() bool { return len(p.shares) == 0 }

// plan looks up what applies to a call here; hard says: of the hard budgets only. The error
// wraps ErrUnavailable: nobody may decide here.
func (h *here) plan(g *Guard, c *Call, hard bool) (*plan, error) {
	p := &plan{here: h, call: &Call{ID: c.ID, Who: c.Who, Want: c.Want}}
	p.call.Who.Rules = nil
	var some [few]Bucket
	for _, b := range g.opt.Rules.Match(some[:0], &c.Who) {
		if hard && !b.Rule.Hard || b.Rule.OnTrouble == Open {
			continue
		}
		if b.Rule.OnTrouble == Closed {
			return nil, unavailable(b.Rule)
		}
		s := h.share(b.Rule)
		if s.budget && g.opt.Journal.failing.Load() {
			return nil, unavailable(b.Rule)
		}
		h.begin(&b, s, &g.seen)
		p.shares = append(p.shares, s)
		p.call.Who.Rules = append(p.call.Who.Rules, s.rule)
		if s.clamp(&p.call.Want); s.budget && p.call.Want.in(s.rule) > s.rule.Amount {
			return nil, unavailable(b.Rule)
		}
	}
	return p, nil
}

func unavailable(r *Rule) error {
	return fmt.Errorf("limit %s: %w", r.ID, ErrUnavailable)
}

// clamp lets a prompt that fits into the limit, and not into the share of it, be served
// from a full bucket, into debt.
func (s *share) clamp(want *Cost) {
	full, prompt := s.rule.Full(), want.prompt(s.rule.Dim)
	if s.budget || prompt <= full || prompt > s.of.Full() {
		return
	}
	switch s.rule.Dim {
	case Tokens, Input:
		want.Input = full
	case Frames:
		want.Frames = full
	case FrameBytes:
		want.FrameBytes = full
	default:
	}
}

// reserve takes the call's share. The error is a *Denied, or wraps ErrUnavailable when the
// grace of a budget is used up.
func (p *plan) reserve() (Grant, error) {
	grant, err := p.here.local.Reserve(context.Background(), p.call)
	if err == nil {
		p.real(grant.Levels)
		return grant, nil
	}
	return Grant{}, p.denial(err)
}

// peek is how the call's buckets stand here.
func (p *plan) peek() []Level {
	levels, _ := p.here.local.Peek(context.Background(), &p.call.Who)
	p.real(levels)
	return levels
}

// real gives levels the rules as they were declared, with the amounts that hold here.
func (p *plan) real(levels []Level) {
	for i := range levels {
		for _, s := range p.shares {
			if levels[i].Rule == s.rule {
				levels[i].Rule = s.shown
			}
		}
	}
}

// denial is a denial in terms of the declared rules, with the amounts that hold here. What
// can never pass is larger than the whole limit.
func (p *plan) denial(err error) error {
	var d *Denied
	if !errors.As(err, &d) {
		return err
	}
	for i := range d.Over {
		for _, s := range p.shares {
			if d.Over[i].Rule != s.rule {
				continue
			}
			if s.budget {
				return unavailable(s.of)
			}
			if d.Over[i].Rule = s.shown; d.TooLarge {
				d.Over[i].Rule = s.of
			}
		}
	}
	return d
}
