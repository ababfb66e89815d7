package ratelimit

import (
	"log/slog"
	"sync/atomic"
	"time"

	"sluice/ratelimit/ledger"
)

// RedisOptions say how a Redis limiter works. Only Rules is needed.
type RedisOptions struct {
	Rules *Rules
	// Prefix is in front of all keys; empty means "sluice:".
	Prefix string
	// Timeout bounds Reserve, Extend, Settle and Peek, a second try included; 0 means 50 ms.
	Timeout time.Duration
	// Lease is for how long a call stays reserved when its gateway has died; 0 means 30 s. It
	// is renewed after a third of it, after a twelfth while more is used, and within a sixtieth
	// when the first use is known. What was reserved is settled after the lease and
	// another two fifths, in which a gateway that lives after all can say so, plus up to two
	// rounds of the sweeper, a sixth of the lease each.
	Lease time.Duration
	// Keep is for how long the id of a call is remembered, so that it settles once, from its
	// settlement on; 0 means an hour. While it is open it is known for a day at least.
	Keep time.Duration
	// Retention bounds the ledger.
	Retention ledger.Retention
	// Tail is for how long what Redis has acknowledged is remembered here, counted back from when
	// it last answered as the process that it was: a Redis that has lost that much, in a restart or a
	// failover, is told again. 0 means a minute. TailBytes bounds it, some 0.5 KiB for each
	// call: the oldest are forgotten; 0 means 32 MiB.
	Tail      time.Duration
	TailBytes int
	// MaxOpen bounds the calls that this process has open, about 1 KiB each; 0 means 65,536.
	// Beyond it Reserve returns an error that wraps ErrUnavailable.
	MaxOpen int
	// Log gets warnings; nil means slog.Default.
	Log *slog.Logger

	clock string // replaces the scripts' clock line in tests
}

func (o *RedisOptions) setDefaults() {
	if o.Prefix == "" {
		o.Prefix = "sluice:"
	}
	if o.Timeout <= 0 {
		o.Timeout = 50 * time.Millisecond
	}
	if o.Lease <= 0 {
		o.Lease = 30 * time.Second
	}
	if o.Keep <= 0 {
		o.Keep = time.Hour
	}
	if o.Tail <= 0 {
		o.Tail = time.Minute
	}
	if o.TailBytes <= 0 {
		o.TailBytes = 32 << 20
	}
	if o.MaxOpen <= 0 {
		o.MaxOpen = 1 << 16
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
}

// redisCounters are written by the limiter's goroutines and read by State.
type redisCounters struct {
	replicas, swept, lost, clock, reminded atomic.Int64
	evicts                                 atomic.Pointer[string]
}

// RedisState is how the limiter stands.
type RedisState struct {
	Open     int   // calls of this process that were reserved and are not settled
	Replicas int   // gateways seen lately, this one included; 0 before the first round
	Swept    int64 // calls of dead gateways that this one has settled
	Lost     int64 // calls of this process that Redis forgot, or others took for dead
	// Reminded counts open calls and settlements of this process that Redis had acknowledged and
	// lost, and was told again; by hash slot.
	Reminded int64
	// ClockBack counts buckets that were found touched at a later time than Redis' clock shows.
	ClockBack int64
	// Evicts names the maxmemory-policy by which Redis may throw away buckets and reservations
	// when its memory is full; empty: it throws nothing away, as it must, or it does not tell.
	Evicts string
}

// State may be called at any time.
func (r *Redis) State() RedisState {
	s := RedisState{
		Open: r.open.len(), Replicas: int(r.state.replicas.Load()), Swept: r.state.swept.Load(),
		Lost: r.state.lost.Load(), Reminded: r.state.reminded.Load(), ClockBack: r.state.clock.Load(),
	}
	if policy := r.state.evicts.Load(); policy != nil {
		s.Evicts = *policy
	}
	return s
}
