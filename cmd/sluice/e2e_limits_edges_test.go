package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/handlers"
	"sluice/providers/providertest/wall"
	"sluice/ratelimit"
	"sluice/ratelimit/ratelimittest/redistest"
)

// TestLimitHardBudgetCap: an answer within the cap that its caller declared, all of which
// is reserved, is not ended by the budget that it was reserved from.
func TestLimitHardBudgetCap(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	const prices = "[[prices]]\nmodels = [\"*\"]\ninput = 0\noutput = 1_000\n"
	for name, c := range map[string]struct {
		script, more string
		usd          string
		left         string
	}{
		"declared":              {"tokens=30,delay=1ms", `,"max_tokens":30` + askUsage, "0.03", "0.00"},
		"declared for each":     {"tokens=15,delay=1ms", `,"max_tokens":15,"n":2` + askUsage, "0.03", "0.00"},
		"as much as is usual":   {"tokens=900,delay=10us", askUsage, "1.03", "0.13"},
		"told as it is written": {"tokens=30,delay=1ms,usage=every", `,"max_tokens":30`, "0.03", "0.00"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := boot(t, limited(base, prices+"[[limits]]\nid = \"hard\"\nscope = \"key\"\nusd_per_day = "+c.usd+"\nhard = true\n"))
			a := g.do(t, http.MethodPost, chatPath, chatBody(wallModel(strings.ReplaceAll(name, " ", "-"), c.script), true, c.more))
			if a.status != http.StatusOK || len(a.errors) > 0 || !a.done {
				t.Errorf("%d: ...%s", a.status, a.body[max(0, len(a.body)-600):])
			}
			g.awaitLeft(t, "hard", c.left)
		})
	}
}

// TestUsageUnknownModels: names that lead nowhere take one place in the records, however
// many of them a caller makes up.
func TestUsageUnknownModels(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	known := wallModel("known", "")
	g := boot(t, fmt.Sprintf("[[upstreams]]\nname = \"wall\"\nbase_url = %q\nmodels = [%q]\nlist_models = false\n", base, known))
	for i := range 3 {
		if a := g.chat(t, fmt.Sprint("nonsense-", i), ""); a.status != http.StatusNotFound {
			t.Fatalf("%d: %s", a.status, a.body)
		}
	}
	if a := g.chat(t, known, ""); a.status != http.StatusOK {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	calls := map[string]int64{}
	for _, d := range g.usage(t, "?group_by=model").Data {
		calls[d.Model] = d.Calls
	}
	if len(calls) != 2 || calls["unknown"] != 3 || calls[known] != 1 {
		t.Errorf("recorded: %v", calls)
	}
}

// TestRespendDebt: a budget that has nothing left keeps no other from what was spent.
func TestRespendDebt(t *testing.T) {
	c := mustLoad(t, "[[prices]]\nmodels = [\"*\"]\ninput = 1\noutput = 1\n[[keys]]\nname = \"a\"\nkey = \"sk\"\norg = \"acme\"\nlimits = [{ usd_per_month = 10, concurrent = 1 }]\n"+
		"[[limits]]\nid = \"org\"\nscope = \"org\"\nusd_per_month = 5\n", nil)
	rules, err := newRules(c)
	if err != nil {
		t.Fatal(err)
	}
	clock := &budgetClock{start: time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC), began: time.Now()}
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: rules, Now: clock.now})
	day := func(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }
	var book handlers.Ledger = pastBook{
		{From: day(1), Org: "acme", Key: "a", Model: "x", Money: 6 * nano}, {From: day(2), Org: "acme", Key: "a", Model: "x", Money: 3 * nano},
	}
	if err := respend(t.Context(), c, book, m, clock, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	levels, err := m.Peek(t.Context(), &ratelimit.Subject{Org: "acme", Key: "a", Model: "x", Rules: keyRules(&c.Keys[0])})
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]int64{}
	for _, l := range levels {
		left[l.Rule.ID] = l.Left
	}
	if left["org"] != -4*nano || left["key.usd_per_month"] != nano || left["key.concurrent"] != 1 {
		t.Errorf("left: %v", left)
	}
}

