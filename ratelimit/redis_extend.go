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
	var taken []redisPart
	for n := range p.parts {
		if !p.parts[n].hard {
			continue
		}
		err := r.extendPart(ctx, p, &p.parts[n], more)
		if err != nil {
			r.unextend(ctx, p, taken, more)
			return err
		}
		taken = append(taken, p.parts[n])
	}
	return nil
}

// planOf is where the call was reserved, whatever the rules are by now.
func (r *Redis) planOf(c *Call) *redisPlan {
	if open := r.open.get(c.ID); open != nil {
		return open.plan
	}
	return r.newPlan(c.ID, &c.Who, Cost{})
}

func (r *Redis) extendPart(ctx context.Context, p *redisPlan, part *redisPart, more Cost) error {
	call := r.extendCall(part, p.id, packCost(more, 1))
	if err := r.run(ctx, call); err != nil {
		return err
	}
	list, ok := call.numbers()
	if !ok || len(list) < 2 || len(list[2:])%4 != 0 {
		return errReply
	}
	if list[0] != 0 {
		return nil
	}
	d := new(Denied)
	for now, l := list[1], list[2:]; len(l) >= 4; l = l[4:] {
		if l[0] < 0 || l[0] >= int64(len(part.buckets)) {
			return errReply
		}
		b := p.buckets[part.buckets[l[0]]]
		s := redisState{fill{level: l[1], fraction: l[2], at: now + l[3]}, now, true}
		need := max(more.Of(b.Rule.Dim), 0)
		if need == 0 || s.level >= need {
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
func (r *Redis) unextend(ctx context.Context, p *redisPlan, taken []redisPart, more Cost) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.o.Timeout)
	defer cancel()
	for i := range taken {
		_ = r.run(ctx, r.extendCall(&taken[i], p.id, packCost(more, -1)))
	}
}
