package ledgertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/ratelimit/ledger"
)

// testGroups has two rows in each of three hours, over midnight.
func testGroups(t *testing.T, open Open) {
	clock := NewClock()
	clock.Add(10 * time.Hour) // 22:00
	b := open(t, ledger.Retention{}, clock)
	for i := range 6 {
		row := Row(fmt.Sprint("r", i))
		row.Key = []string{"laptop", "phone"}[i%2]
		row.Model = []string{"a", "b", "c"}[i%3]
		row.Org = []string{"acme", "zeta"}[i/4]
		row.Team, row.User, row.Target = "t"+row.Key, "u"+row.Key, "x/"+row.Model
		row.Money = 1 << i
		post(t, b, row)
		if i%2 == 1 {
			clock.Add(time.Hour)
		}
	}
	tests := map[string]struct {
		by   []ledger.Group
		want string
	}{
		"nothing":   {nil, "6:63"},
		"org":       {[]ledger.Group{ledger.ByOrg}, "acme 4:15, zeta 2:48"},
		"team":      {[]ledger.Group{ledger.ByTeam}, "tlaptop 3:21, tphone 3:42"},
		"user":      {[]ledger.Group{ledger.ByUser}, "ulaptop 3:21, uphone 3:42"},
		"key":       {[]ledger.Group{ledger.ByKey}, "laptop 3:21, phone 3:42"},
		"model":     {[]ledger.Group{ledger.ByModel}, "a 2:9, b 2:18, c 2:36"},
		"target":    {[]ledger.Group{ledger.ByTarget}, "x/a 2:9, x/b 2:18, x/c 2:36"},
		"hour":      {[]ledger.Group{ledger.ByHour}, "22h 2:3, 23h 2:12, 0h 2:48"},
		"day":       {[]ledger.Group{ledger.ByDay}, "0h 4:15, 0h 2:48"},
		"key, hour": {[]ledger.Group{ledger.ByHour, ledger.ByKey}, "22h laptop 1:1, 22h phone 1:2, 23h laptop 1:4, 23h phone 1:8, 0h laptop 1:16, 0h phone 1:32"},
	}
	for name, test := range tests {
		var got []string
		for _, s := range usage(t, b, ledger.Query{Match: all, By: test.by}) {
			got = append(got, describe(s))
		}
		if text := strings.Join(got, ", "); text != test.want {
			t.Errorf("by %s: %s\nwant %s", name, text, test.want)
		}
	}
}

func describe(s ledger.Sum) string {
	text := ""
	if !s.From.IsZero() {
		text = fmt.Sprintf("%dh ", s.From.Hour())
	}
	for _, name := range []string{s.Org, s.Team, s.User, s.Key, s.Model, s.Target} {
		if name != "" {
			text += name + " "
		}
	}
	return text + fmt.Sprintf("%d:%d", s.Calls, s.Money)
}

// testHours asks for parts of hours: they count as whole ones.
func testHours(t *testing.T, open Open) {
	clock := NewClock()
	start := clock.Now()
	b := open(t, ledger.Retention{}, clock)
	for i := range 4 {
		post(t, b, Row(fmt.Sprint("r", i)))
		clock.Add(time.Hour)
	}
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	tests := []struct {
		since, until time.Time
		want         int64
	}{
		{time.Time{}, time.Time{}, 4},
		{at(60), time.Time{}, 3},
		{at(119), time.Time{}, 3},
		{at(0), at(60), 1},
		{at(0), at(61), 2},
		{at(59), at(61), 2},
		{at(300), time.Time{}, 0},
		{at(120), at(60), 0},
		{time.Unix(-1e10, 0), time.Unix(1e15, 0), 4},
	}
	for _, test := range tests {
		var got int64
		for _, s := range usage(t, b, ledger.Query{Match: ledger.Match{Org: "acme", Since: test.since, Until: test.until}}) {
			got += s.Calls
		}
		if got != test.want {
			t.Errorf("from %v to %v: %d calls, want %d", test.since.Sub(start), test.until.Sub(start), got, test.want)
		}
	}
}

