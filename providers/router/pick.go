package router

import (
	"math/rand/v2"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// uptime is the clock of what is remembered of targets. It is positive whatever the
// wall clock says (under a test's too), so that 0 can stand for never.
func uptime() time.Duration { return streaming.Uptime() + 1<<60 }

// query is what a target is looked for with. It is read only.
type query struct {
	tried  *set // were asked for this answer: after the others
	shut   *set // must not be asked
	now    time.Duration
	cfg    *Breaker
	req    *providers.Request // for BalanceHash; may be nil elsewhere
	probed bool               // a call tries one target that may not be well, not two
	tier   int                // 1 and the priority that goes before the others; 0: none does
}

// picked is what was found; target is nil when nothing can be asked now.
type picked struct {
	target *Target
	at     int
	others int  // further targets that are well and were not asked
	probe  bool // the call finds out whether the target is well
	// Without a target: how many are drained, left alone or full, and how soon that may end.
	drained, down, full int
	wait                time.Duration
}

// The ranks of targets, best first: who was not asked and is well, who is given a share of
// the calls and this is not one, who was asked, who wants to be left alone. Within a rank
// the lower tier goes first, and in it who has a weight.
const (
	rankReserve = (iota + 1) << 20
	rankTried
	rankCooled
	rankNone
)

func (t *Target) rank(base, tier int) int {
	r := base
	switch {
	case tier == 0:
		r += t.Priority << 1
	case t.Priority != tier-1:
		r += (t.Priority + 1) << 1
	}
	if t.Weight <= 0 {
		r++
	}
	return r
}

// pick finds the target for the next attempt.
func (p *Pool) pick(q *query) picked {
	if len(p.Targets) == 1 && q.shut.few[0] == 0 {
		if t := p.Targets[0]; !t.Drained && t.MaxRunning <= 0 && !t.state().odd.Load() {
			return picked{target: t}
		}
	}
	p.sweep(q.cfg, q.now)
	f := finder{pool: p, query: q, best: rankNone, due: -1, dueRank: rankNone}
	for i, t := range p.Targets {
		if !q.shut.has(i) {
			f.consider(i, t)
		}
	}
	f.readmit()
	if i := f.probe(); i >= 0 {
		return picked{target: p.Targets[i], at: i, others: f.fresh, probe: true}
	}
	if f.best == rankNone {
		return picked{drained: f.drained, down: f.downs.len(), full: f.full, wait: f.wait}
	}
	i := p.choose(&f.found, q)
	out := picked{target: p.Targets[i], at: i}
	if f.best < rankTried {
		out.others = f.fresh - 1
	}
	return out
}

// finder is one look over a pool.
type finder struct {
	pool *Pool
	*query
	found         set // of the best rank
	best          int
	fresh         int // well, and not asked
	drained, full int
	downs, softs  set
	wait          time.Duration
	due, dueRank  int // the best of those that a call may probe
}

func (f *finder) consider(i int, t *Target) {
	s := t.state()
	v := s.judge(f.cfg, f.now)
	switch {
	case t.Drained:
		f.drained++
	case v.share == 0:
		f.down(i, t, v)
	case t.MaxRunning > 0 && s.running.Load() >= int64(t.MaxRunning):
		f.full++
	case s.cool(f.now):
		f.add(i, t.rank(rankCooled, f.tier))
	case f.tried.has(i):
		f.add(i, t.rank(rankTried, f.tier))
	default:
		f.fresh++
		f.add(i, f.admitted(t, v.share))
	}
}

// admitted is the rank of a target that is given a share of the calls.
func (f *finder) admitted(t *Target, share float64) int {
	if share < 1 && rand.Float64() >= share {
		return t.rank(rankReserve, f.tier)
	}
	return t.rank(0, f.tier)
}

func (f *finder) add(i, rank int) {
	if rank < f.best {
		f.best = rank
		f.found.clear()
	}
	if rank == f.best {
		f.found.add(i)
	}
}

func (f *finder) down(i int, t *Target, v verdict) {
	if f.downs.after(-1) < 0 || v.wait < f.wait {
		f.wait = v.wait
	}
	f.downs.add(i)
	if v.soft {
		f.softs.add(i)
	}
	if r := t.rank(0, f.tier); v.due && !f.probed && !f.tried.has(i) && r < f.dueRank {
		f.due, f.dueRank = i, r
	}
}

// readmit lets targets that still answer some calls be asked when more than half of the
// pool would be missing: what they do not take would fall on the others.
func (f *finder) readmit() {
	if f.softs.after(-1) < 0 || 2*f.downs.len() <= len(f.pool.Targets)-f.drained {
		return
	}
	for i := f.softs.after(-1); i >= 0; i = f.softs.after(i) {
		if t := f.pool.Targets[i]; f.tried.has(i) {
			f.add(i, t.rank(rankTried, f.tier))
		} else {
			f.fresh++
			f.add(i, f.admitted(t, least))
		}
	}
}

// probe claims a target that may not be well: one that is due, in a tier that is asked
// now, or any when nothing else can be asked.
func (f *finder) probe() int {
	if f.due >= 0 && f.dueRank <= f.best && f.pool.Targets[f.due].state().claim(f.cfg, false, f.now) {
		return f.due
	}
	if f.best != rankNone {
		return -1
	}
	for i := f.downs.after(-1); i >= 0; i = f.downs.after(i) {
		if f.pool.Targets[i].state().claim(f.cfg, true, f.now) {
			return i
		}
	}
	return -1
}

// outlook is what further tries may count on.
type outlook struct {
	fresh int  // targets that can be asked and were not
	again int  // those that were
	well  bool // one of the fresh ones is known to be well
}

// survey looks at what is left, and takes nothing.
func (p *Pool) survey(tried, shut *set, cfg *Breaker, now time.Duration) (o outlook) {
	for i, t := range p.Targets {
		if shut.has(i) || t.Drained {
			continue
		}
		s := t.state()
		switch {
		case s.judge(cfg, now).share == 0:
		case tried.has(i):
			o.again++
		default:
			o.fresh++
			o.well = o.well || s.well(now)
		}
	}
	return o
}
