package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"sluice/handlers"
	"sluice/providers/providertest/wall"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// TestLimitBudgetAfterRestart: what was spent before a restart stays spent.
func TestLimitBudgetAfterRestart(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	config := limited(base, fmt.Sprintf(`
[data]
dir = %q
[[prices]]
models = ["*"]
input = 0
output = 1_000
[[limits]]
id = "budget"
scope = "key"
usd_per_day = 0.05
usd_per_month = 0.06
[[limits]]
id = "calls"
scope = "key"
requests_per_day = 3
`, t.TempDir()))
	const more = `,"max_tokens":16`
	g := boot(t, config)
	for range 2 {
		if a := g.chat(t, wallModel("spends", ""), more); a.status != http.StatusOK {
			t.Fatalf("%d: %s", a.status, a.body)
		}
	}
	g.Stop()
	g = boot(t, config)
	for id, want := range map[string]string{"budget.usd_per_day": "0.018", "budget.usd_per_month": "0.028", "calls": "3"} {
		if left := g.left(t, id); left != want {
			t.Errorf("%s: %s is left, want %s", id, left, want)
		}
	}
	if a := g.chat(t, wallModel("spends", ""), more); a.status != http.StatusOK {
		t.Errorf("%d: %s", a.status, a.body)
	}
	if a := g.chat(t, wallModel("spends", ""), more); a.status != http.StatusTooManyRequests || readError(t, a.body).Code != "insufficient_quota" {
		t.Errorf("%d: %s", a.status, a.body)
	}
	if u := g.usage(t, "?group_by=day"); len(u.Data) != 1 || u.Data[0].Calls != 3 {
		t.Errorf("%+v", u.Data)
	}
}

// pastBook has sums of several days.
type pastBook []ledger.Sum

func (b pastBook) Usage(context.Context, ledger.Query) ([]ledger.Sum, error) { return b, nil }

// TestRespend: a day's budget knows of today, a month's of all its days.
func TestRespend(t *testing.T) {
	c := mustLoad(t, "[[prices]]\nmodels = [\"*\"]\ninput = 1\noutput = 1\n[[keys]]\nname = \"a\"\nkey = \"sk\"\norg = \"acme\"\nlimits = [{ usd_per_month = 10 }]\n"+
		"[[limits]]\nid = \"org\"\nscope = \"org\"\nusd_per_day = 5\nusd_per_month = 7\n", nil)
	rules, err := newRules(c)
	if err != nil || !hasBudgets(c) {
		t.Fatal(err)
	}
	clock := &budgetClock{start: time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC), began: time.Now()}
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: rules, Now: clock.now})
	day := func(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }
	var book handlers.Ledger = pastBook{
		{From: day(1), Org: "acme", Key: "a", Model: "x", Money: 4 * nano}, {From: day(3), Org: "acme", Key: "a", Model: "x", Money: nano},
		{From: day(3), Org: "acme", Key: "a", Model: "y", Money: nano / 2}, {From: day(3), Org: "other", Key: "b", Money: nano},
	}
	if err := respend(t.Context(), c, book, m, clock, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	levels, err := m.Peek(t.Context(), &ratelimit.Subject{Org: "acme", Key: "a", Model: "x", Rules: keyRules(&c.Keys[0])})
	if err != nil || len(levels) != 3 {
		t.Fatalf("%+v, %v", levels, err)
	}
	for i, want := range []int64{3500, 1500, 4500} { // thousandths of a dollar
		if got := levels[i].Left / (nano / 1000); got != want {
			t.Errorf("%s: %d is left, want %d", levels[i].Rule.ID, got, want)
		}
	}
	if now := clock.now(); now.Sub(clock.start) > time.Minute || now.Before(clock.start) {
		t.Errorf("the clock shows %v", now)
	}
}
