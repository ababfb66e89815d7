package ratelimit

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/ratelimit/ledger"
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

// TestGuardMoneySurvives: what was spent beside the store is charged to its budget also when the
// gateway is killed before it has told of the rest: the journal has it.
func TestGuardMoneySurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, err := NewRules([]Rule{{ID: "usd", Scope: Org, Dim: Money, Amount: 1e9, Per: CalendarMonth}})
		if err != nil {
			t.Fatal(err)
		}
		store, dir := newFaultyStore(t, set), t.TempDir()
		store.set(refusing)
		journal, err := OpenJournal(JournalOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		killed := NewGuard(store, GuardOptions{Rules: set, Journal: journal}) // nothing runs that hands over
		call := &Call{ID: "a", Who: Subject{Org: "acme"}, Want: Cost{Money: 1e6}}
		if _, err := killed.Reserve(t.Context(), call); err != nil {
			t.Fatal(err)
		}
		if err := killed.Settle(t.Context(), &Settlement{Call: call, Used: Cost{Money: 3e5}, Row: ledger.Row{ID: "a", Money: 3e5}}); err != nil {
			t.Fatal(err)
		}
		if err := journal.Close(); err != nil {
			t.Fatal(err)
		}
		store.set(healthy)
		if journal, err = OpenJournal(JournalOptions{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		defer journal.Close()
		for range 2 { // a reply may be lost
			if _, err := journal.Replay(t.Context(), oneByOne(func(s *Settlement) error { return store.Settle(t.Context(), s) })); err != nil {
				t.Fatal(err)
			}
		}
		if left := store.left(t, call.Who)[0]; left != 1e9-3e5 {
			t.Errorf("%d are left of the budget", left)
		}
	})
}
