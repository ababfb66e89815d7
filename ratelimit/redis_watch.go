package ratelimit

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"sluice/ratelimit/ledger"
)

// redisWatch notices that Redis may have lost what it had acknowledged: another process
// answers than before, what this one wrote last is older than it was or not there, or an open
// reservation is unknown.
type redisWatch struct {
	look atomic.Bool  // who answers: something failed, or it is time
	lost atomic.Bool  // something is lost: all is to be told again
	beat atomic.Int64 // time of our last sign of life, by Redis' clock; 0: none yet

	servers map[string]bool // run ids of those that answered; the renewer's
}

// missing notes that Redis has lost something.
func (w *redisWatch) missing() {
	w.lost.Store(true)
	w.look.Store(true)
}

// turned looks at the answer of TURN: when we were here last, and what time it is.
func (w *redisWatch) turned(before, now int64) {
	if last := w.beat.Swap(now); before < last {
		w.missing()
	}
	w.look.Store(true)
}

// check asks Redis who it is, and tells it again what it may have lost. What could not be done
// is done with the next step.
func (r *Redis) check(ctx context.Context) {
	w, asked := &r.watch, time.Now()
	if !w.look.Swap(false) {
		return
	}
	trip, cancel := context.WithTimeout(ctx, slowTrip)
	ids, err := r.store.runIDs(trip)
	cancel()
	for id := range ids {
		if !w.servers[id] {
			w.lost.Store(true)
		}
	}
	if err != nil { // one that does not answer may be back as it was
		w.look.Store(true)
		for id := range w.servers {
			ids[id] = true
		}
	}
	w.servers = ids
	switch {
	case w.lost.Swap(false):
		if err != nil || !r.remind(ctx) {
			w.missing()
		}
	case err == nil:
		r.tail.safe(asked)
	}
}

// remind tells Redis again of all open calls, and of what it has acknowledged lately. What it
// knows stays as it is. It reports whether Redis answered for all of it.
func (r *Redis) remind(ctx context.Context) bool {
	r.orgs.forget()
	open, told := r.restore(ctx)
	if told {
		var ended int
		ended, told = r.tellAgain(ctx)
		r.state.reminded.Add(int64(open + ended))
		if open+ended > 0 {
			r.log.LogAttrs(ctx, slog.LevelWarn, "Redis had lost what it had acknowledged: it was told again",
				slog.Int("open_calls", open), slog.Int("settlements", ended))
		}
	}
	return told
}

// restore reserves open calls again that Redis does not know, whatever is left in their
// buckets. It returns how many there were.
func (r *Redis) restore(ctx context.Context) (lost int, told bool) {
	due := r.open.all()
	for len(due) > 0 {
		chunk := due[:min(renewChunk, len(due))]
		due = due[len(chunk):]
		var calls []*redisCall
		var of []*openCall
		orgs := map[string]bool{}
		for _, c := range chunk {
			for _, call := range r.restorations(c) {
				calls, of = append(calls, call), append(of, c)
				orgs[c.plan.org] = true
			}
		}
		if len(calls) == 0 {
			continue
		}
		names := make([]string, 0, len(orgs))
		for org := range orgs {
			names = append(names, org)
		}
		turn := r.turnCall("", 0, names, nil)
		r.sendSlowly(ctx, append(calls, turn))
		n, ok := restoredOf(calls, of)
		if lost += n; !ok || turn.err != nil {
			return lost, false
		}
	}
	return lost, true
}

// restoredOf looks at the answers of calls that were reserved again, and counts those that were
// lost. One that Redis did not know and does by now was reserved by a run whose answer was lost.
func restoredOf(calls []*redisCall, of []*openCall) (lost int, told bool) {
	told = true
	for i, call := range calls {
		reply, ok := call.reserved()
		if call.err != nil || !ok {
			told = told && call.err == nil
			continue
		}
		if of[i].known(reply.verdict); reply.verdict == restored {
			lost++
		}
	}
	return lost, told
}

// restorations are the runs of RESERVE that reserve a call again.
func (r *Redis) restorations(c *openCall) (calls []*redisCall) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.granted || c.ended {
		return nil
	}
	for i := range c.parts {
		part := &c.parts[i]
		call := r.reserveCall(c.plan, part, c.plan.id, c.plan.rowOf(i))
		copy(call.args[reservationArg].([]byte)[usedAt:], packCost(c.last, 1))
		call.args = append(call.args, "restore")
		calls = append(calls, call)
	}
	return calls
}

// tellAgain settles and charges again what Redis has acknowledged lately. It returns how much
// of it was lost.
func (r *Redis) tellAgain(ctx context.Context) (lost int, told bool) {
	var some []*tailRecord
	told = true
	flush := func() bool {
		n, ok := r.tellSome(ctx, some)
		lost, told, some = lost+n, ok, some[:0]
		return ok
	}
	r.tail.all(func(t *tailRecord) bool {
		some = append(some, t)
		return len(some) < renewChunk || flush()
	})
	if told && len(some) > 0 {
		flush()
	}
	return lost, told
}

func (r *Redis) tellSome(ctx context.Context, some []*tailRecord) (lost int, told bool) {
	calls := make([]*redisCall, len(some))
	parts := make([]redisPart, len(some))
	for i, t := range some {
		parts[i] = redisPart{slot: r.shared, shared: true}
		if !t.shared {
			parts[i] = redisPart{slot: ledger.Slot(r.prefix, t.org), org: t.org}
		}
		calls[i] = r.tailCall(&parts[i], t)
	}
	r.sendSlowly(ctx, calls)
	var charges, uncounted []*redisCall
	for i, t := range some {
		switch {
		case calls[i].err != nil:
			return lost, false
		case calls[i].reply == int64(settledNow):
			lost++
		case calls[i].reply == int64(unknownID) && !t.charge:
			c := r.chargeLost(parts[i].slot, t.id, t.rules, unpackCost(t.used))
			if c != nil {
				charges = append(charges, c)
			}
			if !t.unknown {
				lost++
			} else if c != nil { // it was unknown from the first: whether it was lost since is known to its charge
				uncounted = append(uncounted, c)
			}
		}
	}
	r.sendSlowly(ctx, charges)
	for _, c := range charges {
		if c.err != nil {
			return lost, false
		}
	}
	for _, c := range uncounted {
		if c.reply == int64(settledNow) {
			lost++
		}
	}
	return lost, true
}

// tailCall makes the script's run that was acknowledged.
func (r *Redis) tailCall(part *redisPart, t *tailRecord) *redisCall {
	if t.charge {
		return r.chargeCall(part.slot, t.id, keysOf(t.rules), t.rules)
	}
	a := settleArgs{part: part, id: t.id, used: unpackCost(t.used), row: t.row}
	if len(t.rules) > 0 {
		a.mode, a.rules = modeGranted, t.rules
	}
	return r.settleCall(a)
}
