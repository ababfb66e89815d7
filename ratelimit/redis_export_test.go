package ratelimit

import (
	"context"
	"strings"
)

// WithClock replaces the line of the scripts that reads the clock.
func WithClock(o RedisOptions, line string) RedisOptions {
	o.clock = line
	return o
}

// ClockLine is what WithClock replaces.
const ClockLine = clockLine

// ClockLines counts the lines of all scripts that read a clock.
func ClockLines() int {
	n := 0
	for _, text := range []string{libLua, reserveLua, extendLua, settleLua, renewLua, sweepLua, turnLua} {
		n += strings.Count(text, "'TIME'")
	}
	return n
}

// Round makes one round of the sweeper.
func (r *Redis) Round(ctx context.Context) { r.sweep(ctx) }

// RenewAll gives each open call its turn.
func (r *Redis) RenewAll(ctx context.Context) {
	for range renewSteps {
		r.renew(ctx)
	}
}

// Touch counts what has flowed into the buckets of a subject up to now, and writes it. That
// changes no level.
func (r *Redis) Touch(ctx context.Context, who *Subject) error {
	p := r.newPlan("touch", who, Cost{})
	for i := range p.parts {
		part := redisPart{slot: p.parts[i].slot, shared: p.parts[i].shared}
		for _, b := range p.parts[i].buckets {
			part.add(b, p.buckets[b], 0)
		}
		if err := r.run(ctx, r.reserveCall(p, &part, "touch", nil)); err != nil {
			return err
		}
		if err := r.run(ctx, r.settleCall(settleArgs{part: &part, id: "touch", mode: modeUndo})); err != nil {
			return err
		}
	}
	return nil
}

// SetTrips sets how many trips to Redis are under way at a time.
func (r *Redis) SetTrips(n int) { r.batch.width = n }

// TailBytes is how much is kept to be told again.
func (r *Redis) TailBytes() int {
	r.tail.mu.Lock()
	defer r.tail.mu.Unlock()
	return r.tail.bytes
}

// TellAgain tells Redis again what it has acknowledged lately, and counts what of it was lost.
func (r *Redis) TellAgain(ctx context.Context) (lost int, told bool) { return r.tellAgain(ctx) }

// Remind tells Redis again of all that it may have lost.
func (r *Redis) Remind(ctx context.Context) bool { return r.remind(ctx) }

// Renews reports whether a call of this process is kept alive.
func (r *Redis) Renews(id string) bool {
	c := r.open.get(id)
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.gone
}

// NewGatewayName makes the name of a gateway.
var NewGatewayName = newGatewayName
