package ratelimit

import (
	"context"
	"slices"
	"strconv"
)

// regain lets a call go on that another replica has taken for dead, since this process was
// asleep. Its places of Streams are others' by now, and so is what it had reserved of hard
// budgets: both are taken again, under an id of their own, which is undone when the call is
// settled. If there is not enough left, the call is told. Rates end no call: they are
// corrected when it is settled. regain reports whether Redis has answered.
func (r *Redis) regain(ctx context.Context, c *openCall) (answered bool) {
	p, want := r.regainPlan(c)
	if len(p.parts) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	call := &Call{ID: p.id}
	states := make([]redisState, len(p.buckets))
	for n := range p.parts {
		enough, err := r.reservePart(ctx, p, n, states)
		if err != nil {
			r.open.undo(call, p, p.parts[:n+1])
			c.holdAgain(nil)
			return false
		}
		if !enough {
			r.giveBack(ctx, call, p, p.parts[:n])
			if d := p.denied(states, want); d != nil && c.lost != nil {
				c.lost(d)
			}
			return true
		}
	}
	if !c.holdAgain(p) {
		r.giveBack(ctx, call, p, p.parts)
	}
	return true
}

// regainPlan is what a call cannot do without: its places, and of hard budgets what it may
// still use.
func (r *Redis) regainPlan(c *openCall) (*redisPlan, Cost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.regains++
	want := Cost{
		Requests: c.want.Requests - c.last.Requests, Input: c.want.Input - c.last.Input, Output: c.want.Output - c.last.Output,
		Frames: c.want.Frames - c.last.Frames, FrameBytes: c.want.FrameBytes - c.last.FrameBytes, Money: c.want.Money - c.last.Money,
	}
	vital := slices.DeleteFunc(slices.Clone(c.plan.buckets), func(b Bucket) bool { return b.Rule.Dim != Streams && !b.Rule.Hard })
	return r.planOver(c.id+"~"+strconv.Itoa(c.regains), c.plan.org, vital, want), want
}

// holdAgain notes what the call holds from now on; nil: that it is to be asked for again. It
// returns false when the call is being settled.
func (c *openCall) holdAgain(p *redisPlan) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.gone, c.held = false, p
	return true
}

// holds is what the call holds since it was taken for dead; nil when it was not.
func (c *openCall) holds() *redisPlan {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// release gives back what a settled call has held since it was taken for dead.
func (r *Redis) release(ctx context.Context, c *openCall) {
	if c == nil {
		return
	}
	if p := c.holds(); p != nil {
		r.giveBack(ctx, &Call{ID: p.id}, p, p.parts)
	}
}
