package ratelimit_test

import (
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ratelimittest/redistest"
)

// chargeRules have a bucket in each slot, and some that a charge does not name.
var chargeRules = []ratelimit.Rule{
	{ID: "rpd", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 100, Per: ratelimit.Day},
	{ID: "tpd", Scope: ratelimit.Org, Dim: ratelimit.Tokens, Amount: 1000, Per: ratelimit.Day},
	{ID: "par", Scope: ratelimit.Key, Dim: ratelimit.Streams, Amount: 2},
	{ID: "ip", Scope: ratelimit.IP, Dim: ratelimit.Requests, Amount: 50, Per: ratelimit.Day},
}

// TestRedisCharge: exactly the buckets named, once, into debt and back up to a full one.
func TestRedisCharge(t *testing.T) {
	t.Parallel()
	set, err := ratelimit.NewRules(chargeRules)
	if err != nil {
		t.Fatal(err)
	}
	o := ratelimit.RedisOptions{Rules: set, Timeout: 5 * time.Second}
	t.Run("single", func(t *testing.T) {
		l := ratelimit.NewRedis(redistest.Single(t).Client(ratelimit.TuneRedis), o)
		t.Cleanup(func() { _ = l.Close() })
		checkCharge(t, l, set)
	})
	t.Run("cluster", func(t *testing.T) {
		l := ratelimit.NewRedis(redistest.Cluster(t).Client(ratelimit.TuneRedis), o)
		t.Cleanup(func() { _ = l.Close() })
		checkCharge(t, l, set)
	})
}

func checkCharge(t *testing.T, l *ratelimit.Redis, set *ratelimit.Rules) {
	t.Helper()
	who := ratelimit.Subject{Org: "acme", Key: "k1", Model: "m", IP: "192.0.2.7"}
	other := who
	other.Org = "other"
	var debts []ratelimit.Debt
	for _, s := range []ratelimit.Subject{who, other} {
		for _, b := range set.Match(nil, &s) {
			if b.Rule.ID == "tpd" {
				debts = append(debts, ratelimit.Debt{Bucket: b, Amount: 1500})
			} else if b.Rule.ID == "ip" && s.Org == "acme" {
				debts = append(debts, ratelimit.Debt{Bucket: b, Amount: 20})
			}
		}
	}
	stands := func(what string, who ratelimit.Subject, want ...int64) {
		t.Helper()
		levels, err := l.Peek(t.Context(), &who)
		if err != nil || len(levels) != len(want) {
			t.Fatalf("%s: %v, %v", what, levels, err)
		}
		for i := range want {
			if levels[i].Left != want[i] {
				t.Errorf("%s: %s has %d, want %d", what, levels[i].Rule.ID, levels[i].Left, want[i])
			}
		}
	}
	for range 2 { // the same id again
		if err := l.Charge(t.Context(), "c1", debts); err != nil {
			t.Fatal(err)
		}
		stands("charged", who, 100, -500, 2, 30)
		stands("charged, the other one", other, 100, -500, 2, 30)
	}
	for i := range debts {
		debts[i].Amount = -600
	}
	if err := l.Charge(t.Context(), "c2", debts); err != nil {
		t.Fatal(err)
	}
	stands("given back", who, 100, 100, 2, 50)
}
