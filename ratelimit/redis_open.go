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
	wheel [renewSteps]map[string]*openCall // each is looked at when its step comes
	step  int                              // whose turn was last; it counts on
}

// Steps are a sixtieth of the lease each, half a second as a rule. They spread the renewals of
// all calls over time.
const (
	renewSteps = 20 // between two renewals of a call that has used nothing more
	flowSteps  = 5  // between two of one that has
	undoSteps  = 4  // before a reservation is undone
)

// openCall is one call of this process.
type openCall struct {
	id      string // as the caller names it
	plan    *redisPlan
	parts   []redisPart // that have, or may have, a reservation
	step    int         // of the next look; guarded by redisOpen.mu
	since   time.Time
	granted bool // the caller was told that it is reserved
	want    Cost
	lost    func(*Denied) // nil: nobody asks

	mu      sync.Mutex
	used    func() Cost // nil when nothing more can be known
	last    Cost        // known to be used
	told    Cost        // of it, that Redis knows
	telling Cost        // that is on its way to Redis
	renewed int         // step of the last renewal
	ended   bool        // somebody settles it
	gone    bool        // Redis does not know it as open
	missed  bool        // nor as anything else
	undo    bool        // nobody waits for the reservation: it is to be undone
	held    *redisPlan  // what it holds since then, under an id of its own; nil: nothing
	regains int
}

// due reports whether the call is to be renewed in this step, and after how many it is to be
// looked at again. The first use is told at once, what more is used every few steps: what is
// not told when the process dies is free.
func (c *openCall) due(step int) (renew bool, next int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return time.Since(c.since) > outage, renewSteps
	}
	if c.used != nil {
		c.last = c.used()
	}
	next = flowSteps
	if c.last == (Cost{}) && c.used != nil {
		next = 1
	}
	return c.undo || c.last != c.told || step-c.renewed >= renewSteps, next
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

// add notes a reservation. It is renewed from now on.
func (o *redisOpen) add(c *Call, p *redisPlan) {
	o.put(&openCall{id: c.ID, plan: p, parts: p.parts, used: c.Used, since: time.Now(), granted: true, want: c.Want, lost: c.Lost}, 1)
}

// undo notes parts that may be reserved although the caller was told that they are not. They
// are undone after some steps, when nothing of the reserving is on its way any more.
func (o *redisOpen) undo(c *Call, p *redisPlan, parts []redisPart) {
	o.put(&openCall{id: c.ID, plan: p, parts: parts, since: time.Now(), undo: true}, undoSteps)
}

// put places the call so that its turn comes after so many steps.
func (o *redisOpen) put(c *openCall, steps int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if old := o.calls[c.id]; old != nil {
		o.drop(old)
	}
	c.renewed = o.step + steps - flowSteps
	o.calls[c.id] = c
	o.place(c, steps)
}

func (o *redisOpen) place(c *openCall, steps int) {
	c.step = o.step + steps
	o.wheel[c.step%renewSteps][c.id] = c
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
	delete(o.wheel[c.step%renewSteps], c.id)
}

// settling says what the call used in the end; nobody is asked any more. It returns where the
// call may have reservations, or nil when that is not known.
func (o *redisOpen) settling(id string, used Cost) *openCall {
	c := o.get(id)
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used, c.last, c.told, c.undo, c.ended = nil, used, used, false, true
	return c
}

// turn steps on and returns the calls that are to be renewed in this step.
func (o *redisOpen) turn() (step int, due []*openCall) {
	o.mu.Lock()
	o.step++
	step = o.step
	look := make([]*openCall, 0, len(o.wheel[step%renewSteps]))
	for _, c := range o.wheel[step%renewSteps] {
		look = append(look, c)
	}
	o.mu.Unlock()
	next := make([]int, len(look))
	for i, c := range look { // without the lock: it runs the callers' code
		renew, steps := c.due(step)
		next[i] = steps
		if renew {
			due = append(due, c)
		}
	}
	o.later(look, func(i int) int { return next[i] })
	return step, due
}

// later gives calls another turn, each after so many steps.
func (o *redisOpen) later(calls []*openCall, steps func(int) int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, c := range calls {
		if o.calls[c.id] == c {
			delete(o.wheel[c.step%renewSteps], c.id)
			o.place(c, steps(i))
		}
	}
}

