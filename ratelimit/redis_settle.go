package ratelimit

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"sluice/ratelimit/ledger"
)

// ErrForgotten means that a settlement came after the store had forgotten whether it was
// settled before. It changed nothing, and will not when it is tried again.
var ErrForgotten = errors.New("whether it was settled is not known any more")

// Modes of SETTLE, and what it says of an id that it does not know.
const (
	modeUsual   = ""
	modeUndo    = "undo"
	modeLost    = "lost"
	modeGranted = "granted"
	modeLate    = "late"

	settledNow  = 1
	unknownID   = 3
	forgottenID = 4
)

// settleArgs is one run of SETTLE.
type settleArgs struct {
	part  *redisPart
	id    string // escaped
	used  Cost
	row   []byte
	mode  string
	keep  int64  // seconds that the id is remembered; 0 means those of the options
	rules []byte // of the buckets, if they have changed
}

func (r *Redis) settleCall(a settleArgs) *redisCall {
	switch {
	case a.keep > 0:
	case a.mode == modeLost:
		a.keep = r.held()
	default:
		a.keep = r.keep()
	}
	c := &redisCall{
		script: r.scripts.settle, keys: append([]string{a.part.key(a.id), a.part.open()}, a.part.keys...),
		args: []any{a.id, packCost(a.used, 1), a.row, r.shelf(a.part), a.keep, a.mode},
	}
	if a.rules != nil {
		c.args = append(c.args, a.rules)
	}
	return c
}

// Settle implements Limiter. A call that was granted and is unknown to Redis by now, which
// has lost its data, is charged to the buckets as they are. After an error it may be tried
// again, by any replica and as long as ids are remembered; this one goes on to renew the
// call's lease meanwhile.
func (r *Redis) Settle(ctx context.Context, s *Settlement) error {
	open := r.open.settling(s.Call.ID, s.Used)
	runs := r.settlement(s, open)
	if len(runs) == 0 {
		return nil
	}
	calls := make([]*redisCall, len(runs))
	for i := range runs {
		calls[i] = r.settleCall(runs[i].settleArgs)
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	if err := r.run(ctx, calls...); err != nil {
		return err
	}
	if err := r.settled(ctx, runs, calls); err != nil {
		return err
	}
	r.release(ctx, open)
	r.open.remove(s.Call.ID)
	return nil
}

// settleRun is a run of SETTLE, and what to charge where Redis has lost the reservation.
type settleRun struct {
	settleArgs
	owed []byte // rules of the part's buckets if the call was granted, else nil
}

// settled charges what Redis has lost, and remembers what it has acknowledged.
func (r *Redis) settled(ctx context.Context, runs []settleRun, calls []*redisCall) error {
	var charges []*redisCall
	forgotten := 0
	for i, run := range runs {
		switch calls[i].reply {
		case int64(forgottenID):
			forgotten++
		case int64(unknownID):
			if c := r.chargeLost(run.part.slot, run.id, run.owed, run.used); c != nil {
				charges = append(charges, c)
			}
		}
	}
	if forgotten == len(runs) {
		return ErrForgotten
	}
	if len(charges) > 0 {
		if err := r.run(ctx, charges...); err != nil {
			return err
		}
	}
	now := time.Now()
	for i := range runs {
		r.tail.settled(now, &runs[i], calls[i].reply == int64(unknownID))
	}
	return nil
}

// settlement is a run of SETTLE in each slot where the call may have a reservation, and in
// the tenant's for the row.
func (r *Redis) settlement(s *Settlement, open *openCall) (runs []settleRun) {
	var p *redisPlan
	var parts []redisPart
	a := settleArgs{used: s.Used, row: encodeRow(&s.Row, s.Call.ID)}
	granted := open != nil && open.granted
	if open != nil {
		p, parts = open.plan, open.parts
	} else {
		p = r.newPlan(s.Call.ID, &s.Call.Who, Cost{})
		parts = p.parts
	}
	if past := s.Past; past != nil {
		a.keep, granted = r.held(), granted || past.Granted
		if past.Sent && time.Since(past.At) > r.o.Keep*7/8 {
			a.mode = modeLate
		}
	}
	if granted && a.mode == modeUsual {
		a.mode = modeGranted
	}
	a.id = p.id
	if a.row != nil && (len(parts) == 0 || parts[0].shared) {
		run := settleRun{settleArgs: a}
		run.part = &redisPart{slot: ledger.Slot(r.prefix, s.Call.Who.Org), org: s.Call.Who.Org}
		runs = append(runs, run)
	}
	for i := range parts {
		run := settleRun{settleArgs: a}
		if run.part = &parts[i]; run.part.shared {
			run.row = nil
		}
		run.rules = p.rulesNow(run.part, r.rules.set.Load())
		if granted {
			run.owed = run.part.rules
			if run.rules != nil {
				run.owed = run.rules
			}
		}
		if open == nil {
			run.rules = nil
		}
		runs = append(runs, run)
	}
	return runs
}

// chargeLost takes what a call has used from buckets whose reservation Redis has lost; nil if
// that is nothing. It does so once for each id.
func (r *Redis) chargeLost(slot, id string, owed []byte, used Cost) *redisCall {
	rules := make([]byte, 0, len(owed))
	var keys []string
	for len(owed) > 0 {
		one := firstRule(owed)
		owed = owed[len(one):]
		need := min(max(used.Of(Dim(one[1])), 0), MaxBudget)
		if one[0] == kindPlaces || need == 0 {
			continue
		}
		keys = append(keys, string(one[ruleNumbers+2:]))
		rules = append(rules, one...)
		binary.LittleEndian.PutUint64(rules[len(rules)-len(one)+ruleNumbers-8:], uint64(need))
	}
	if len(keys) == 0 {
		return nil
	}
	return r.chargeCall(slot, lostCharge+id, keys, rules)
}

// lostCharge is in front of the id of a call in the marker of its charge.
const lostCharge = "s:"

var _ Holder = (*Redis)(nil)

// Holds reports whether Redis granted the call to this process, and has not been told of its end.
func (r *Redis) Holds(id string) bool {
	c := r.open.get(id)
	return c != nil && c.granted
}
