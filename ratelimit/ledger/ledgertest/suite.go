// Package ledgertest is what every book of the ledger must do.
package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/ratelimit/ledger"
)

// Book is what is tested.
type Book interface {
	Post(ctx context.Context, r *ledger.Row) error
	Usage(ctx context.Context, q ledger.Query) ([]ledger.Sum, error)
	Rows(ctx context.Context, f ledger.Filter) (ledger.Page, error)
}

// Open makes an empty book that ends with the test and posts rows at the clock's time.
type Open func(t testing.TB, keep ledger.Retention, clock *Clock) Book

// Clock is a time that only tests move. It may be read concurrently.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock begins at noon (UTC), two to three days ago, so that a book that also knows the
// true time takes the rows of two days for recent ones.
func NewClock() *Clock {
	return &Clock{now: time.Now().UTC().Truncate(24 * time.Hour).Add(-36 * time.Hour).Add(-24 * time.Hour)}
}

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Add moves the time.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Run tests a book.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"row": testRow, "once": testOnce, "pages": testPages, "filters": testFilters, "groups": testGroups,
		"hours": testHours, "names": testNames, "questions": testQuestions, "concurrent": testConcurrent,
		"rows kept": testRowsKept, "names kept": testNamesKept, "property": testProperty,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

// Row is a row with every field set.
func Row(id string) ledger.Row {
	return ledger.Row{
		ID: id, Start: time.UnixMicro(1_700_000_000_123_456).UTC(), TTFT: 123456789, Total: 2*time.Second + 345*time.Microsecond,
		Org: "acme", Team: "red", User: "ann", Key: "laptop", Op: "chat", Transport: "sse", Model: "gpt-5", Target: "openai/gpt-5",
		Requests: 1, Input: 1000, Cached: 200, Output: 500, Reasoning: 50, Frames: 3, Estimated: true, Money: 4_000_000_123,
		Reserved: 2048, Attempts: 2, End: "ok",
	}
}