// TestBudgetClock: a step of the machine's clock moves the days and months of budgets.
func TestBudgetClock(t *testing.T) {
	wall := time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC)
	clock := &budgetClock{start: wall, began: wall, wall: func() time.Time { return wall }}
	wall = wall.Add(2 * time.Hour)
	if now := clock.now(); !now.Equal(wall) {
		t.Errorf("after a step forward the clock shows %v", now)
	}
	past := wall.Add(-72 * time.Hour)
	clock.then.Store(&past)
	if now := clock.now(); !now.Equal(past) {
		t.Errorf("in the past the clock shows %v", now)
	}
	clock.then.Store(nil)
	wall = wall.Add(-time.Hour)
	if now := clock.now(); !now.Equal(wall) {
		t.Errorf("after a step back the clock shows %v", now)
	}
}

// TestLimitConfigRefused: limits that would do nothing are told of, with the remedy.
func TestLimitConfigRefused(t *testing.T) {
	const prices = "[[prices]]\nmodels = [\"*\"]\ninput = 1\noutput = 1\n"
	for text, want := range map[string]string{
		prices + "[[limits]]\nid = \"l\"\nscope = \"provider\"\nusd_per_day = 1\nhard = true\n": "limits[0].hard: a budget of an upstream ends no answer",
	} {
		if _, _, err := loadText(t, text, nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "leave") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	mustLoad(t, prices+"[[limits]]\nid = \"l\"\nscope = \"provider\"\nusd_per_day = 1\n", nil)
}

// TestLimitProviderTooLarge: a prompt that no upstream's limit ever lets through is the
// caller's to change; while one may take it later, the caller may wait.
func TestLimitProviderTooLarge(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, fmt.Sprintf(`
[[limits]]
id = "prompts"
scope = "provider"
only = ["small", "smaller"]
input_tokens_per_minute = 5
[[limits]]
id = "calls"
scope = "provider"
only = ["busy"]
requests_per_hour = 1
[[models]]
name = "never"
targets = [{ upstream = "small", model = "wall:key=small" }, { upstream = "smaller", model = "wall:key=small" }]
[[models]]
name = "later"
targets = [{ upstream = "small", model = "wall:key=small" }, { upstream = "busy", model = "wall:key=busy" }]
[[upstreams]]
name = "small"
base_url = %[1]q
[[upstreams]]
name = "smaller"
base_url = %[1]q
[[upstreams]]
name = "busy"
base_url = %[1]q
`, base))
	a := g.chat(t, "never", "")
	if e := readError(t, a.body); a.status != http.StatusBadRequest || e.Type != "invalid_request_error" || e.Code != "request_too_large" ||
		a.header.Get("Retry-After") != "" || a.header.Get("X-Should-Retry") != "false" {
		t.Errorf("%d, %v: %s", a.status, a.header, a.body)
	}
	if a := g.chat(t, "later", ""); a.status != http.StatusOK {
		t.Errorf("%d: %s", a.status, a.body)
	}
	a = g.chat(t, "later", "")
	if e := readError(t, a.body); a.status != http.StatusTooManyRequests || e.Code != "upstream_limit_reached" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d: %s", a.status, a.body)
	}
	if small, busy := calls(w, "small"), calls(w, "busy"); small != 0 || busy != 1 {
		t.Errorf("asked: %d and %d times", small, busy)
	}
}

// TestUsageRedisStopped: who asks for usage while Redis does not answer is told so soon.
func TestUsageRedisStopped(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	base, _ := wall.Start(t)
	g := boot(t, limited(base, overRedis(server.Addr, dailyLimits)))
	if a := g.chat(t, wallModel("before", ""), ""); a.status != http.StatusOK {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	server.Must("CLIENT", "PAUSE", "20000", "ALL")
	asked := time.Now()
	a := g.do(t, http.MethodGet, "/usage", "")
	if took := time.Since(asked); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || took > 3*time.Second {
		t.Errorf("%d after %v: %s", a.status, took, a.body)
	}
}
