package ratelimit

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"sluice/ratelimit/ledger"
)

// slowTrip bounds one trip of the renewer and the sweeper, for which nobody waits.
const slowTrip = time.Second

// sendSlowly sends calls past the batcher and tries those again that failed for a reason
// which may be gone. Each has its outcome then.
func (r *Redis) sendSlowly(ctx context.Context, calls []*redisCall) {
	if len(calls) == 0 {
		return
	}
	for range 2 {
		trip, cancel := context.WithTimeout(ctx, slowTrip)
		r.store.send(trip, calls)
		cancel()
		var again []*redisCall
		for _, c := range calls {
			if c.err == nil {
				continue
			}
			r.watch.look.Store(true)
			if r.store.again(c) {
				again = append(again, c)
			}
		}
		if calls = again; len(calls) == 0 {
			return
		}
	}
}

// redisOrgs remembers when organisations were registered by this process, so that it is done
// with one call in many.
type redisOrgs struct {
	mu     sync.Mutex
	known  map[string]time.Time
	silent []string // that had nothing open when they were swept
}

// register returns the call that tells sweepers of an organisation; nil when it was told
// lately. It goes in front of the first reservation, so that a crash leaves none unseen.
func (r *Redis) register(org string) *redisCall {
	now := time.Now()
	r.orgs.mu.Lock()
	defer r.orgs.mu.Unlock()
	if at, ok := r.orgs.known[org]; ok && now.Sub(at) < r.o.Lease/3 {
		return nil
	}
	r.orgs.known[org] = now
	return r.turnCall("", 0, []string{org}, nil)
}

// forget has all organisations registered again: Redis may not know them any more.
func (o *redisOrgs) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.known)
}

// tidy forgets when organisations were registered that have been silent since.
func (o *redisOrgs) tidy(age time.Duration) (silent []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for org, at := range o.known {
		if time.Since(at) > age {
			delete(o.known, org)
		}
	}
	silent, o.silent = o.silent, nil
	return silent
}

func (r *Redis) turnCall(name string, most int, calls, silent []string) *redisCall {
	lease := r.o.Lease.Milliseconds()
	args := []any{name, lease, most, lease * 2 / 15, 4 * lease, len(calls)}
	for _, org := range append(calls, silent...) {
		args = append(args, org)
	}
	return &redisCall{
		script: r.scripts.turn, args: args,
		keys: []string{r.shared + ":gateways", r.shared + ":tenants", r.shared + ":turns"},
	}
}

// Bounds of one round of the sweeper.
const (
	sweepOrgs   = 64  // organisations
	sweepCalls  = 100 // calls of one in one script, some milliseconds of Redis' time
	sweepRepeat = 20  // scripts in a row for those with more
	sweepFew    = 4   // calls that one reservation looks after when it is denied
)

// sweeper runs until the context ends.
func (r *Redis) sweeper(ctx context.Context) {
	every := r.o.Lease / 6
	for round := 0; ; round++ {
		if round%12 == 0 {
			r.checkPolicy(ctx)
		}
		r.sweep(ctx)
		jitter := time.Duration((rand.Float64() - 0.5) * 0.4 * float64(every))
		select {
		case <-ctx.Done():
			leave := r.turnCall("-"+r.name, 0, nil, nil)
			r.sendSlowly(context.WithoutCancel(ctx), []*redisCall{leave})
			return
		case <-time.After(every + jitter):
		}
	}
}

// sweep settles calls of gateways that have died: of the organisations whose turn it is, and
// of the shared buckets. Replicas share the work; each organisation has a turn every now and
// then, whoever takes it.
func (r *Redis) sweep(ctx context.Context) {
	turn := r.turnCall(r.name, sweepOrgs, nil, r.orgs.tidy(2*r.o.Lease))
	r.sendSlowly(ctx, []*redisCall{turn})
	list, ok := turn.reply.([]any)
	if turn.err != nil || !ok || len(list) < 3 {
		return
	}
	now, _ := list[1].(int64)
	before, _ := list[2].(int64)
	r.watch.turned(before, now)
	replicas, _ := list[0].(int64)
	r.state.replicas.Store(replicas)
	due := make([]*sweepOrg, 0, len(list))
	for _, v := range list[3:] {
		if org, ok := v.(string); ok {
			due = append(due, &sweepOrg{org: org, part: redisPart{slot: ledger.Slot(r.prefix, org)}})
		}
	}
	due = append(due, &sweepOrg{part: redisPart{slot: r.shared, shared: true}})
	for range sweepRepeat {
		if due = r.sweepSome(ctx, due); len(due) == 0 {
			return
		}
	}
}

