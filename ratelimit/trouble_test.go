package ratelimit

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var tokensPerMinute = Rule{ID: "tpm", Scope: Key, Dim: Output, Amount: 6000, Per: Minute}

func TestGuardWithAHealthyPrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 3, tokensPerMinute)
		if n := g.serve(t, 1000, 10); n != 6 {
			t.Errorf("%d calls passed, want the 6 that the primary has", n)
		}
		if s := g.State(); s.Trouble || s.Calls != 0 || s.Journal.Pending != 0 {
			t.Errorf("state: %+v", s)
		}
		if len(g.store.rows) != 6 {
			t.Errorf("%d rows", len(g.store.rows))
		}
		if g.log.Len() > 0 {
			t.Errorf("log: %s", g.log)
		}
	})
}

// TestGuardDecidesAlone: the share of a limit, beginning with the share of what was left;
// one line for each change; steady soon after the store is back; each row posted once.
func TestGuardDecidesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 3, tokensPerMinute)
		g.serve(t, 1000, 3) // 3000 left, of which a third is ours
		g.store.set(hanging)
		start := time.Now()
		if n := g.serve(t, 100, 100); n != 10 {
			t.Errorf("%d calls passed, want the 10 of the share of what was left", n)
		}
		if took := time.Since(start); took > 400*time.Millisecond {
			t.Errorf("the calls waited %v for a store that hangs", took)
		}
		time.Sleep(time.Minute)
		if n := g.serve(t, 100, 100); n != 20 {
			t.Errorf("%d calls passed after a minute, want the 20 of a full share", n)
		}
		if s := g.State(); !s.Trouble || s.Journal.Pending == 0 || s.Replicas != 3 {
			t.Errorf("state: %+v", s)
		}
		g.store.set(healthy)
		back := time.Now()
		for g.State().Trouble || g.State().Journal.Pending > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(back); took > 5*time.Second {
			t.Errorf("steady again after %v", took)
		}
		synctest.Wait()
		if len(g.store.rows) != 3+10+20 {
			t.Errorf("%d rows", len(g.store.rows))
		}
		for id, n := range g.store.rows {
			if n != 1 {
				t.Errorf("%d rows of %s", n, id)
			}
		}
		if log := g.said(); strings.Count(log, "level=WARN") != 1 || strings.Count(log, "answers again") != 1 {
			t.Errorf("log: %s", log)
		}
	})
}

// TestGuardUnseen: what one gateway has used up is not there again at others, which the store
// has told nothing of it; they fill at their share. So does a gateway that starts in trouble.
func TestGuardUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := []Rule{
			{ID: "rpm", Scope: Key, Dim: Requests, Amount: 30, Per: Minute},
			{ID: "usd", Scope: Org, Dim: Money, Amount: 1e9, Per: CalendarMonth},
			{ID: "day", Scope: Key, Dim: Output, Amount: 1e6, Per: CalendarDay},
		}
		first := newGuarded(t, 3, rules...)
		others := []*guarded{guardOver(t, first.store, first.opt.Rules, 3), guardOver(t, first.store, first.opt.Rules, 3)}
		if n := first.serve(t, 1, 50); n != 30 {
			t.Fatalf("%d calls passed, want all 30", n)
		}
		first.store.set(refusing)
		for _, g := range append(others, first) {
			if n := g.serve(t, 1, 50); n != 0 {
				t.Errorf("%d calls passed beyond the limit", n)
			}
		}
		time.Sleep(time.Minute)
		for _, g := range append(others, first) {
			if n := g.serve(t, 1, 50); n != 10 {
				t.Errorf("%d calls passed after a minute, want the share of 10", n)
			}
		}
		spend := &Call{ID: "spend", Who: Subject{Org: "acme"}, Want: Cost{Money: 3e6}}
		if _, err := others[0].Reserve(context.Background(), spend); err != nil {
			t.Errorf("a budget that was not seen has no grace: %v", err)
		}
	})
}

// TestGuardHandsOver: what was admitted here is missing there when the store is back.
func TestGuardHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, tokensPerMinute)
		g.serve(t, 1000, 6)
		g.store.set(refusing)
		time.Sleep(30 * time.Second)
		if n := g.serve(t, 1000, 9); n != 3 {
			t.Errorf("%d calls passed after half a minute, want 3", n)
		}
		open, err := g.ask(0)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		long, err := g.ask(2000)
		if err != nil {
			t.Fatal(err)
		}
		g.store.set(healthy)
		time.Sleep(5 * time.Second)
		// Half a minute's flow for the three, then 2000 of the call that runs, 500 for the wait.
		if left := g.store.left(t, open.Who)[0]; left < 1490 || left > 1510 {
			t.Errorf("%d are left at the store, want 1500", left)
		}
		g.settle(t, long, 100)
		g.settle(t, open, 0)
		time.Sleep(time.Second)
		if left := g.store.left(t, open.Who)[0]; left < 3490 || left > 3510 {
			t.Errorf("%d are left at the store after the settlement, want 3500", left)
		}
		synctest.Wait()
		g.here.mu.Lock()
		defer g.here.mu.Unlock()
		if len(g.here.marks) != 0 {
			t.Errorf("%d marks are left", len(g.here.marks))
		}
	})
}

// TestGuardLostReply: a reservation whose answer is lost is charged once, whether the call
// runs or not.
func TestGuardLostReply(t *testing.T) {
	for name, rules := range map[string][]Rule{
		"served":  {tokensPerMinute},
		"refused": {tokensPerMinute, {ID: "strict", Scope: Key, Dim: Requests, Amount: 100, Per: Minute, OnTrouble: Closed}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarded(t, 1, rules...)
				g.see(t, Subject{Org: "acme", Key: "k", Model: "m"})
				g.store.set(losing)
				c, err := g.ask(1000)
				g.store.set(healthy)
				want, rows := int64(5000), 1
				if name == "refused" {
					want, rows = 6000, 0
					if !errors.Is(err, ErrUnavailable) {
						t.Fatalf("error %v", err)
					}
				} else {
					g.settle(t, c, 1000)
				}
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
				if left := g.store.left(t, c.Who)[0]; left < want || left > want+60 {
					t.Errorf("%d are left, want %d", left, want)
				}
				if len(g.store.rows) != rows {
					t.Errorf("rows: %v", g.store.rows)
				}
				if n := len(g.store.Memory.calls); n != 0 {
					t.Errorf("%d reservations are left open in the store", n)
				}
			})
		})
	}
}
