package ratelimit

import (
	"fmt"
	"testing"
	"time"

	"sluice/ratelimit/ledger"
)

// TestFullest finds the emptiest of many buckets, and leaves them as they are.
func TestFullest(t *testing.T) {
	rules, err := NewRules([]Rule{
		{ID: "rpm", Scope: Key, Dim: Requests, Amount: 100, Per: Minute},
		{ID: "streams", Scope: Org, Dim: Streams, Amount: 4, Per: AtOnce},
	})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	m := NewMemory(MemoryOptions{Rules: rules, Now: func() time.Time { return now }})
	use := func(key string, n int64, settle bool) {
		c := &Call{ID: fmt.Sprint(key, n), Who: Subject{Org: "o", Key: key}, Want: Cost{Requests: n}}
		if _, err := m.Reserve(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if settle {
			_ = m.Settle(t.Context(), &Settlement{Call: c, Used: c.Want, Row: ledger.Row{}})
		}
	}
	for i := range 3000 {
		use(fmt.Sprint("k", i), 1, true)
	}
	use("heavy", 90, true)
	use("runs", 40, false)
	use("settled", 2, true)
	used := m.slots[slotKey{rule: "rpm", org: "o", name: "heavy", dim: Requests}].used
	now = now.Add(6 * time.Second) // 10 requests flow in
	top := m.Fullest(3)
	got := ""
	for _, l := range top {
		got += fmt.Sprintf("%s %s %d %v; ", l.Rule.ID, l.Name, l.Left, l.Reset)
	}
	if got != "rpm heavy 20 48s; rpm runs 70 18s; streams o 3 1s; " {
		t.Error(got)
	}
	if len(m.Fullest(100)) != 3 {
		t.Error("buckets that are full again are listed")
	}
	if now := m.slots[slotKey{rule: "rpm", org: "o", name: "heavy", dim: Requests}].used; now != used {
		t.Error("looking counts as use")
	}
}
