package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestGuardPolicies(t *testing.T) {
	budget := Rule{ID: "usd", Scope: Org, Dim: Money, Amount: 1e9, Per: CalendarMonth}
	named := budget
	named.Grace = 50
	for name, c := range map[string]struct {
		rule     Rule
		replicas int
		want     Cost
		passed   int
		err      error
	}{
		"share":                    {Rule{Scope: Key, Dim: Requests, Amount: 9, Per: Minute}, 3, Cost{Requests: 1}, 3, nil},
		"at least one":             {Rule{Scope: Key, Dim: Requests, Amount: 2, Per: Minute}, 3, Cost{Requests: 1}, 1, nil},
		"burst":                    {Rule{Scope: Key, Dim: Requests, Amount: 3, Burst: 12, Per: Minute}, 3, Cost{Requests: 1}, 4, nil},
		"places":                   {Rule{Scope: Key, Dim: Streams, Amount: 2}, 3, Cost{}, 1, nil},
		"a prompt over the share":  {Rule{Scope: Key, Dim: Tokens, Amount: 300, Per: Minute}, 3, Cost{Input: 200}, 1, nil},
		"a prompt over the limit":  {Rule{Scope: Key, Dim: Tokens, Amount: 300, Per: Minute}, 3, Cost{Input: 400}, 0, nil},
		"open":                     {Rule{Scope: Key, Dim: Requests, Amount: 1, Per: Minute, OnTrouble: Open}, 1, Cost{Requests: 1}, 20, nil},
		"closed":                   {Rule{Scope: Key, Dim: Requests, Amount: 9, Per: Minute, OnTrouble: Closed}, 1, Cost{Requests: 1}, 0, ErrUnavailable},
		"money: one in a hundred":  {budget, 1, Cost{Money: 2e6}, 5, ErrUnavailable},
		"money: its grace":         {named, 1, Cost{Money: 10}, 5, ErrUnavailable},
		"money: its grace, shared": {named, 2, Cost{Money: 10}, 2, ErrUnavailable},
		"money: more than grace":   {named, 1, Cost{Money: 51}, 0, ErrUnavailable},
		"money: open":              {func() Rule { r := named; r.OnTrouble = Open; return r }(), 1, Cost{Money: 10}, 20, nil},
		"hard tokens":              {Rule{Scope: Key, Dim: Output, Amount: 1e9, Per: CalendarDay, Hard: true}, 1, Cost{Output: 5000}, 2, ErrUnavailable},
		"another key":              {Rule{Scope: Key, Dim: Requests, Amount: 1, Per: Minute, OnTrouble: Closed, Only: []string{"other"}}, 1, Cost{Requests: 1}, 20, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.rule.ID = "x"
				g := newGuarded(t, c.replicas, c.rule)
				g.see(t, Subject{Org: "acme", Key: "k", Model: "m"})
				g.store.set(refusing)
				var passed int
				var err error
				for passed < 20 {
					call := &Call{ID: fmt.Sprint(passed), Who: Subject{Org: "acme", Key: "k", Model: "m"}, Want: c.want}
					if _, err = g.Reserve(context.Background(), call); err != nil {
						break
					}
					passed++
				}
				if passed != c.passed {
					t.Errorf("%d calls passed, want %d (%v)", passed, c.passed, err)
				}
				var d *Denied
				if passed < 20 && (errors.Is(err, ErrUnavailable) != (c.err != nil) || errors.As(err, &d) == (c.err != nil)) {
					t.Errorf("error %v", err)
				}
				if d != nil && (d.Over[0].Rule.Full() != shareOf(&c.rule, c.replicas, d.TooLarge) || d.TooLarge != (name == "a prompt over the limit")) {
					t.Errorf("denial %+v of rule %+v", d, d.Over[0].Rule)
				}
			})
		})
	}
}

// shareOf is how much of a rule a denial tells of.
func shareOf(r *Rule, replicas int, whole bool) int64 {
	if whole {
		return r.Full()
	}
	return max(r.Full()/int64(replicas), 1)
}