// sweepOrg is an organisation's slot, or the shared one, in a round.
type sweepOrg struct {
	org  string
	part redisPart
	paid []any // ids of rows that were owed and have been posted
}

// sweepSome returns those that may have more to sweep.
func (r *Redis) sweepSome(ctx context.Context, due []*sweepOrg) (more []*sweepOrg) {
	calls := make([]*redisCall, len(due))
	for i, d := range due {
		calls[i] = r.sweepCall(&d.part, sweepCalls, d.paid)
	}
	r.sendSlowly(ctx, calls)
	for i, d := range due {
		list, ok := calls[i].reply.([]any)
		if calls[i].err != nil || !ok || len(list) < 3 {
			continue
		}
		swept, _ := list[0].(int64)
		seen, _ := list[1].(int64)
		open, _ := list[2].(int64)
		r.state.swept.Add(swept)
		if open == 0 && !d.part.shared {
			r.orgs.mu.Lock()
			r.orgs.silent = append(r.orgs.silent, d.org)
			r.orgs.mu.Unlock()
		}
		d.paid = r.pay(ctx, list[3:])
		if seen >= sweepCalls || len(d.paid) > 0 {
			more = append(more, d)
		}
	}
	return more
}

// sweepCall looks at so many expired leases of a slot, and tells which owed rows were posted.
func (r *Redis) sweepCall(part *redisPart, most int, paid []any) *redisCall {
	args := append([]any{part.slot, r.shelf(part), most, r.answer(), r.held()}, paid...)
	return &redisCall{script: r.scripts.sweep, keys: []string{part.open(), part.slot + ":owed"}, args: args}
}

// pay posts rows of lost calls that had a reservation in the shared slot only, where there is
// no ledger: id, organisation and row, three values each. It returns the ids of those posted.
func (r *Redis) pay(ctx context.Context, owed []any) (paid []any) {
	var calls []*redisCall
	for ; len(owed) >= 3; owed = owed[3:] {
		id, _ := owed[0].(string)
		org, _ := owed[1].(string)
		row, _ := owed[2].(string)
		tenant := redisPart{slot: ledger.Slot(r.prefix, org)}
		calls = append(calls, r.settleCall(settleArgs{part: &tenant, id: id, row: []byte(row), mode: modeLost}))
	}
	r.sendSlowly(ctx, calls)
	for _, c := range calls {
		if c.err == nil {
			paid = append(paid, c.args[0])
		}
	}
	return paid
}

// renewer runs until the context ends.
func (r *Redis) renewer(ctx context.Context) {
	tick := time.NewTicker(r.o.Lease / 3 / renewSteps)
	defer tick.Stop()
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if time.Since(last) > r.o.Lease/3 {
				r.open.hurry()
			}
			r.renew(ctx)
			r.check(ctx)
		}
	}
}

// checkPolicy looks at what Redis does when its memory is full, and warns when it may throw
// away buckets. A Redis that does not tell is not warned of.
func (r *Redis) checkPolicy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, slowTrip)
	defer cancel()
	policy, err := r.store.evicts(ctx)
	if err != nil {
		return
	}
	before := r.state.evicts.Swap(&policy)
	if policy == "" || before != nil && *before == policy {
		return
	}
	r.log.LogAttrs(ctx, slog.LevelWarn,
		"Redis may throw away limits: when its memory is full it evicts keys, and whose bucket is evicted begins with a full one. "+
			"Give the limits a Redis of their own with maxmemory-policy noeviction.",
		slog.String("maxmemory_policy", policy))
}
