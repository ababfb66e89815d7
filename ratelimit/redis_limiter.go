package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sluice/ratelimit/ledger"
)

// Redis is the Limiter of many replicas: one Redis, a Redis Cluster or a Redis behind
// Sentinel holds the buckets, and its clock is the only one that decides.
//
// The tenant's buckets of a call are in one hash slot and are decided by one script, exactly.
// Shared buckets (global, provider, address, model) are in another slot and have a script of
// their own. It runs second, and what the tenant's script has taken is given back when it
// denies: a caller who hammers at its own limit then never takes from the buckets of others,
// not even for the moment between two scripts. If the gateway dies in that moment, what it
// took is a reservation like any other: its lease expires, and it is settled at nothing.
//
// The ledger's rows are posted by the script that settles.
type Redis struct {
	rules   *Rules
	prefix  string
	shared  string // slot of the shared scopes
	o       RedisOptions
	log     *slog.Logger
	scripts redisScripts
	store   redisStore
	batch   *redisBatcher
	name    string // of this process among the gateways

	open  *redisOpen
	orgs  redisOrgs
	tail  *redisTail
	watch redisWatch

	words    atomic.Uint64 // of extensions
	state    redisCounters
	stop     context.CancelFunc
	stopped  context.Context
	routines sync.WaitGroup
}

var _ Limiter = (*Redis)(nil)

// Close stops renewing and sweeping. It waits for rounds under way, up to a second or two, and
// leaves the client open. Calls that are open then are settled by other replicas as lost,
// unless they are settled before.
func (r *Redis) Close() error {
	r.stop()
	r.routines.Wait()
	return nil
}

