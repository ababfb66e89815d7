package ratelimit

import (
	"context"
	"encoding/binary"
)

// Extend implements Limiter. It takes from hard budgets only. A call whose reservation Redis
// does not know takes nothing, and is not denied.
func (r *Redis) Extend(ctx context.Context, c *Call, more Cost) error {
	p := r.planOf(c)
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	states := make([]redisState, len(p.buckets))
	for n := range p.parts {
		if !p.parts[n].hard {
			continue
		}
		enough, err := r.extendPart(ctx, p, &p.parts[n], more, states)
		if err != nil {
			r.unextend(ctx, p, p.parts[:n], more)
			return err
		}
		if !enough {
			r.unextend(ctx, p, p.parts[:n], more)
			return r.denyMore(ctx, p, n, more, states)
		}
	}
	return nil
}

// planOf is where the call was reserved, whatever the rules are by now.
func (r *Redis) planOf(c *Call) *redisPlan {
	if open := r.open.get(c.ID); open != nil {
		if held := open.holds(); held != nil {
			return held
		}
		return open.plan
	}
	return r.newPlan(c.ID, &c.Who, Cost{})
}

// extendPart notes the states of hard budgets when one has too little.
func (r *Redis) extendPart(ctx context.Context, p *redisPlan, part *redisPart, more Cost, states []redisState) (enough bool, err error) {
	call := r.extendCall(part, p.id, packCost(more, 1))
	if err := r.run(ctx, call); err != nil {
		return false, err
	}
	list, ok := call.numbers()
	if !ok || len(list) < 2 || len(list[2:])%4 != 0 {
		return false, errReply
	}
	if list[0] != denied {
		return true, nil
	}
	for now, l := list[1], list[2:]; len(l) >= 4; l = l[4:] {
		if l[0] < 0 || l[0] >= int64(len(part.buckets)) {
			return false, errReply
		}
		states[part.buckets[l[0]]] = redisState{fill{level: l[1], fraction: l[2], at: now + l[3]}, now, true}
	}
	return false, nil
}

// denyMore says which hard budgets have too little, in part n and all behind it.
func (r *Redis) denyMore(ctx context.Context, p *redisPlan, n int, more Cost, states []redisState) error {
	if rest := p.parts[n+1:]; len(rest) > 0 {
		if _, err := r.look(ctx, p, rest, states); err != nil {
			return err
		}
	}
	d := new(Denied)
	for i, b := range p.buckets {
		s, need := &states[i], max(more.Of(b.Rule.Dim), 0)
		if !b.Rule.Hard || !s.told || need == 0 || s.level >= need {
			continue
		}
		d.Over = append(d.Over, Shortage{Level: s.of(b), Need: need})
		d.RetryAfter = max(d.RetryAfter, s.wait(b.Rule, min(need, b.Rule.Full())))
	}
	if len(d.Over) == 0 {
		return errReply
	}
	return d
}

// extendCall carries a word that tells this extension from all others, so that it is taken
// once when the call is sent again.
func (r *Redis) extendCall(part *redisPart, id string, more []byte) *redisCall {
	word := binary.LittleEndian.AppendUint64([]byte(r.name), r.words.Add(1))
	return &redisCall{script: r.scripts.extend, keys: []string{part.key(id)}, args: []any{more, word}}
}

// unextend gives back what was taken before another script denied. If that fails, settling
// the call gives it back.
func (r *Redis) unextend(ctx context.Context, p *redisPlan, parts []redisPart, more Cost) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.o.Timeout)
	defer cancel()
	for i := range parts {
		if parts[i].hard {
			_ = r.run(ctx, r.extendCall(&parts[i], p.id, packCost(more, -1)))
		}
	}
}
