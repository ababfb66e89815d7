package ratelimit

import (
	"context"

	"sluice/ratelimit/ledger"
)

var _ Charger = (*Redis)(nil)

// Charge implements Charger. Debts of several tenants are charged by several scripts: after
// an error the same id can be charged again, which completes it.
func (r *Redis) Charge(ctx context.Context, id string, debts []Debt) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	marker := ":g:" + ledger.Escape(id)
	var calls []*redisCall
	for _, part := range r.owing(debts) {
		calls = append(calls, &redisCall{
			script: r.scripts.charge, keys: append([]string{part.slot + marker}, part.keys...), args: []any{r.held(), part.rules},
		})
	}
	if len(calls) == 0 {
		return nil
	}
	return r.run(ctx, calls...)
}

// chargeForgotten takes what a call has used from the buckets of those parts in which SETTLE did
// not know its reservation. It does so once, also when it is called again.
func (r *Redis) chargeForgotten(ctx context.Context, p *redisPlan, parts []redisPart, settled []*redisCall, used Cost) error {
	var calls []*redisCall
	for i := range parts {
		if settled[i].reply != int64(unknownID) {
			continue
		}
		part := redisPart{slot: parts[i].slot}
		for _, n := range parts[i].buckets {
			b, _ := p.buckets[n].now(r.rules.set.Load())
			if need := min(max(used.Of(b.Rule.Dim), 0), MaxBudget); need > 0 && b.Rule.Dim != Streams {
				part.add(n, b, need)
			}
		}
		if len(part.keys) > 0 {
			calls = append(calls, &redisCall{
				script: r.scripts.charge, keys: append([]string{part.slot + ":g:s:" + p.id}, part.keys...),
				args: []any{r.held(), part.rules},
			})
		}
	}
	if len(calls) == 0 {
		return nil
	}
	return r.run(ctx, calls...)
}

// owing sorts debts by hash slot.
func (r *Redis) owing(debts []Debt) (parts []*redisPart) {
	at := map[string]*redisPart{}
	for i, d := range debts {
		slot := r.shared
		if !d.Rule.Scope.Shared() {
			slot = ledger.Slot(r.prefix, d.Org)
		}
		p := at[slot]
		if p == nil {
			p = &redisPart{slot: slot}
			at[slot] = p
			parts = append(parts, p)
		}
		p.add(i, d.Bucket, min(max(d.Amount, -MaxBudget), MaxBudget))
	}
	return parts
}