// TestGuardShowsShares: levels that are counted here say how much of the limit is here.
func TestGuardShowsShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 3, tokensPerMinute, Rule{ID: "usd", Scope: Org, Dim: Money, Amount: 3e9, Per: CalendarMonth, Grace: 300})
		who := Subject{Org: "acme", Key: "k", Model: "m"}
		g.see(t, who)
		g.store.set(refusing)
		grant, err := g.Reserve(context.Background(), &Call{ID: "a", Who: who, Want: Cost{Output: 500, Money: 10}})
		if err != nil {
			t.Fatal(err)
		}
		peeked, err := g.Peek(context.Background(), &who)
		if err != nil {
			t.Fatal(err)
		}
		for _, levels := range [][]Level{grant.Levels, peeked} {
			for _, l := range levels {
				full, left, per := int64(2000), int64(1500), Minute
				if l.Rule.ID == "usd" {
					full, left, per = 100, 90, CalendarMonth
				}
				if l.Rule.Full() != full || l.Left != left || l.Rule.Per != per {
					t.Errorf("%s: %d of %d, want %d of %d", l.Rule.ID, l.Left, l.Rule.Full(), left, full)
				}
			}
		}
	})
}

// TestGuardBudgetsFailClosed: a budget that has nothing left at the store has no grace, and one
// has none while settlements cannot be kept.
func TestGuardBudgetsFailClosed(t *testing.T) {
	budget := Rule{ID: "usd", Scope: Org, Dim: Money, Amount: 1000, Per: CalendarMonth, Grace: 500}
	ask := func(g *guarded, id string) error {
		_, err := g.Reserve(context.Background(), &Call{ID: id, Who: Subject{Org: "acme"}, Want: Cost{Money: 10}})
		return err
	}
	t.Run("spent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newGuarded(t, 1, budget)
			who := Subject{Org: "acme"}
			_, _ = g.store.Memory.Reserve(context.Background(), &Call{ID: "all", Who: who, Want: Cost{Money: 985}})
			if err := ask(g, "seen"); err != nil {
				t.Fatal(err)
			}
			g.store.set(refusing)
			if err := ask(g, "a"); !errors.Is(err, ErrUnavailable) {
				t.Errorf("5 are left and a call of 10 got %v", err)
			}
		})
	})
	t.Run("journal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newGuarded(t, 1, budget)
			g.store.set(refusing)
			if err := ask(g, "a"); err != nil {
				t.Fatal(err)
			}
			g.journal.mu.Lock()
			g.journal.fail(errors.New("no space left on device"))
			g.journal.mu.Unlock()
			if err := ask(g, "b"); !errors.Is(err, ErrUnavailable) {
				t.Errorf("a call that cannot be settled got %v", err)
			}
			time.Sleep(3 * time.Second) // writing is tried, and works
			if err := ask(g, "c"); err != nil {
				t.Errorf("when the journal works again: %v", err)
			}
		})
	})
}

// TestGuardExtend: more for a call of the primary comes out of the grace, and goes back
// into it when the primary learns the truth.
func TestGuardExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, Rule{ID: "hard", Scope: Key, Dim: Output, Amount: 1e6, Per: CalendarDay, Hard: true, Grace: 500})
		c, err := g.ask(100)
		if err != nil {
			t.Fatal(err)
		}
		g.store.set(refusing)
		for i, want := range []error{nil, nil, ErrUnavailable} {
			if err := g.Extend(context.Background(), c, Cost{Output: 250}); !errors.Is(err, want) {
				t.Errorf("extension %d: %v, want %v", i, err, want)
			}
		}
		g.settle(t, c, 700)
		g.store.set(healthy)
		time.Sleep(5 * time.Second)
		if left := g.store.left(t, c.Who)[0]; left < 1e6-700 || left > 1e6-700+60 {
			t.Errorf("%d are left, want %d", left, int64(1e6-700))
		}
		if s := g.State(); s.Calls != 0 || s.Journal.Pending != 0 {
			t.Errorf("state: %+v", s)
		}
	})
}
