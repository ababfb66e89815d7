package ratelimit

import (
	"context"
	"time"

	"sluice/ratelimit/ledger"
)

var _ Charger = (*Redis)(nil)

// Charge implements Charger. Debts of several tenants are charged by several scripts: after
// an error the same id can be charged again, which completes it.
func (r *Redis) Charge(ctx context.Context, id string, debts []Debt) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	id = ledger.Escape(id)
	parts := r.owing(debts)
	if len(parts) == 0 {
		return nil
	}
	calls := make([]*redisCall, len(parts))
	for i, part := range parts {
		calls[i] = r.chargeCall(part.slot, id, part.keys, part.rules)
	}
	if err := r.run(ctx, calls...); err != nil {
		return err
	}
	for _, part := range parts {
		r.tail.charged(time.Now(), part, id)
	}
	return nil
}

func (r *Redis) chargeCall(slot, id string, keys []string, rules []byte) *redisCall {
	return &redisCall{
		script: r.scripts.charge, keys: append([]string{slot + ":g:" + id}, keys...), args: []any{r.held(), rules},
	}
}

// owing sorts debts by hash slot.
func (r *Redis) owing(debts []Debt) (parts []*redisPart) {
	at := map[string]*redisPart{}
	for i, d := range debts {
		p := &redisPart{slot: r.shared, shared: true}
		if !d.Rule.Scope.Shared() {
			p = &redisPart{slot: ledger.Slot(r.prefix, d.Org), org: d.Org}
		}
		if known := at[p.slot]; known != nil {
			p = known
		} else {
			at[p.slot] = p
			parts = append(parts, p)
		}
		p.add(i, d.Bucket, min(max(d.Amount, -MaxBudget), MaxBudget))
	}
	return parts
}