// testNames has names that mean something to some store, or are too long.
func testNames(t *testing.T, open Open) {
	clock := NewClock()
	b := open(t, ledger.Retention{}, clock)
	since := clock.Now().Add(-time.Hour) // 48 questions about 90 days take long
	long := strings.Repeat("é", 200)
	names := []string{"", "*", "a*", "[a-z]", `\`, "?", "{o:acme}", "o:acme}", "a:b", "a\x00b", "\xff\xfe", "%7B", "(other)", "a b", "ключ", long}
	for i, name := range names {
		row := Row(fmt.Sprint("id ", name, i))
		row.Org, row.Key, row.Model = name, name, name
		post(t, b, row)
	}
	for _, name := range names {
		for _, m := range []ledger.Match{{Org: name}, {Org: name, Key: name}, {AllOrgs: name != "", Org: name, Key: name}} {
			m.Since, m.Until = since, since.Add(3*time.Hour)
			rows := rowsOf(t, b, ledger.Filter{Match: m})
			sums := usage(t, b, ledger.Query{Match: m, By: []ledger.Group{ledger.ByKey, ledger.ByModel}})
			if len(rows) != 1 || len(sums) != 1 || sums[0].Calls != 1 || sums[0].Key != rows[0].Key || sums[0].Model != rows[0].Model {
				t.Errorf("%.10q: %d rows, sums %+v", name, len(rows), sums)
				continue
			}
			if want := strings.Repeat("é", 128); rows[0].Key != name && (name != long || rows[0].Key != want) {
				t.Errorf("%.10q came back as %q", name, rows[0].Key)
			}
		}
	}
}

func testRowsKept(t *testing.T, open Open) {
	clock := NewClock()
	b := open(t, ledger.Retention{Rows: 100}, clock)
	const posted = 500
	for i := range posted {
		post(t, b, Row(fmt.Sprint("r", i)))
	}
	rows := rowsOf(t, b, ledger.Filter{Match: all, Limit: 1000})
	if len(rows) < 100 || len(rows) > 250 {
		t.Errorf("%d rows are kept", len(rows))
	}
	for i, r := range rows {
		if want := fmt.Sprint("r", posted-1-i); r.ID != want {
			t.Fatalf("row %d is %s, want %s", i, r.ID, want)
		}
	}
	post(t, b, Row(fmt.Sprint("r", posted-90)), Row(fmt.Sprint("r", posted-1)))
	if sums := usage(t, b, ledger.Query{Match: all}); len(sums) != 1 || sums[0].Calls != posted {
		t.Errorf("sums %+v", sums)
	}
}

// testNamesKept has more names in an hour than get a sum each: models lose theirs first.
func testNamesKept(t *testing.T, open Open) {
	clock := NewClock()
	b := open(t, ledger.Retention{Names: 10}, clock)
	const posted = 400
	for i := range posted {
		row := Row(fmt.Sprint("r", i))
		row.Key, row.Model = fmt.Sprint("key", i%5), fmt.Sprint("model", i)
		post(t, b, row)
	}
	byKey := usage(t, b, ledger.Query{Match: all, By: []ledger.Group{ledger.ByKey}})
	if len(byKey) != 5 {
		t.Fatalf("%d keys", len(byKey))
	}
	for _, s := range byKey {
		if s.Calls != posted/5 {
			t.Errorf("%s has %d calls", s.Key, s.Calls)
		}
	}
	byModel := usage(t, b, ledger.Query{Match: all, By: []ledger.Group{ledger.ByModel}})
	if len(byModel) != 11 || byModel[0].Model != "(other)" || byModel[0].Calls != posted-10 {
		t.Errorf("%d models, first %+v", len(byModel), byModel[0])
	}
	for i := range posted {
		row := Row(fmt.Sprint("k", i))
		row.Key = fmt.Sprint("many", i)
		post(t, b, row)
	}
	total := usage(t, b, ledger.Query{Match: all})
	if byKey := usage(t, b, ledger.Query{Match: all, By: []ledger.Group{ledger.ByKey}}); len(byKey) > 41 || total[0].Calls != 2*posted {
		t.Errorf("%d keys, %d calls", len(byKey), total[0].Calls)
	}
}
