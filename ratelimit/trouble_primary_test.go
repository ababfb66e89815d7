package ratelimit

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/ratelimit/ledger"
)

// TestGuardFullStore: a store that answers questions and can write nothing is in trouble
// until it can, not now and then.
func TestGuardFullStore(t *testing.T) {
	for name, rule := range map[string]Rule{
		"amounts": tokensPerMinute,
		"places":  {ID: "par", Scope: Key, Dim: Streams, Amount: 100},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarded(t, 1, rule)
				g.see(t, Subject{Org: "acme", Key: "k", Model: "m"})
				g.store.set(crammed)
				for range 120 {
					c, err := g.ask(1)
					if err != nil {
						t.Fatal(err)
					}
					g.settle(t, c, 1)
					g.see(t, c.Who)
					time.Sleep(250 * time.Millisecond)
				}
				if n := strings.Count(g.said(), "answers again"); n != 0 || !g.State().Trouble {
					t.Errorf("it was back %d times within half a minute; %+v", n, g.State())
				}
				g.store.set(healthy)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if s := g.State(); s.Trouble || s.Journal.Pending > 0 || len(g.store.rows) != 120 {
					t.Errorf("%d rows, %+v", len(g.store.rows), s)
				}
			})
		})
	}
}

// TestGuardBusyMachine: calls that miss their deadlines together, among many that do not, are
// no trouble; a store that fails most calls is, and one that is asked seldom, too.
func TestGuardBusyMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, Rule{ID: "rpm", Scope: Key, Dim: Requests, Amount: 1e6, Per: Minute})
		ask := func(n int) {
			t.Helper()
			var all sync.WaitGroup
			for range n {
				c := &Call{ID: g.chargeID(), Who: Subject{Key: "k"}, Want: Cost{Requests: 1}}
				all.Go(func() {
					if _, err := g.Reserve(context.Background(), c); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		for range 20 {
			ask(20)
			g.store.mu.Lock()
			g.store.misses = 8
			g.store.mu.Unlock()
			ask(8) // in a row
			time.Sleep(100 * time.Millisecond)
		}
		if s := g.State(); s.Trouble || g.log.Len() > 0 {
			t.Errorf("%+v, log: %s", s, g.log)
		}
		time.Sleep(time.Minute)
		g.store.set(refusing)
		ask(1)
		time.Sleep(time.Second)
		if !g.State().Trouble {
			t.Error("a store that fails is asked on")
		}
	})
}

// TestGuardSlowPrimary: few wait for a store that answers after half a second, and not long.
func TestGuardSlowPrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, Rule{ID: "rpm", Scope: Key, Dim: Requests, Amount: 1e6, Per: Minute})
		g.see(t, Subject{Key: "k"})
		g.store.set(hanging)
		var all sync.WaitGroup
		var longest atomic.Int64
		for i := range 5000 { // 1 000 calls a second
			all.Go(func() {
				start := time.Now()
				c := &Call{ID: fmt.Sprint(i), Who: Subject{Key: "k"}, Want: Cost{Requests: 1}}
				if _, err := g.Reserve(context.Background(), c); err != nil {
					t.Error(err)
				}
				longest.Store(max(longest.Load(), int64(time.Since(start))))
			})
			time.Sleep(time.Millisecond)
		}
		all.Wait()
		if d := time.Duration(longest.Load()); d > 100*time.Millisecond {
			t.Errorf("a call waited %v", d)
		}
		if n := g.store.most.Load(); n > 60 {
			t.Errorf("%d calls waited at the same time", n)
		}
		if n := g.store.calls.Load(); n > 60 {
			t.Errorf("a store in trouble was asked %d times in 5 s", n)
		}
	})
}

