package ratelimit

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// GuardState is how the guard stands.
type GuardState struct {
	Trouble  bool      // the primary is left alone, or has not answered yet
	Since    time.Time // of the trouble
	Replicas int       // that the limits are shared by
	Calls    int64     // open calls that were decided here
	Lost     int64     // settlements that neither the primary nor the journal took
	Journal  JournalStats
}

// State returns what is known now.
func (g *Guard) State() GuardState {
	s := GuardState{Replicas: g.here.count(), Calls: g.count.Load(), Lost: g.lost.Load(), Journal: g.opt.Journal.Stats()}
	s.Trouble, s.Since = g.breaker.state()
	if !s.Trouble {
		s.Since = time.Time{}
	}
	return s
}

// round is the pause between two looks at a primary in trouble, and at what is left to be
// handed over.
const round = 250 * time.Millisecond

// Run looks whether the primary is back, replays the journal to it and hands over what was
// used meanwhile, until ctx ends. What an earlier process left in the journal is replayed
// at once.
func (g *Guard) Run(ctx context.Context) {
	var owed *charge
	var busy bool
	for ctx.Err() == nil {
		owed, busy = g.catchUp(ctx, owed)
		if busy {
			t := time.NewTimer(round)
			select {
			case <-t.C:
			case <-ctx.Done():
			}
			t.Stop()
			continue
		}
		select {
		case <-g.wake:
		case <-ctx.Done():
		}
	}
}

func (g *Guard) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// catchUp makes one round. busy says that another one is needed soon. Nothing is sent after a
// failure before something has succeeded: what may or may not have been handed over waits,
// and is charged too late to be exact.
func (g *Guard) catchUp(ctx context.Context, owed *charge) (next *charge, busy bool) {
	if g.breaker.shaky() {
		g.look(ctx)
		if g.breaker.shaky() {
			return owed, true
		}
	}
	if g.opt.Journal.Stats().Pending > 0 && !time.Now().Before(g.replays.rest) {
		done, err := g.opt.Journal.Replay(ctx, g.replay)
		if done > 0 {
			g.opt.Log.Info("settlements were replayed", "settlements", done, "left", g.opt.Journal.Stats().Pending)
		}
		if err != nil {
			return owed, true
		}
		g.replays.ended(done)
	}
	next, busy = g.handOver(ctx, owed)
	return next, busy || g.opt.Journal.Stats().Pending > 0
}

// look has the primary write something that changes nothing: one whose memory is full answers
// questions, and would be in trouble again at once. It reports whether there was something
// to write for; if not, the next caller says whom.
func (g *Guard) look(ctx context.Context) bool {
	who := g.probe.Load()
	if who == nil || !g.applies(who, false) {
		g.probe.CompareAndSwap(who, nil)
		return false
	}
	if pass, probing := g.breaker.pass(time.Now()); pass {
		_, _ = g.try(ctx, who, probing, func(ctx context.Context) error { return g.touch(ctx, who) })
	}
	return true
}

// touch charges the caller's buckets nothing, or settles a call that never was.
func (g *Guard) touch(ctx context.Context, who *Subject) error {
	id := g.chargeID()
	var some [few]Bucket
	var nothing []Debt
	for _, b := range g.opt.Rules.Match(some[:0], who) {
		if b.Rule.Dim != Streams {
			nothing = append(nothing, Debt{Bucket: b})
		}
	}
	if g.charger != nil && len(nothing) > 0 {
		return g.charger.Charge(ctx, id, nothing)
	}
	return g.primary.Settle(ctx, &Settlement{Call: &Call{ID: id, Who: *who}})
}

// replays are what Run remembers of settlements that the primary refuses.
type replays struct {
	id        string // of the last one
	refusals  int
	postponed bool
	rest      time.Time // nothing is replayed before
}

const (
	// maxRefusals is how often the primary may refuse a settlement while it answers
	// questions, before those behind it go first.
	maxRefusals = 8
	// refusedRest is until settlements that the primary refuses are tried again, when there
	// are no others.
	refusedRest = time.Minute
)

func (r *replays) ended(done int64) {
	if r.postponed && done == 0 {
		r.rest = time.Now().Add(refusedRest)
	}
	r.postponed = false
}

// replay settles at the primary, all at the same time: it pipelines what comes together. What is
// behind the first that fails is given again.
func (g *Guard) replay(ctx context.Context, some []*Settlement) []error {
	errs := make([]error, len(some))
	var all sync.WaitGroup
	for i, s := range some {
		all.Go(func() {
			_, errs[i] = g.fly(ctx, func(ctx context.Context) error { return g.primary.Settle(ctx, s) })
		})
	}
	all.Wait()
	for i, err := range errs {
		if err == nil || errors.Is(err, ErrForgotten) {
			continue
		}
		if errs[i] = g.refused(ctx, some[i], err); errs[i] != errPostpone {
			break
		}
	}
	return errs
}

// refused looks into the failure of a settlement. It says something about the settlement or
// about the primary: a question to it tells which.
func (g *Guard) refused(ctx context.Context, s *Settlement, err error) error {
	r := &g.replays
	if r.id != s.Call.ID {
		r.id, r.refusals = s.Call.ID, 0
	}
	g.probe.CompareAndSwap(nil, &s.Call.Who)
	if !g.look(ctx) || g.breaker.shaky() {
		return err
	}
	if r.refusals++; r.refusals < maxRefusals {
		return err
	}
	r.refusals, r.postponed = 0, true
	g.opt.Log.Error("the store of the limits does not take a settlement: it is tried again behind the others", "request_id", s.Call.ID, "error", err)
	return errPostpone
}

var (
	guardName    = rand.Text()
	chargeNumber atomic.Uint64
)

// chargeID names a charge, unlike any other of any process.
func (g *Guard) chargeID() string {
	return "charge-" + guardName + "-" + strconv.FormatUint(chargeNumber.Add(1), 36)
}

// tellTrouble logs that limits are kept here from now on, and how.
func (g *Guard) tellTrouble(err error) {
	var local, budgets, open, closed int
	for _, r := range g.opt.Rules.All() {
		switch {
		case r.OnTrouble == Open:
			open++
		case r.OnTrouble == Closed:
			closed++
		case r.Hard || r.Dim == Money:
			budgets++
		default:
			local++
		}
	}
	g.opt.Log.Warn("the store of the limits is in trouble: this replica decides alone", "error", err, "replicas", g.here.count(),
		"limits_by_share", local, "budgets_by_grace", budgets, "limits_open", open, "limits_closed", closed)
}

// tellSteady logs that the primary decides again.
func (g *Guard) tellSteady() {
	_, since := g.breaker.state()
	g.opt.Log.Info("the store of the limits answers again", "trouble", time.Since(since).Round(time.Millisecond),
		"settlements_to_replay", g.opt.Journal.Stats().Pending)
}