func post(t testing.TB, b Book, rows ...ledger.Row) {
	t.Helper()
	for i := range rows {
		if err := b.Post(t.Context(), &rows[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func rowsOf(t testing.TB, b Book, f ledger.Filter) []ledger.Row {
	t.Helper()
	page, err := b.Rows(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return page.Rows
}

func usage(t testing.TB, b Book, q ledger.Query) []ledger.Sum {
	t.Helper()
	sums, err := b.Usage(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

var all = ledger.Match{AllOrgs: true}

func testRow(t *testing.T, open Open) {
	clock := NewClock()
	b := open(t, ledger.Retention{}, clock)
	want := Row("r1")
	post(t, b, want, ledger.Row{ID: "bare", Org: "acme"})
	want.Posted = clock.Now()
	got := rowsOf(t, b, ledger.Filter{Match: ledger.Match{Org: "acme"}})
	bare := ledger.Row{ID: "bare", Org: "acme", Posted: clock.Now()}
	if len(got) != 2 || !reflect.DeepEqual(got[1], want) || !reflect.DeepEqual(got[0], bare) {
		t.Errorf("got  %+v\nwant %+v", got, []ledger.Row{bare, want})
	}
	sums := usage(t, b, ledger.Query{Match: ledger.Match{Org: "acme"}})
	total := ledger.Sum{Calls: 2, Requests: 1, Input: 1000, Cached: 200, Output: 500, Reasoning: 50, Frames: 3,
		Money: 4_000_000_123, Estimated: 1, Time: want.Total}
	if len(sums) != 1 || sums[0] != total {
		t.Errorf("sums %+v, want %+v", sums, total)
	}
}

func testOnce(t *testing.T, open Open) {
	b := open(t, ledger.Retention{}, NewClock())
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 10 {
				row := Row(fmt.Sprint("r", i))
				if err := b.Post(t.Context(), &row); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	acme := ledger.Match{Org: "acme"}
	if rows := rowsOf(t, b, ledger.Filter{Match: acme}); len(rows) != 10 {
		t.Errorf("%d rows of 10 ids", len(rows))
	}
	if sums := usage(t, b, ledger.Query{Match: acme}); len(sums) != 1 || sums[0].Calls != 10 {
		t.Errorf("sums of 10 ids: %+v", sums)
	}
}

// testPages turns pages while rows are posted: what was there at first comes once, in order.
func testPages(t *testing.T, open Open) {
	for _, m := range []ledger.Match{{Org: "acme"}, {AllOrgs: true}} {
		clock := NewClock()
		b := open(t, ledger.Retention{}, clock)
		const rows = 530
		for i := range rows {
			row := Row(fmt.Sprint("r", i))
			if m.AllOrgs {
				row.Org = fmt.Sprint("org", i%3)
			}
			clock.Add(time.Millisecond)
			post(t, b, row)
		}
		f := ledger.Filter{Match: m, Limit: 100}
		seen := map[string]bool{}
		for n := 0; ; n++ {
			page, err := b.Rows(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range page.Rows {
				if seen[r.ID] {
					t.Fatalf("%s comes twice", r.ID)
				}
				seen[r.ID] = true
				if i > 0 && !m.AllOrgs && r.Posted.After(page.Rows[i-1].Posted) {
					t.Fatalf("%s comes after an older one", r.ID)
				}
			}
			if page.Next == "" {
				break
			}
			if len(page.Rows) != 100 || n > rows {
				t.Fatalf("page %d has %d rows", n, len(page.Rows))
			}
			f.Cursor = page.Next
			post(t, b, Row(fmt.Sprint("late", n)))
		}
		if len(seen) != rows {
			t.Errorf("%d of %d rows", len(seen), rows)
		}
	}
}

func testFilters(t *testing.T, open Open) {
	clock := NewClock()
	b := open(t, ledger.Retention{}, clock)
	a, c, d := Row("a"), Row("c"), Row("d")
	c.Team, c.User, c.Key, c.Model, c.Target, c.End = "blue", "bob", "phone", "gpt-6", "azure/gpt-6", "lost"
	d.Org = ""
	start := clock.Now()
	post(t, b, a)
	clock.Add(2 * time.Hour)
	post(t, b, c, d)
	at := func(h int) time.Time { return start.Add(time.Duration(h) * time.Hour) }
	tests := []struct {
		name, want string
		f          ledger.Filter
	}{
		{"zero value is the organisation without a name", "d", ledger.Filter{}},
		{"organisation", "c a", ledger.Filter{Match: ledger.Match{Org: "acme"}}},
		{"another organisation", "", ledger.Filter{Match: ledger.Match{Org: "acm"}}},
		{"team", "c", ledger.Filter{Match: ledger.Match{Org: "acme", Team: "blue"}}},
		{"user", "a", ledger.Filter{Match: ledger.Match{Org: "acme", User: "ann"}}},
		{"key", "c", ledger.Filter{Match: ledger.Match{Org: "acme", Key: "phone"}}},
		{"half a key", "", ledger.Filter{Match: ledger.Match{Org: "acme", Key: "phon"}}},
		{"model", "c", ledger.Filter{Match: ledger.Match{Org: "acme", Model: "gpt-6"}}},
		{"target", "c", ledger.Filter{Match: ledger.Match{Org: "acme", Target: "azure/gpt-6"}}},
		{"id", "a", ledger.Filter{Match: all, ID: "a"}},
		{"end", "c", ledger.Filter{Match: all, End: "lost"}},
		{"since", "c", ledger.Filter{Match: ledger.Match{Org: "acme", Since: at(1)}}},
		{"since is included", "c", ledger.Filter{Match: ledger.Match{Org: "acme", Since: at(2)}}},
		{"until is not", "a", ledger.Filter{Match: ledger.Match{Org: "acme", Until: at(2)}}},
		{"a key of all organisations", "a", ledger.Filter{Match: ledger.Match{AllOrgs: true, Org: "x", Key: "laptop", Until: at(1)}}},
	}
	for _, test := range tests {
		var got []string
		for _, r := range rowsOf(t, b, test.f) {
			got = append(got, r.ID)
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%s: %q, want %q", test.name, s, test.want)
		}
		if test.f.ID != "" || test.f.End != "" {
			continue
		}
		var calls int64
		for _, s := range usage(t, b, ledger.Query{Match: test.f.Match}) {
			calls += s.Calls
		}
		if calls != int64(len(got)) {
			t.Errorf("%s: sum of %d calls, want %d", test.name, calls, len(got))
		}
	}
}

func testQuestions(t *testing.T, open Open) {
	b := open(t, ledger.Retention{}, NewClock())
	for _, cursor := range []string{"!", "AAA", strings.Repeat("gICA", 300), "gICAgICAgICAgICA"} {
		if _, err := b.Rows(t.Context(), ledger.Filter{Cursor: cursor}); !errors.Is(err, ledger.ErrQuery) {
			t.Errorf("cursor %.8s: %v", cursor, err)
		}
	}
	for _, by := range [][]ledger.Group{{99}, {ledger.ByHour, ledger.ByDay}} {
		if _, err := b.Usage(t.Context(), ledger.Query{By: by}); !errors.Is(err, ledger.ErrQuery) {
			t.Errorf("groups %v: %v", []ledger.Group(by)[0] == 99, err)
		}
	}
	if sums := usage(t, b, ledger.Query{Match: all}); len(sums) != 0 {
		t.Errorf("an empty book has sums %+v", sums)
	}
	post(t, b, Row("a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Rows(ctx, ledger.Filter{Match: all}); !errors.Is(err, context.Canceled) {
		t.Errorf("rows after the caller left: %v", err)
	}
	if _, err := b.Usage(ctx, ledger.Query{Match: all}); !errors.Is(err, context.Canceled) {
		t.Errorf("usage after the caller left: %v", err)
	}
}

func testConcurrent(t *testing.T, open Open) {
	b := open(t, ledger.Retention{}, NewClock())
	const posters, each = 8, 60
	var all sync.WaitGroup
	for p := range posters {
		all.Go(func() {
			for i := range each {
				row := Row(fmt.Sprintf("%d-%d", p, i))
				if err := b.Post(t.Context(), &row); err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					if _, err := b.Usage(t.Context(), ledger.Query{Match: ledger.Match{Org: "acme"}, By: []ledger.Group{ledger.ByHour}}); err != nil {
						t.Error(err)
					}
					if _, err := b.Rows(t.Context(), ledger.Filter{Match: ledger.Match{Org: "acme"}}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	if sums := usage(t, b, ledger.Query{Match: ledger.Match{Org: "acme"}}); len(sums) != 1 || sums[0].Calls != posters*each {
		t.Errorf("sums %+v", sums)
	}
}