// TestGuardSlow: a store as slow as the deadline allows is no trouble; one that is slower than
// it should be is, and the log says so.
func TestGuardSlow(t *testing.T) {
	for name, c := range map[string]struct {
		deadline, slow time.Duration
		trouble        bool
	}{
		"a longer deadline": {time.Second, 0, false},
		"slower than asked": {time.Second, 200 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set, err := NewRules([]Rule{tokensPerMinute})
				if err != nil {
					t.Fatal(err)
				}
				g := guardWith(t, newFaultyStore(t, set), GuardOptions{Rules: set, Deadline: c.deadline, Slow: c.slow})
				g.store.set(slow)
				for range 4 {
					if _, err := g.ask(1); err != nil {
						t.Error(err)
					}
				}
				if s := g.State(); s.Trouble != c.trouble {
					t.Errorf("%+v", s)
				}
				if said := strings.Contains(g.said(), "it answered only after 300ms"); said != c.trouble {
					t.Errorf("log: %s", g.log)
				}
			})
		})
	}
}

// TestGuardBoundsFlights: beyond the bound calls do not wait at all.
func TestGuardBoundsFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, tokensPerMinute)
		g.flights = make(chan struct{}, 8)
		g.store.set(hanging)
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				_, _ = g.Reserve(context.Background(), &Call{ID: fmt.Sprint(i), Who: Subject{Key: "k"}, Want: Cost{Output: 1}})
			})
		}
		synctest.Wait()
		if n := g.store.waiting.Load(); n != 8 {
			t.Errorf("%d calls wait for the store", n)
		}
		all.Wait()
	})
}

// TestGuardReplaysTogether: what waits is told in a fraction of the trips, and of two settlements of
// one call the first counts.
func TestGuardReplaysTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, tokensPerMinute)
		g.store.lag = 20 * time.Millisecond
		g.store.set(refusing)
		for range 3 {
			_, _ = g.ask(1)
		}
		const calls = 2000
		for i := range calls + calls/2 {
			s := settlement(fmt.Sprint(i % calls))
			s.Row = ledger.Row{ID: s.Call.ID, Output: 7 + int64(i/calls)}
			if err := g.keep(s); err != nil {
				t.Fatal(err)
			}
		}
		g.store.set(healthy)
		back := time.Now()
		for g.State().Trouble || g.State().Journal.Pending > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(back); took > 5*time.Second {
			t.Errorf("%d settlements were told after %v", calls, took)
		}
		g.store.mu.Lock()
		defer g.store.mu.Unlock()
		if g.store.rowSum != 7*calls {
			t.Errorf("the ledger has %d tokens, want %d", g.store.rowSum, 7*calls)
		}
	})
}

// TestGuardPoison: a settlement that the store never takes does not hold up the others.
func TestGuardPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, tokensPerMinute)
		for _, id := range []string{"a", "poison", "b", "c"} {
			if err := g.keep(settlement(id)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := strings.Count(g.said(), "request_id=poison"); n < 1 || n > 11 {
			t.Errorf("it was told %d times in ten minutes", n)
		}
		g.store.mu.Lock()
		defer g.store.mu.Unlock()
		if s := g.State(); len(g.store.rows) != 3 || s.Journal.Pending != 1 || s.Trouble {
			t.Errorf("rows %v, %+v", g.store.rows, s)
		}
	})
}

// TestGuardWithoutLimits: a call that nothing is to be decided for says nothing about the
// store.
func TestGuardWithoutLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, tokensPerMinute)
		g.store.set(refusing)
		for range 3 {
			_, _ = g.ask(1)
		}
		asked := g.store.calls.Load()
		time.Sleep(time.Minute)
		free := Subject{Org: "acme"} // the rule is for keys
		if _, err := g.Peek(context.Background(), &free); err != nil || !g.State().Trouble {
			t.Errorf("%v, %+v", err, g.State())
		}
		if err := g.Extend(context.Background(), &Call{ID: "x", Who: free}, Cost{Output: 1}); err != nil {
			t.Error(err)
		}
		if n := g.store.calls.Load() - asked; n > 31 {
			t.Errorf("the store was asked %d times in a minute", n)
		}
	})
}
