package ratelimit

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestGuardSharesChange: what a share loses while there are more gateways was used by nobody, and is
// not handed over as a debt.
func TestGuardSharesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var replicas atomic.Int64
		replicas.Store(3)
		set, err := NewRules([]Rule{{ID: "day", Scope: Key, Dim: Output, Amount: 1e6, Per: CalendarDay}})
		if err != nil {
			t.Fatal(err)
		}
		g := guardWith(t, newFaultyStore(t, set), GuardOptions{Rules: set, Replicas: func() int { return int(replicas.Load()) }})
		who := Subject{Org: "acme", Key: "k", Model: "m"}
		g.see(t, who)
		g.store.set(refusing)
		for _, n := range []int64{3, 4, 5, 3} {
			replicas.Store(n)
			if g.serve(t, 10, 5) != 5 {
				t.Fatalf("with %d gateways a call does not pass", n)
			}
		}
		g.store.set(healthy)
		for g.State().Trouble || g.State().Journal.Pending > 0 || g.store.left(t, who)[0] == 1e6 {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if left := g.store.left(t, who)[0]; left != 1e6-4*5*10 {
			t.Errorf("%d are left, want all but the 200 that were used", left)
		}
	})
}