// Reserve implements Limiter. A reservation whose answer did not come in time is undone
// later, unless the call is settled before.
func (r *Redis) Reserve(ctx context.Context, c *Call) (Grant, error) {
	p := r.newPlan(c.ID, &c.Who, c.Want)
	if len(p.parts) == 0 {
		return Grant{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	if p.tooLarge(nil, c.Want) != nil {
		return r.refuse(ctx, c, p)
	}
	if !r.open.room() {
		return Grant{}, fmt.Errorf("%w: too many open calls", ErrUnavailable)
	}
	return r.reserve(ctx, c, p)
}

func (r *Redis) reserve(ctx context.Context, c *Call, p *redisPlan) (Grant, error) {
	states := make([]redisState, len(p.buckets))
	p.row = lostRow(c)
	for n := range p.parts {
		enough, err := r.reservePart(ctx, p, n, states)
		if err != nil {
			r.open.undo(c, p, p.parts[:n+1])
			return Grant{}, err
		}
		if !enough {
			return Grant{}, r.deny(ctx, c, p, n, states)
		}
	}
	r.open.add(c, p)
	return p.grant(states), nil
}

// deny says what the call is over, in part n and all behind it. What the parts before it have
// taken is given back.
func (r *Redis) deny(ctx context.Context, c *Call, p *redisPlan, n int, states []redisState) error {
	r.giveBack(ctx, c, p, p.parts[:n])
	for i := range p.parts[:n] {
		for _, b := range p.parts[i].buckets {
			states[b].told = false
		}
	}
	if rest := p.parts[n+1:]; len(rest) > 0 {
		if _, err := r.look(ctx, p, rest, states); err != nil {
			return err
		}
	}
	if d := p.denied(states, c.Want); d != nil {
		return d
	}
	return errReply
}

// refuse denies a call whose prompt alone is larger than a full bucket, unless its id was
// granted before, when the limit was another one.
func (r *Redis) refuse(ctx context.Context, c *Call, p *redisPlan) (Grant, error) {
	states := make([]redisState, len(p.buckets))
	known, err := r.look(ctx, p, p.parts, states)
	if err != nil {
		return Grant{}, err
	}
	if known {
		return p.grant(states), nil
	}
	return Grant{}, p.tooLarge(states, c.Want)
}

var errReply = fmt.Errorf("%w: a script's answer makes no sense", ErrUnavailable)

func (r *Redis) reservePart(ctx context.Context, p *redisPlan, n int, states []redisState) (bool, error) {
	part := &p.parts[n]
	call := r.reserveCall(p, part, p.id, p.rowOf(n))
	calls := []*redisCall{call}
	if !part.shared {
		if register := r.register(p.org); register != nil {
			calls = []*redisCall{register, call}
		}
	}
	if err := r.run(ctx, calls...); err != nil {
		return false, err
	}
	verdict, err := r.readStates(call, part, states)
	if err != nil || verdict != heldByDead {
		return verdict == granted, err
	}
	sweep := r.sweepCall(part, sweepFew, nil)
	if err := r.run(ctx, sweep); err != nil {
		return false, err
	}
	call = r.reserveCall(p, part, p.id, p.rowOf(n))
	if err := r.run(ctx, call); err != nil {
		return false, err
	}
	verdict, err = r.readStates(call, part, states)
	return verdict == granted, err
}

// rowOf is the row of the call's loss in the reservation of part n: one of them has it.
func (p *redisPlan) rowOf(n int) []byte {
	if n > 0 {
		return nil
	}
	return p.row
}

// reserveCall has the buckets' numbers twice: as the reservation keeps them, and as the script
// reads them quickest.
func (r *Redis) reserveCall(p *redisPlan, part *redisPart, id string, row []byte) *redisCall {
	keys := make([]string, 0, len(part.keys)+2)
	keys = append(keys, part.key(p.id))
	keys = append(append(keys, part.keys...), part.open())
	return &redisCall{script: r.scripts.reserve, keys: keys, args: []any{
		id, r.o.Lease.Milliseconds(), r.held(), part.reservation(p.org, row), part.numbers, part.seats,
	}}
}

// readStates reads the reply of RESERVE.
func (r *Redis) readStates(call *redisCall, part *redisPart, states []redisState) (verdict int64, err error) {
	reply, ok := call.reserved()
	if !ok || !part.read(states, &reply) {
		return denied, errReply
	}
	for _, i := range part.buckets {
		if states[i].at > states[i].now {
			r.state.clock.Add(1)
		}
	}
	return reply.verdict, nil
}

// keep is for how many seconds an id that has ended is remembered.
func (r *Redis) keep() int64 { return max(1, int64(r.o.Keep/time.Second)) }

// outage is for how long Redis keeps what somebody has yet to end or may correct: open
// reservations, lost ones and rows that are owed. It is longer than trouble lasts.
const outage = 24 * time.Hour

// held is outage in seconds.
func (r *Redis) held() int64 { return max(r.keep(), int64(outage/time.Second)) }

// answer is how many milliseconds a gateway has to renew a lease that has expired.
func (r *Redis) answer() int64 { return (r.o.Lease * 2 / 5).Milliseconds() }

// shelf is where the slot's rows are; the shared slot has none.
func (r *Redis) shelf(part *redisPart) string {
	if part.shared {
		return ""
	}
	return ledger.Shelf(part.slot)
}

// lostRow is what is posted if nobody settles the call; nothing if it has no row.
func lostRow(c *Call) []byte {
	row := c.Row
	row.End, row.Estimated = "lost", true
	return encodeRow(&row, c.ID)
}

// encodeRow gives nothing for a row that says nothing of its call but how it ended.
func encodeRow(row *ledger.Row, id string) []byte {
	if *row == (ledger.Row{End: row.End, Estimated: row.Estimated}) {
		return nil
	}
	if row.ID == "" {
		named := *row
		named.ID = id
		row = &named
	}
	return ledger.Encode(nil, row)
}

// look reads the levels of the buckets of parts. It reports whether the call has, or had, a
// reservation in each of them.
func (r *Redis) look(ctx context.Context, p *redisPlan, parts []redisPart, states []redisState) (known bool, err error) {
	calls := make([]*redisCall, len(parts))
	for n := range parts {
		calls[n] = r.reserveCall(p, &parts[n], "", nil)
	}
	if err := r.run(ctx, calls...); err != nil {
		return false, err
	}
	known = true
	for n := range parts {
		verdict, err := r.readStates(calls[n], &parts[n], states)
		if err != nil {
			return false, err
		}
		known = known && verdict == granted
	}
	return known, nil
}

// Peek implements Limiter.
func (r *Redis) Peek(ctx context.Context, who *Subject) ([]Level, error) {
	p := r.newPlan("", who, Cost{})
	if len(p.parts) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	states := make([]redisState, len(p.buckets))
	if _, err := r.look(ctx, p, p.parts, states); err != nil {
		return nil, err
	}
	return p.grant(states).Levels, nil
}

// giveBack undoes what was taken before another script denied. If Redis does not answer, it
// is done later.
func (r *Redis) giveBack(ctx context.Context, c *Call, p *redisPlan, parts []redisPart) {
	if len(parts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.o.Timeout)
	defer cancel()
	calls := make([]*redisCall, len(parts))
	for i := range parts {
		calls[i] = r.settleCall(settleArgs{part: &parts[i], id: p.id, mode: modeUndo})
	}
	if err := r.run(ctx, calls...); err != nil {
		r.open.undo(c, p, parts)
	}
}

// run sends the calls and tries those again, once, that failed for a reason which may be
// gone. Scripts change nothing when they find that they have run already. The error wraps
// ErrUnavailable.
func (r *Redis) run(ctx context.Context, calls ...*redisCall) error {
	if err := r.batch.do(ctx, calls); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var again []*redisCall
	for _, c := range calls {
		if c.err != nil {
			r.watch.look.Store(true)
			if !r.store.again(c) || ctx.Err() != nil {
				return fmt.Errorf("%w: %w", ErrUnavailable, c.err)
			}
			again = append(again, c)
		}
	}
	if len(again) == 0 {
		return nil
	}
	if err := r.batch.do(ctx, again); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var errs []error
	for _, c := range again {
		errs = append(errs, c.err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}
