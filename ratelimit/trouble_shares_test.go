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

// TestGuardUnseenLongLimits: a limit that the store has said nothing of yet begins with a grace where it
// would take hours to fill; a caller is not sent away for a day because of one late reply.
func TestGuardUnseenLongLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		per  Per
		pass int
	}{
		"a minute fills by itself": {Minute, 0},
		"an hour":                  {Hour, 5},
		"a day":                    {Day, 5},
		"a calendar day":           {CalendarDay, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set, err := NewRules([]Rule{{ID: "r", Scope: Key, Dim: Requests, Amount: 1000, Per: tc.per}})
				if err != nil {
					t.Fatal(err)
				}
				g := guardWith(t, newFaultyStore(t, set), GuardOptions{Rules: set, Replicas: func() int { return 2 }})
				g.store.set(refusing)
				pass := 0
				for i := range 10 {
					call := &Call{ID: string(rune('a' + i)), Who: Subject{Org: "acme", Key: "new"}, Want: Cost{Requests: 1}}
					if _, err := g.Reserve(t.Context(), call); err == nil {
						pass++
					}
				}
				if pass != tc.pass {
					t.Errorf("%d calls pass, want %d", pass, tc.pass)
				}
			})
		})
	}
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

// TestGuardMoneyIsKeptFirst: what a call has cost that was decided here stands in the journal before
// the store is told, also when the store answers again by then. Its row and its money are two
// steps there, and this process may die between them.
func TestGuardMoneyIsKeptFirst(t *testing.T) {
	set, err := NewRules([]Rule{{ID: "usd", Scope: Org, Dim: Money, Amount: 1e9, Per: CalendarMonth}})
	if err != nil {
		t.Fatal(err)
	}
	store, dir := newFaultyStore(t, set), t.TempDir()
	journal, err := OpenJournal(JournalOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	g := NewGuard(store, GuardOptions{Rules: set, Journal: journal}) // nothing runs that replays
	call := &Call{ID: "a", Who: Subject{Org: "acme"}, Want: Cost{Money: 1e6}}
	store.set(refusing)
	if _, err := g.Reserve(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	store.set(healthy)
	if err := g.Settle(t.Context(), &Settlement{Call: call, Used: Cost{Money: 3e5}, Row: ledger.Row{ID: "a", Money: 3e5}}); err != nil {
		t.Fatal(err)
	}
	if n := journal.Stats().Pending; n != 1 || len(store.rows) != 0 {
		t.Errorf("%d settlements are kept, %d rows are posted", n, len(store.rows))
	}
	if _, err := journal.Replay(t.Context(), g.replay); err != nil {
		t.Fatal(err)
	}
	if left := store.left(t, call.Who)[0]; left != 1e9-3e5 || len(store.rows) != 1 {
		t.Errorf("%d are left of the budget, %d rows", left, len(store.rows))
	}
	if err := journal.Close(); err != nil {
		t.Error(err)
	}
}

// Row 49: one gateway of two is cut off. It has its share, the other goes on with the store as if
// nothing was, and what both have let pass is what the store knows when they are together again.
func TestGuardSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, err := NewRules([]Rule{tokensPerMinute})
		if err != nil {
			t.Fatal(err)
		}
		store := newFaultyStore(t, set)
		way := &faultyStore{Memory: store.Memory, charged: map[string]bool{}, rows: map[string]int{}} // of its own to the same buckets
		near, far := guardOver(t, store, set, 2), guardOver(t, way, set, 2)
		far.see(t, Subject{Org: "acme", Key: "k", Model: "m"})
		way.set(hanging)
		if n := far.serve(t, 1000, 10); n != 3 {
			t.Errorf("%d calls passed at the one that is cut off, want the 3 of its share", n)
		}
		if n := near.serve(t, 1000, 10); n != 6 || near.State().Trouble {
			t.Errorf("%d calls passed at the other one, want all 6; %+v", n, near.State())
		}
		way.set(healthy)
		for far.State().Trouble || far.State().Journal.Pending > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if left := store.left(t, Subject{Org: "acme", Key: "k", Model: "m"})[0]; left < -3000 || left > -2400 {
			t.Errorf("%d are left when they are together again, want the 3000 of debt, and what has flowed in since", left)
		}
		if n := near.serve(t, 1000, 1) + far.serve(t, 1000, 1); n != 0 {
			t.Errorf("%d calls passed in debt", n)
		}
		if len(store.rows) != 9 {
			t.Errorf("%d rows of 9 calls", len(store.rows))
		}
		for id, n := range store.rows {
			if n != 1 {
				t.Errorf("%d rows of %s", n, id)
			}
		}
	})
}
