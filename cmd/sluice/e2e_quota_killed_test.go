package main

import (
	"bufio"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/providers/providertest/wall"
	"sluice/ratelimit/ledger"
)

// counted are streams whose readers count what has come, by the names of their models.
type counted map[string]*atomic.Int64

// open asks for an answer, which is read until its connection breaks.
func (c counted) open(t testing.TB, g *gatewayUnderTest, model string) {
	t.Helper()
	n := new(atomic.Int64)
	c[model] = n
	res := g.openStream(t.Context(), t, chatBody(model, true, ""))
	go func() {
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if strings.Contains(lines.Text(), `"content":"`) && !strings.Contains(lines.Text(), `"content":""`) {
				n.Add(1)
			}
		}
	}()
}

// runningRows are the rows of the file, by model.
func runningRows(path string) map[string]ledger.Row {
	rows, _ := ledger.ReadRunning(path) // there may be none yet
	out := map[string]ledger.Row{}
	for _, row := range rows {
		out[row.Model] = row
	}
	return out
}

// TestQuotaKilledAlone: without Redis too, kill -9 leaves a record of what ran, as it was when
// it was written down last, and its budget is charged; once, however often the next ones die.
func TestQuotaKilledAlone(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	dir := t.TempDir()
	config := limited(base, fmt.Sprintf(`
[data]
dir = %q
[[prices]]
models = ["*"]
input = 1_000
output = 2_000
[[limits]]
id = "budget"
scope = "key"
usd_per_day = 1_000
`, dir)+adminTables)
	file := filepath.Join(dir, runningFile)
	g := bootProcess(t, config)
	for i := range 3 {
		if a := g.chat(t, wallModel(fmt.Sprint("ended", i), ""), ""); a.status != http.StatusOK {
			t.Fatalf("%d: %s", a.status, a.body)
		}
	}
	streams := counted{}
	streams.open(t, g, wallModel("told", "stall=7,usage=every"))
	streams.open(t, g, wallModel("silent", "stall=5"))
	for i := range 6 {
		streams.open(t, g, wallModel(fmt.Sprint("flows", i), "tokens=1000000,delay=15ms,usage=every"))
	}
	had := map[string]int64{}
	for model, n := range streams {
		g.eventually(t, model+" brings nothing", func() bool { return n.Load() >= 5 })
		had[model] = n.Load()
	}
	g.eventually(t, "what has come is not written down", func() bool {
		rows := runningRows(file)
		for model, n := range had {
			if rows[model].Output < n {
				return false
			}
		}
		return rows[wallModel("told", "stall=7,usage=every")].Output == 7
	})
	g.kill(t)
	left, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ran := runningRows(file)
	if len(ran) != len(streams) {
		t.Fatalf("%d of %d are written down", len(ran), len(streams))
	}
	for model, row := range ran {
		name := model[strings.LastIndex(model, "key=")+4:]
		sent := awaitCall(t, w, name, func(q wall.Request) bool { return q.End == wall.ClientGone }).Tokens
		most := int64(sent) + 3 // one may be counted by its bytes, before the usage that came with it
		if name == "silent" {
			most = int64(math.Ceil(float64(sent) * 8 / 3.3))
		}
		if row.Output < had[model] || row.Output > most {
			t.Errorf("%s: %d tokens; the client had %d before, the upstream had sent %d", model, row.Output, had[model], sent)
		}
	}
	for start := range 3 {
		g = bootProcess(t, config)
		g.wantLost(t, ran, 3)
		if _, err := os.Stat(file); err == nil {
			t.Error("the file is still there")
		}
		told := strings.Contains(g.Logs(), "the gateway was killed while answers ran")
		if told != (start == 0) {
			t.Errorf("start %d: told is %t", start+1, told)
		}
		g.kill(t)
		if start == 1 { // as if it had been killed just before it removed the file
			if err := os.WriteFile(file, left, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// wantLost looks for a record of each answer of ran, for others that have ended well, and at
// what is left of the budget.
func (g *gatewayUnderTest) wantLost(t *testing.T, ran map[string]ledger.Row, ended int) {
	t.Helper()
	page := readAdmin[adminPage](t, g, "/ledger?limit=100")
	missing, total := maps.Clone(ran), int64(0)
	for _, row := range page.Data {
		money := int64(math.Round(row.Cost * nano))
		total += money
		if row.Outcome == "ok" {
			ended--
			continue
		}
		want, ok := missing[row.Model]
		if delete(missing, row.Model); !ok || row.Outcome != "lost" || row.ID != want.ID || row.Output != want.Output || row.Input == nil ||
			*row.Input != want.Input || money != want.Money || row.Requests != 1 || row.Key != "test" || row.Transport != "sse" || row.Target != want.Target {
			t.Errorf("%+v, want %+v", row, want)
		}
	}
	if len(missing) > 0 || ended != 0 {
		t.Errorf("%d answers have no record; %d fewer have ended: %+v", len(missing), ended, page.Data)
	}
	if got, want := g.left(t, "budget"), Dollars(1_000*nano-total).String(); got != want || total == 0 {
		t.Errorf("%s dollars are left, want %s", got, want)
	}
	if u := g.usage(t, "?group_by=day").Data; len(u) != 1 || u[0].Calls != int64(len(page.Data)) || u[0].Estimated < int64(len(ran)) {
		t.Errorf("recorded: %+v", u)
	}
}
