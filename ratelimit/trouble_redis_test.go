package ratelimit_test

import (
	"strconv"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest/redistest"
)

// TestGuardRedis freezes a real Redis under load, lets it go on, kills it and starts it
// again with what it wrote: limits hold, nothing is lost, and soon all is as it was.
func TestGuardRedis(t *testing.T) {
	t.Parallel()
	guardStory(t, 60_000, 4*time.Second, 2*time.Second)
}

func guardStory(t *testing.T, perMinute int64, away, calm time.Duration) {
	server := redistest.Single(t, "--appendonly", "yes", "--appendfsync", "always")
	window := int64(away) * perMinute / int64(time.Minute)
	x := newTroubled(t, server, ratelimit.Rule{ID: "tpm", Scope: ratelimit.Key, Dim: ratelimit.Output, Amount: perMinute, Per: ratelimit.Minute, Burst: window / 20})
	var frozen, killed, replayed1, replayed2 time.Duration
	before := x.stalls.total()
	x.load(t, func() {
		pause(t.Context(), calm)
		resume := stopped(t, server)
		pause(t.Context(), away)
		resume()
		frozen, replayed1 = x.steady(t)
		pause(t.Context(), calm)
		server.Kill()
		pause(t.Context(), away)
		server.Start()
		killed, replayed2 = x.steady(t)
		pause(t.Context(), calm)
	})
	elapsed := time.Since(x.start)
	x.steady(t)
	most, at := x.mostIn(away)
	t.Logf("%d calls, %d used at most within %v (from %v), which the limit lets %d flow; slowest decision %v; steady after %v (frozen) and %v (killed), all replayed after %v and %v",
		len(x.calls), most, away, at, window, x.slow, frozen, killed, replayed1, replayed2)
	// What a change of hands adds, calls in flight and breakers that differ, does not shrink with the window.
	if hands := perMinute / 60; away < time.Minute && most > window*11/10+hands || away >= time.Minute && most*10 > window*11 {
		t.Errorf("more than 1.1 x %d", window)
	}
	stalled := x.stalls.total() - before
	free := elapsed - min(stalled, elapsed)
	t.Logf("%d were used in %v, of which this machine stood still for %v", sum(x.calls), elapsed, stalled)
	if least := int64(free) * perMinute / int64(time.Minute) * 8 / 10; sum(x.calls) < least {
		t.Errorf("%d were used in %v: less than 0.8 x the limit", sum(x.calls), free)
	}
	if max(frozen, killed) > 5*time.Second {
		t.Errorf("steady after %v and %v", frozen, killed)
	}
	for _, g := range x.guards {
		if s := g.State(); s.Lost > 0 || s.Calls > 0 || s.Journal.Pending > 0 || s.Replicas != 3 {
			t.Errorf("state %+v", s)
		}
	}
	x.ledgerHas(t)
}

// TestGuardRedisUnseen: one gateway uses up a limit with its burst as it is by default, then
// Redis is away: the others, which have not seen the bucket, add no more than flows in.
func TestGuardRedisUnseen(t *testing.T) {
	t.Parallel()
	const limit, away = 6000, 4 * time.Second
	server := redistest.Single(t)
	x := newTroubled(t, server, ratelimit.Rule{ID: "tpm", Scope: ratelimit.Key, Dim: ratelimit.Output, Amount: limit, Per: ratelimit.Minute})
	for i := range limit / 100 {
		id := "first-" + strconv.Itoa(i)
		c := &ratelimit.Call{ID: id, Who: ratelimit.Subject{Org: "acme", Key: "k"}, Want: ratelimit.Cost{Requests: 1, Output: 100}}
		c.Row = ledger.Row{ID: id, Org: "acme", Key: "k", Output: 100, Start: time.Now(), End: "ok"}
		if _, err := x.guards[0].Reserve(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if err := x.guards[0].Settle(t.Context(), &ratelimit.Settlement{Call: c, Used: c.Want, Row: c.Row}); err != nil {
			t.Fatal(err)
		}
		x.rows[id] = 100
	}
	resume := stopped(t, server)
	x.load(t, func() { pause(t.Context(), away) })
	elapsed := time.Since(x.start)
	resume()
	x.steady(t)
	most := limit + limit*int64(elapsed)/int64(time.Minute)
	t.Logf("%d calls used %d more in %v, which lets %d flow", len(x.calls), sum(x.calls), elapsed, most-limit)
	if all := limit + sum(x.calls); all*10 > most*11 {
		t.Errorf("%d were used, more than 1.1 x the %d there were", all, most)
	}
	x.ledgerHas(t)
}

func sum(calls []timedUse) (n int64) {
	for _, c := range calls {
		n += c.n
	}
	return n
}
