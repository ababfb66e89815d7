package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Debt is what was used from a bucket beside the store. A negative amount was handed over
// before and came back.
type Debt struct {
	Bucket
	Amount int64 // in units of the rule's dimension; never of Streams
}

// Charger is a Limiter that can be told what was admitted beside it.
type Charger interface {
	// Charge takes the debts from exactly their buckets, which may go below zero. The same id
	// again changes nothing.
	Charge(ctx context.Context, id string, debts []Debt) error
}

// GuardOptions say how a Guard works. Rules and Journal are needed.
type GuardOptions struct {
	Rules   *Rules   // those of the primary
	Journal *Journal // keeps settlements while the primary is away; the Guard does not close it
	// Replicas is how many gateways share the limits, by what was last known of them; nil or
	// less than 1 means 1.
	Replicas func() int
	// Deadline bounds a call of the primary; 0 means 50 ms.
	Deadline time.Duration
	// Slow is what a call may take before it counts as failed; 0 means 100 ms, or the
	// Deadline where that is longer.
	Slow time.Duration
	// Open is for how long the primary is left alone after that; 0 means 2 s.
	Open time.Duration
	// InFlight bounds the calls that wait for the primary at the same time; 0 means 512.
	// Further ones are decided here, and their settlements go to the journal.
	InFlight int
	Log      *slog.Logger // nil means the default one
}

func (o *GuardOptions) complete() {
	for _, d := range []struct {
		at  *time.Duration
		std time.Duration
	}{{&o.Deadline, 50 * time.Millisecond}, {&o.Slow, max(100*time.Millisecond, o.Deadline)}, {&o.Open, 2 * time.Second}} {
		if *d.at <= 0 {
			*d.at = d.std
		}
	}
	if o.InFlight <= 0 {
		o.InFlight = 512
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
}

// Guard is the Limiter that goes on while its primary, the store that all replicas share,
// cannot be reached. It bounds how long the primary is waited for, leaves it alone when it
// fails, and decides meanwhile itself, by the policy of each rule:
//
//   - Local: this process has its share of the limit, Amount / N of N replicas, and begins
//     with its share of what the primary last said was left; with nothing, where it has said
//     nothing. Of the places of Streams it has at least one.
//   - a budget (Hard, or counting Money) that is Local: only the rule's Grace passes, then
//     calls fail with ErrUnavailable; nothing passes while the journal cannot be written.
//   - Open: nothing is counted. Closed: calls fail with ErrUnavailable.
//
// What a call that was reserved at the primary has used, and the ledger's row of every call,
// goes to the journal and from there to the primary when it is back. So is what was
// admitted here meanwhile, if the primary is a Charger: its buckets then stand as if it
// had been asked. An answer of the primary that came too late leaves nothing charged: the
// reservation it may have made is settled at nothing.
//
// A call of the primary must end with its context. Run must run.
type Guard struct {
	opt     GuardOptions
	primary Limiter
	charger Charger // nil: the primary is none
	breaker breaker
	flights chan struct{}
	seen    seen // what the primary last said
	here    *here
	wake    chan struct{}

	mu    sync.Mutex
	calls map[string]*aside // decided here, open
	count atomic.Int64      // of calls

	replays replays

	probe atomic.Pointer[Subject] // whose call failed last
	lost  atomic.Int64
}

var _ Limiter = (*Guard)(nil)

// aside is a call that this process decides on, wholly or in part.
type aside struct {
	call *Call // as the local limiter has it
	// sent says that the primary may have a reservation of it too.
	sent bool
	// extends says that the primary has the reservation, and only more was asked for here.
	extends bool
}

// NewGuard returns a guard of the primary.
func NewGuard(primary Limiter, opt GuardOptions) *Guard {
	opt.complete()
	g := &Guard{
		opt: opt, primary: primary, flights: make(chan struct{}, opt.InFlight), here: newHere(opt.Replicas),
		wake: make(chan struct{}, 1), calls: map[string]*aside{}, seen: seen{clock: newClock(nil)},
	}
	g.charger, _ = primary.(Charger)
	g.breaker = breaker{slow: opt.Slow, open: opt.Open}
	return g
}

var (
	errOpen    = errors.New("it failed before and is left alone for a moment")
	errFlights = errors.New("too many calls wait for it")
)

// ask calls the primary with the deadline, unless it is left alone. sent says that it may
// have done what it was asked for. Callers never find out whether trouble has ended: what they
// ask for may be answered by a primary that can write nothing.
func (g *Guard) ask(ctx context.Context, who *Subject, do func(context.Context) error) (sent bool, err error) {
	if g.breaker.trouble.Load() {
		if who != nil && g.probe.Load() == nil {
			g.probe.CompareAndSwap(nil, who.bare())
		}
		return false, errOpen
	}
	return g.try(ctx, who, false, do)
}

// try calls the primary and tells the breaker.
func (g *Guard) try(ctx context.Context, who *Subject, probing bool, do func(context.Context) error) (sent bool, err error) {
	start, bad := time.Now(), true
	defer func() { g.judge(time.Since(start), sent, probing, bad, who, err) }()
	sent, err = g.fly(ctx, do)
	var d *Denied
	bad = err != nil && !errors.As(err, &d)
	return sent, err
}

// fly makes a call, unless too many are under way. The client's going away does not end it:
// it is short, and then nobody would know what became of it.
func (g *Guard) fly(ctx context.Context, do func(context.Context) error) (sent bool, err error) {
	select {
	case g.flights <- struct{}{}:
	default:
		return false, errFlights
	}
	defer func() { <-g.flights }()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.opt.Deadline)
	defer cancel()
	return true, do(ctx)
}

