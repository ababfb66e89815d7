package ratelimit

import (
	"context"
	"sync"
	"time"
)

// redisOpen are the calls of this process that Redis has reservations of. All methods may be
// called concurrently.
type redisOpen struct {
	most int

	mu    sync.Mutex
	calls map[string]*openCall
	wheel [renewSteps]map[string]*openCall // each is renewed when its step comes
	step  int                              // whose turn was last
}

// renewSteps spread the renewals of all calls over the time between two of one call.
const renewSteps = 10

// openCall is one call of this process.
type openCall struct {
	id    string // as the caller names it
	plan  *redisPlan
	parts []redisPart // that have, or may have, a reservation
	step  int
	since time.Time

	mu   sync.Mutex
	used func() Cost // nil when nothing more can be known
	last *Cost       // known to be used
	undo bool        // nobody waits for the reservation: it is to be undone
}

func newRedisOpen(most int) *redisOpen {
	o := &redisOpen{most: most, calls: map[string]*openCall{}}
	for i := range o.wheel {
		o.wheel[i] = map[string]*openCall{}
	}
	return o
}

func (o *redisOpen) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.calls)
}

func (o *redisOpen) room() bool { return o.len() < o.most }

// add notes a reservation. It is renewed from now on, for the first time after nearly all of
// the time between two renewals.
func (o *redisOpen) add(c *Call, p *redisPlan) {
	o.put(&openCall{id: c.ID, plan: p, parts: p.parts, used: c.Used, since: time.Now()}, 0)
}

// undo notes parts that may be reserved although the caller was told that they are not. They
// are undone after at least one step, when nothing of the reserving is on its way any more.
func (o *redisOpen) undo(c *Call, p *redisPlan, parts []redisPart) {
	o.put(&openCall{id: c.ID, plan: p, parts: parts, since: time.Now(), undo: true}, 2)
}

// put places the call so that its turn comes after so many steps; 0 means a whole round.
func (o *redisOpen) put(c *openCall, steps int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if old := o.calls[c.id]; old != nil {
		delete(o.wheel[old.step], c.id)
	}
	c.step = (o.step + steps) % renewSteps
	o.calls[c.id] = c
	o.wheel[c.step][c.id] = c
}

func (o *redisOpen) get(id string) *openCall {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls[id]
}

func (o *redisOpen) remove(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.calls[id]; c != nil {
		o.drop(c)
	}
}

// forget removes the call unless another has its id by now.
func (o *redisOpen) forget(c *openCall) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.calls[c.id] == c {
		o.drop(c)
	}
}

func (o *redisOpen) drop(c *openCall) {
	delete(o.calls, c.id)
	delete(o.wheel[c.step], c.id)
}

// settling says what the call used in the end; nobody is asked any more. It returns where the
// call may have reservations, or nil when that is not known.
func (o *redisOpen) settling(id string, used Cost) (*redisPlan, []redisPart) {
	c := o.get(id)
	if c == nil {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used, c.last, c.undo = nil, &used, false
	return c.plan, c.parts
}

// turn steps on and returns the calls whose turn it is.
func (o *redisOpen) turn() []*openCall {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.step = (o.step + 1) % renewSteps
	due := make([]*openCall, 0, len(o.wheel[o.step]))
	for _, c := range o.wheel[o.step] {
		due = append(due, c)
	}
	return due
}

// later gives calls that could not be renewed a turn with the next step.
func (o *redisOpen) later(calls []*openCall) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range calls {
		if o.calls[c.id] != c {
			continue
		}
		delete(o.wheel[c.step], c.id)
		c.step = (o.step + 1) % renewSteps
		o.wheel[c.step][c.id] = c
	}
}

// renewals are the runs of RENEW for a call, or those that undo it.
func (r *Redis) renewals(c *openCall) []*redisCall {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used != nil {
		used := c.used()
		c.last = &used
	}
	var used []byte
	if c.last != nil {
		used = packCost(*c.last, 1)
	}
	calls := make([]*redisCall, len(c.parts))
	for i := range c.parts {
		part := &c.parts[i]
		if c.undo {
			calls[i] = r.settleCall(part, c.plan.id, Cost{}, nil, true)
			continue
		}
		keys := append([]string{part.key(c.plan.id), part.open()}, part.places...)
		calls[i] = &redisCall{script: r.scripts.renew, keys: keys, args: []any{c.plan.id, r.o.Lease.Milliseconds(), used, r.keep()}}
	}
	return calls
}

// renewChunk is how many calls are renewed in one trip, so that others wait little.
const renewChunk = 64

// renew keeps the leases of all calls whose turn it is. When Redis does not answer, those that
// are left are tried with the next step.
func (r *Redis) renew(ctx context.Context) {
	due := r.open.turn()
	for len(due) > 0 {
		chunk := due[:min(renewChunk, len(due))]
		if !r.renewSome(ctx, chunk) {
			r.open.later(due)
			return
		}
		due = due[len(chunk):]
	}
}

// renewSome reports whether Redis answered for all of them.
func (r *Redis) renewSome(ctx context.Context, some []*openCall) bool {
	var all []*redisCall
	of := make([][]*redisCall, len(some))
	for i, c := range some {
		of[i] = r.renewals(c)
		all = append(all, of[i]...)
	}
	r.sendSlowly(ctx, all)
	well := true
	for i, c := range some {
		well = r.renewed(c, of[i]) && well
	}
	return well
}

// renewed looks at what became of one call. One that Redis does not know as open is not
// renewed any more: Redis has lost it, or another replica has taken this one for dead.
func (r *Redis) renewed(c *openCall, calls []*redisCall) (answered bool) {
	gone := false
	for _, call := range calls {
		if call.err != nil {
			return false
		}
		n, _ := call.reply.(int64)
		gone = gone || n != 1
	}
	c.mu.Lock()
	undone := c.undo
	c.mu.Unlock()
	switch {
	case undone:
		r.open.forget(c)
	case gone:
		r.state.lost.Add(1)
		r.open.forget(c)
	case time.Since(c.since) > r.o.Keep:
		r.open.forget(c)
	}
	return true
}