// renewals are the runs of RENEW for a call, or those that undo it.
func (r *Redis) renewals(c *openCall) []*redisCall {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.telling = c.last
	id, parts, used := c.plan.id, c.parts, packCost(c.last, 1)
	if c.held != nil {
		id, parts, used = c.held.id, c.held.parts, packCost(Cost{}, 1)
	}
	calls := make([]*redisCall, len(parts))
	for i := range parts {
		part := &parts[i]
		if c.undo {
			calls[i] = r.settleCall(settleArgs{part: part, id: id, mode: modeUndo})
			continue
		}
		keys := append([]string{part.key(id), part.open()}, part.places...)
		calls[i] = &redisCall{script: r.scripts.renew, keys: keys, args: []any{id, r.o.Lease.Milliseconds(), used, r.held()}}
	}
	return calls
}

// What RENEW says of a reservation: it is open; Redis has never heard of it, or has lost it;
// another replica has taken this one for dead. Anything else: it was settled.
const (
	renewOpen    = 1
	renewUnknown = 2
	renewTaken   = 3
)

// known notes what RESERVE said of a call that was to be reserved again.
func (c *openCall) known(verdict int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if verdict == restored || verdict == granted && c.missed {
		c.gone, c.missed, c.held = false, false, nil
	}
}

// all are the calls of this process.
func (o *redisOpen) all() []*openCall {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]*openCall, 0, len(o.calls))
	for _, c := range o.calls {
		out = append(out, c)
	}
	return out
}

// renewChunk is how many calls are renewed in one trip, so that others wait little.
const renewChunk = 64

// renew keeps the leases of all calls whose turn it is. When Redis does not answer, those that
// are left are tried with the next step.
func (r *Redis) renew(ctx context.Context) {
	step, due := r.open.turn()
	for len(due) > 0 {
		chunk := due[:min(renewChunk, len(due))]
		if !r.renewSome(ctx, step, chunk) {
			r.open.later(due, func(int) int { return 1 })
			return
		}
		due = due[len(chunk):]
	}
}

// renewSome reports whether Redis answered for all of them.
func (r *Redis) renewSome(ctx context.Context, step int, some []*openCall) bool {
	var all []*redisCall
	of := make([][]*redisCall, len(some))
	for i, c := range some {
		of[i] = r.renewals(c)
		all = append(all, of[i]...)
	}
	r.sendSlowly(ctx, all)
	well := true
	for i, c := range some {
		well = r.renewed(ctx, c, step, of[i]) && well
	}
	return well
}

// renewed looks at what became of one call. Of one that Redis does not know it is told again by
// check. One that another replica has taken for dead looks whether it can go on. That a call was granted is remembered
// until it is settled.
func (r *Redis) renewed(ctx context.Context, c *openCall, step int, calls []*redisCall) (answered bool) {
	gone, taken, missed := false, false, false
	for _, call := range calls {
		if call.err != nil {
			return false
		}
		n, _ := call.reply.(int64)
		gone, taken = gone || n != renewOpen, taken || n == renewTaken
		if n == renewUnknown && c.granted {
			missed = true
			r.watch.missing()
		}
	}
	c.mu.Lock()
	undone, ended, first := c.undo, c.ended, gone && c.granted && !c.gone && c.held == nil
	c.gone, c.missed = gone && c.granted, missed
	c.told, c.renewed = c.telling, step
	c.mu.Unlock()
	switch {
	case undone, time.Since(c.since) > outage:
		r.open.forget(c)
	case gone && ended: // its settlement was faster
	case gone && c.granted:
		if first {
			r.state.lost.Add(1)
		}
		return !taken || r.regain(ctx, c)
	case gone:
		r.open.forget(c)
	}
	return true
}

// hurry gives every call its turn with the next step, for a process that was asleep.
func (o *redisOpen) hurry() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.calls {
		delete(o.wheel[c.step%renewSteps], c.id)
		o.place(c, 1)
		c.mu.Lock()
		c.renewed = o.step + 1 - renewSteps
		c.mu.Unlock()
	}
}