// judge tells the breaker how a call of the primary went.
func (g *Guard) judge(took time.Duration, sent, probing, bad bool, who *Subject, err error) {
	if !sent && errors.Is(err, errFlights) {
		g.breaker.skip(probing)
		return
	}
	if who != nil && (bad || took > g.opt.Slow) {
		g.probe.Store(who.bare())
	}
	switch g.breaker.done(time.Now(), took, probing, bad) {
	case hasOpened:
		g.here.trouble()
		if !bad {
			err = fmt.Errorf("it answered only after %v", took.Round(time.Millisecond))
		}
		g.tellTrouble(err)
	case hasClosed:
		g.tellSteady()
	}
	if bad {
		g.poke()
	}
}

// bare is the subject without the rules of its own.
func (s *Subject) bare() *Subject {
	return &Subject{Org: s.Org, Team: s.Team, User: s.User, Key: s.Key, Model: s.Model, Provider: s.Provider, IP: s.IP}
}

// Reserve implements Limiter.
func (g *Guard) Reserve(ctx context.Context, c *Call) (Grant, error) {
	if !g.applies(&c.Who, false) {
		return Grant{}, nil
	}
	if a := g.find(c.ID); a != nil && !a.extends {
		return g.reserveHere(c, a.sent)
	}
	var grant Grant
	sent, err := g.ask(ctx, &c.Who, func(ctx context.Context) (err error) {
		grant, err = g.primary.Reserve(ctx, c)
		return err
	})
	var d *Denied
	switch {
	case err == nil:
		g.seen.note(&c.Who, grant.Levels)
		return grant, nil
	case errors.As(err, &d):
		for i := range d.Over {
			g.seen.note(&c.Who, []Level{d.Over[i].Level})
		}
		return Grant{}, d
	default:
		return g.reserveHere(c, sent)
	}
}

// applies reports whether the primary has anything to decide for a caller; hard, that it
// may end an answer that runs. If not it is not asked: its answer would say nothing about
// whether it can be reached.
func (g *Guard) applies(who *Subject, hard bool) bool {
	var some [8]Bucket
	for _, b := range g.opt.Rules.Match(some[:0], who) {
		if b.Rule.Hard || !hard {
			return true
		}
	}
	return false
}

