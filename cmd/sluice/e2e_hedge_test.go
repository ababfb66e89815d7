package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// ledgerRow is what the tests read of a row of the ledger.
type ledgerRow struct {
	ID, Key, Model, Target, Transport, Outcome string
	Input                                      int64   `json:"input_tokens"`
	Output                                     int64   `json:"output_tokens"`
	Cost                                       float64 `json:"cost_usd"`
}

// ledgerRows waits until the ledger has n rows that a query finds.
func (g *gatewayUnderTest) ledgerRows(t *testing.T, query string, n int) []ledgerRow {
	t.Helper()
	var rows struct{ Data []ledgerRow }
	g.eventually(t, fmt.Sprintf("the ledger has %d rows of %s", n, query), func() bool {
		text := g.wantAdmin(t, http.StatusOK, http.MethodGet, "/admin/api/ledger?"+query, "", "Authorization", "Bearer "+adminTestToken)
		if err := json.Unmarshal([]byte(text), &rows); err != nil {
			t.Fatal(err)
		}
		return len(rows.Data) == n
	})
	return rows.Data
}

// TestHedgeCost: of two attempts the faster one answers and is the caller's to pay, the other
// is ended, and what it has cost is in the ledger beside.
func TestHedgeCost(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, fmt.Sprintf(`
[[upstreams]]
name = "up"
base_url = %q
models = ["unused"]
list_models = false

[[models]]
name = "assistant"
hedge_percent = 20
hedge_samples = 20
targets = [
  { upstream = "up", model = "first", price = { input = 1.0, output = 2.0 } },
  { upstream = "up", model = "second", priority = 1 },
]

[[limits]]
id = "calls"
scope = "global"
requests_per_day = 1000
`, base)+adminTables)
	w.Script("first", wall.Script{Tokens: 4})
	w.Script("second", wall.Script{Tokens: 4})
	const before = 20
	for range before {
		a := g.chat(t, "assistant", "")
		a.complete(t, 4)
	}
	w.Script("first", wall.Script{Tokens: 4, First: time.Hour})
	a := g.chat(t, "assistant", "")
	a.complete(t, 4)
	if got := a.header.Get("X-Sluice-Target"); got != "up/second" {
		t.Errorf("answered by %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := w.Await(ctx, func(q wall.Request) bool { return q.Model == "first" && q.End == wall.ClientGone }); err != nil {
		t.Errorf("the slower one was not ended: %v", err)
	}
	row := g.ledgerRows(t, "key=hedge", 1)[0]
	if row.Model != "assistant" || row.Target != "up/first" || row.Transport != "hedge" || row.Outcome != "hedge" || !strings.HasSuffix(row.ID, ".hedge") ||
		row.Input <= 0 || row.Output != 0 || row.Cost <= 0 {
		t.Errorf("%+v", row)
	}
	g.awaitLeft(t, "calls", fmt.Sprint(1000-before-1))
	if n := len(g.ledgerRows(t, "target=up/second", 1)); n != 1 {
		t.Errorf("%d rows of the winner", n)
	}
}

// TestLimitOfAlias: no alias and no version leads past the limits and prices of a model.
func TestLimitOfAlias(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	w.Script("real", wall.Script{Tokens: 10, Prompt: 100})
	g := boot(t, fmt.Sprintf(`
[[upstreams]]
name = "up"
base_url = %q
models = ["unused"]
list_models = false

[[models]]
name = "assistant"
aliases = ["helper"]
targets = [{ upstream = "up", model = "real", version = "v1" }]

[[prices]]
models = ["assistant"]
input = 1.0
output = 10.0

[[limits]]
id = "few"
scope = "model"
models = ["assistant"]
requests_per_day = 4
`, base)+adminTables)
	for _, name := range []string{"assistant", "helper", "assistant@v1", "helper@v1"} {
		a := g.chat(t, name, "")
		a.complete(t, 10)
	}
	for _, name := range []string{"assistant", "helper", "assistant@v1", "helper@v1"} {
		if a := g.chat(t, name, ""); a.status != http.StatusTooManyRequests {
			t.Errorf("%s: status %d", name, a.status)
		}
	}
	for _, row := range g.ledgerRows(t, "model=assistant&outcome=ok", 4) {
		if row.Cost != 0.0002 {
			t.Errorf("%+v", row)
		}
	}
}
