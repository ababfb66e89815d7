package ratelimittest

import (
	"context"
	"math/big"
	"sync"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// Model is a Limiter that does what the contract says in the plainest way: levels are
// fractions of unlimited size, and nothing is ever forgotten.
type Model struct {
	rules *ratelimit.Rules
	now   func() time.Time

	mu       sync.Mutex
	accounts map[accountKey]*account
	deals    map[string]*deal
	rows     []ledger.Row
}

var _ ratelimit.Limiter = (*Model)(nil)

type accountKey struct{ rule, org, name, model string }

// account is one bucket.
type account struct {
	level *big.Rat // nil: full
	at    time.Time
	calls map[string]bool // that hold a place
}

// deal is a reservation.
type deal struct {
	at      time.Time
	parts   []part
	settled bool
}

type part struct {
	rule    *ratelimit.Rule
	account *account
	taken   int64
}

// NewModel returns a Model whose buckets are full.
func NewModel(rules *ratelimit.Rules, now func() time.Time) *Model {
	return &Model{rules: rules, now: now, accounts: map[accountKey]*account{}, deals: map[string]*deal{}}
}

// Rows are the rows of all settled calls.
func (m *Model) Rows() []ledger.Row {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]ledger.Row(nil), m.rows...)
}

// Reserve implements ratelimit.Limiter.
func (m *Model) Reserve(_ context.Context, c *ratelimit.Call) (ratelimit.Grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	parts, levels := m.look(&c.Who)
	known := m.deals[c.ID] != nil
	var over, large ratelimit.Denied
	for i, p := range parts {
		prompt, need := promptOf(p.rule.Dim, c.Want), min(cost(p.rule, c.Want), p.rule.Full())
		switch {
		case prompt > p.rule.Full():
			large.Over = append(large.Over, ratelimit.Shortage{Level: levels[i], Need: prompt})
		case need > 0 && p.account.leftOf(p.rule) < need:
			over.Over = append(over.Over, ratelimit.Shortage{Level: levels[i], Need: need})
			over.RetryAfter = max(over.RetryAfter, p.account.wait(p.rule, need, m.now()))
		}
	}
	switch {
	case !known && large.Over != nil:
		large.TooLarge = true
		return ratelimit.Grant{}, &large
	case !known && over.Over != nil:
		return ratelimit.Grant{}, &over
	case !known:
		for i := range parts {
			parts[i].take(c.ID, min(cost(parts[i].rule, c.Want), parts[i].rule.Full()))
		}
		m.deals[c.ID] = &deal{at: m.now(), parts: parts}
	}
	g := ratelimit.Grant{}
	parts, g.Levels = m.look(&c.Who)
	for _, p := range parts {
		g.Hard = g.Hard || p.rule.Hard
	}
	return g, nil
}

// look finds the buckets of a subject and how they stand.
func (m *Model) look(who *ratelimit.Subject) (parts []part, levels []ratelimit.Level) {
	for _, b := range m.rules.Match(nil, who) {
		key := accountKey{b.Rule.ID, b.Org, b.Name, b.Model}
		a := m.accounts[key]
		if a == nil {
			a = &account{calls: map[string]bool{}}
			m.accounts[key] = a
		}
		a.advance(b.Rule, m.now())
		parts = append(parts, part{rule: b.Rule, account: a})
		levels = append(levels, ratelimit.Level{Rule: b.Rule, Name: b.Label(), Left: a.leftOf(b.Rule),
			Reset: a.wait(b.Rule, b.Rule.Full(), m.now())})
	}
	return parts, levels
}

// Extend implements ratelimit.Limiter.
func (m *Model) Extend(_ context.Context, c *ratelimit.Call, more ratelimit.Cost) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.deals[c.ID]
	if d == nil || d.settled {
		return nil
	}
	var denied ratelimit.Denied
	for _, p := range d.parts {
		p.account.advance(p.rule, m.now())
		if need := cost(p.rule, more); p.rule.Hard && need > 0 && p.account.left() < need {
			wait := p.account.wait(p.rule, min(need, p.rule.Full()), m.now())
			denied.RetryAfter = max(denied.RetryAfter, wait)
			denied.Over = append(denied.Over, ratelimit.Shortage{Need: need, Level: ratelimit.Level{
				Rule: p.rule, Left: p.account.left(), Reset: p.account.wait(p.rule, p.rule.Full(), m.now())}})
		}
	}
	if denied.Over != nil {
		return &denied
	}
	for i := range d.parts {
		if p := &d.parts[i]; p.rule.Hard {
			p.take(c.ID, cost(p.rule, more))
		}
	}
	return nil
}

// Settle implements ratelimit.Limiter.
func (m *Model) Settle(_ context.Context, s *ratelimit.Settlement) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.deals[s.Call.ID]
	if d == nil {
		d = &deal{}
		m.deals[s.Call.ID] = d
	}
	if d.settled {
		return nil
	}
	d.settled = true
	m.rows = append(m.rows, s.Row)
	for _, p := range d.parts {
		p.rule = m.inForce(p.rule)
		delete(p.account.calls, s.Call.ID)
		if p.rule.Dim == ratelimit.Streams {
			continue
		}
		p.account.advance(p.rule, m.now())
		back := p.taken - cost(p.rule, s.Used)
		if begin := calendarBegin(p.rule.Per, latest(m.now(), p.account.at)); back < 0 || !d.at.Before(begin) {
			p.account.add(p.rule, back)
		}
	}
	return nil
}

// Peek implements ratelimit.Limiter.
func (m *Model) Peek(_ context.Context, who *ratelimit.Subject) ([]ratelimit.Level, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, levels := m.look(who)
	return levels, nil
}

// inForce is what has become of a rule.
func (m *Model) inForce(rule *ratelimit.Rule) *ratelimit.Rule {
	for _, r := range m.rules.All() {
		if r.ID == rule.ID && r.Dim == rule.Dim {
			return r
		}
	}
	return rule
}

func (p *part) take(id string, n int64) {
	if p.rule.Dim == ratelimit.Streams {
		p.account.calls[id] = true
		return
	}
	p.taken += n
	p.account.add(p.rule, -n)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