// reserveHere decides without the primary.
func (g *Guard) reserveHere(c *Call, sent bool) (Grant, error) {
	plan, err := g.here.plan(g, c, false)
	var grant Grant
	if err == nil {
		grant, err = plan.reserve()
	}
	if err != nil {
		if sent && g.find(c.ID) == nil {
			g.keep(&Settlement{Call: c, Past: &Past{Sent: true}}) // nothing was used, and no row is due
		}
		return Grant{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls[c.ID] == nil {
		g.calls[c.ID] = &aside{call: plan.call, sent: sent}
		g.count.Add(1)
	}
	return grant, nil
}

// find returns the call if this process has decided on it.
func (g *Guard) find(id string) *aside {
	if g.count.Load() == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls[id]
}

// Extend implements Limiter. What the primary cannot be asked for comes out of the grace
// of the hard budgets.
func (g *Guard) Extend(ctx context.Context, c *Call, more Cost) error {
	if !g.applies(&c.Who, true) {
		return nil
	}
	if a := g.find(c.ID); a != nil {
		return g.here.extend(a.call, more)
	}
	_, err := g.ask(ctx, &c.Who, func(ctx context.Context) error { return g.primary.Extend(ctx, c, more) })
	var d *Denied
	if err == nil || errors.As(err, &d) {
		return err
	}
	ask := *c
	ask.Want = more
	plan, err := g.here.plan(g, &ask, true)
	if err != nil || plan.empty() {
		return err
	}
	if _, err := plan.reserve(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls[c.ID] = &aside{call: plan.call, sent: true, extends: true}
	g.count.Add(1)
	return nil
}

// Settle implements Limiter. It returns an error only when the settlement is lost: neither
// the primary nor the journal took it.
func (g *Guard) Settle(ctx context.Context, s *Settlement) error {
	if g.count.Load() > 0 {
		whole := s
		s = g.settleHere(s)
		if s == nil || s != whole && s.Used.Money != 0 && g.keepFirst(s) {
			return nil
		}
	}
	sent, err := g.ask(ctx, &s.Call.Who, func(ctx context.Context) error { return g.primary.Settle(ctx, s) })
	if err == nil {
		return nil
	}
	kept := *s
	kept.Past = &Past{Granted: g.holds(s.Call.ID) || s.Past != nil && s.Past.Granted, Sent: sent}
	return g.keep(&kept)
}

// keepFirst writes a settlement to the journal that the primary takes in two steps, the row and
// then the money: a process that dies between them would owe the money.
func (g *Guard) keepFirst(s *Settlement) bool {
	if g.opt.Journal.Append(s) != nil {
		return false // the primary is asked at once instead
	}
	g.poke()
	return true
}

// Holder is a Limiter that knows which calls it has granted to this process, for as long as
// their end is not known in the store.
type Holder interface{ Holds(id string) bool }

// holds reports whether the primary is known to have granted the call.
func (g *Guard) holds(id string) bool {
	h, ok := g.primary.(Holder)
	return ok && h.Holds(id)
}

// settleHere settles what this process has decided on, and returns what the primary is
// to be told, nil for nothing.
func (g *Guard) settleHere(s *Settlement) *Settlement {
	g.mu.Lock()
	a := g.calls[s.Call.ID]
	if a != nil {
		delete(g.calls, s.Call.ID)
		g.count.Add(-1)
	}
	g.mu.Unlock()
	switch {
	case a == nil:
		return s
	case a.extends: // the primary learns all of it from the settlement
		g.here.settle(a.call, Cost{})
		return s
	}
	g.here.settle(a.call, s.Used)
	g.poke()
	if !a.sent && s.Row.ID == "" && s.Used.Money == 0 {
		return nil
	}
	if g.charger == nil {
		return s
	}
	// What was used here is handed over by bucket, which a death of this process ends. Money is
	// charged with the settlement, which the journal keeps: budgets must not forget it.
	told := *s
	told.Used, told.Past = Cost{Money: s.Used.Money}, &Past{Granted: true, At: time.Now()}
	return &told
}

// keep writes a settlement to the journal.
func (g *Guard) keep(s *Settlement) error {
	if err := g.opt.Journal.Append(s); err != nil {
		g.lost.Add(1)
		return fmt.Errorf("the settlement of %s is lost: %w: %w", s.Call.ID, ErrUnavailable, err)
	}
	g.poke()
	return nil
}

// Peek implements Limiter.
func (g *Guard) Peek(ctx context.Context, who *Subject) ([]Level, error) {
	if !g.applies(who, false) {
		return nil, nil
	}
	var levels []Level
	_, err := g.ask(ctx, who, func(ctx context.Context) (err error) {
		levels, err = g.primary.Peek(ctx, who)
		return err
	})
	if err == nil {
		g.seen.note(who, levels)
		return levels, nil
	}
	plan, err := g.here.plan(g, &Call{Who: *who}, false)
	if err != nil {
		return nil, err
	}
	return plan.peek(), nil
}
