package ledgertest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/ratelimit/ledger"
)

// testProperty posts, repeats and asks at random, beside a plain list of rows: sums are the
// sums of rows, nothing counts twice, and rows come newest first.
func testProperty(t *testing.T, open Open) {
	rapid.Check(t, func(rt *rapid.T) {
		clock := NewClock()
		m := model{book: open(t, ledger.Retention{SumAge: 32 * 24 * time.Hour}, clock), clock: clock} // the shortest: questions without bounds are about all of it
		rt.Repeat(map[string]func(*rapid.T){
			"post": func(rt *rapid.T) { m.post(t, rt, fmt.Sprint("id", len(m.rows))) },
			"repeat": func(rt *rapid.T) {
				if len(m.rows) > 0 {
					m.post(t, rt, rapid.SampledFrom(m.rows).Draw(rt, "old").ID)
				}
			},
			"wait": func(rt *rapid.T) {
				if clock.Now().Before(NewClock().Now().Add(40 * time.Hour)) {
					clock.Add(time.Duration(rapid.IntRange(0, 100).Draw(rt, "minutes")) * time.Minute)
				}
			},
			"usage": func(rt *rapid.T) { m.usage(t, rt) },
			"rows":  func(rt *rapid.T) { m.pages(t, rt) },
		})
	})
}

type model struct {
	book  Book
	clock *Clock
	rows  []ledger.Row
}

func (m *model) post(t testing.TB, rt *rapid.T, id string) {
	pick := func(label string, names ...string) string { return rapid.SampledFrom(names).Draw(rt, label) }
	amount := func(label string) int64 { return rapid.Int64Range(0, 1<<40).Draw(rt, label) }
	row := ledger.Row{
		ID: id, Start: m.clock.Now(), Org: pick("org", "", "a", "b"), Team: pick("team", "", "t"), User: pick("user", "", "u"),
		Key: pick("key", "", "k1", "k2", "*"), Model: pick("model", "m1", "m2"), Target: pick("target", "", "x"), End: pick("end", "ok", "lost"),
		Requests: amount("requests") % 2, Input: amount("input"), Output: amount("output"), Money: amount("money"),
		Estimated: rapid.Bool().Draw(rt, "estimated"), Total: time.Duration(amount("total")) * time.Microsecond,
	}
	for _, old := range m.rows {
		if old.ID == id {
			row.Org = old.Org // an id belongs to one call, and so to one organisation
			post(t, m.book, row)
			return
		}
	}
	post(t, m.book, row)
	row.Posted = m.clock.Now()
	m.rows = append(m.rows, row)
}

func (m *model) match(rt *rapid.T) ledger.Match {
	pick := func(label string, names ...string) string { return rapid.SampledFrom(names).Draw(rt, label) }
	q := ledger.Match{AllOrgs: rapid.Bool().Draw(rt, "all"), Org: pick("org", "", "a", "b"), Key: pick("key", "", "", "k1", "*"), Model: pick("model", "", "m1")}
	if rapid.Bool().Draw(rt, "bounded") {
		q.Since = NewClock().Now().Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "since")) * time.Hour)
		q.Until = q.Since.Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "hours")) * time.Hour)
	}
	return q
}

// want are the rows that match, newest first. Bounds are whole hours here, so that rows and
// sums count the same.
func (m *model) want(q ledger.Match) []ledger.Row {
	var out []ledger.Row
	for _, r := range slices.Backward(m.rows) {
		if (q.AllOrgs || q.Org == r.Org) && (q.Key == "" || q.Key == r.Key) && (q.Model == "" || q.Model == r.Model) &&
			!r.Posted.Before(q.Since) && (q.Until.IsZero() || r.Posted.Before(q.Until)) {
			out = append(out, r)
		}
	}
	return out
}

func (m *model) usage(t testing.TB, rt *rapid.T) {
	q := ledger.Query{Match: m.match(rt), By: []ledger.Group{ledger.ByHour, ledger.ByKey, ledger.ByTeam}}
	type group struct {
		from      time.Time
		key, team string
	}
	want := map[group]ledger.Sum{}
	for _, r := range m.want(q.Match) {
		at := group{r.Posted.Truncate(time.Hour), r.Key, r.Team}
		s := want[at]
		s.From, s.Key, s.Team = at.from, at.key, at.team
		s.Calls++
		s.Requests += r.Requests
		s.Input += r.Input
		s.Output += r.Output
		s.Money += r.Money
		s.Time += r.Total
		if r.Estimated {
			s.Estimated++
		}
		want[at] = s
	}
	got := usage(t, m.book, q)
	for _, s := range got {
		if want[group{s.From, s.Key, s.Team}] != s {
			rt.Fatalf("%+v:\n got %+v\nwant %+v", q, s, want[group{s.From, s.Key, s.Team}])
		}
	}
	if len(got) != len(want) {
		rt.Fatalf("%+v: %d sums, want %d", q, len(got), len(want))
	}
}

func (m *model) pages(t testing.TB, rt *rapid.T) {
	f := ledger.Filter{Match: m.match(rt), Limit: rapid.IntRange(1, 5).Draw(rt, "limit")}
	want := m.want(f.Match)
	var got []ledger.Row
	for {
		page, err := m.book.Rows(t.Context(), f)
		if err != nil {
			rt.Fatal(err)
		}
		got = append(got, page.Rows...)
		if f.Cursor = page.Next; f.Cursor == "" {
			break
		}
	}
	if len(got) != len(want) {
		rt.Fatalf("%+v: %d rows, want %d", f, len(got), len(want))
	}
	place := map[string]int{}
	for i, r := range want {
		place[r.ID] = i
	}
	last := map[string]int{} // rows of the same millisecond are in order only within an organisation
	for i, r := range got {
		at, ok := place[r.ID]
		if !ok || want[at].Money != r.Money || !want[at].Posted.Equal(r.Posted) {
			rt.Fatalf("row %d is %+v", i, r)
		}
		if before, ok := last[r.Org]; ok && at <= before {
			rt.Fatalf("%s comes too late", r.ID)
		}
		last[r.Org] = at
		delete(place, r.ID)
	}
}
