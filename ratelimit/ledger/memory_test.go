package ledger

import (
	"fmt"
	"testing"
	"time"
)

func TestMemoryAge(t *testing.T) {
	now := time.Now()
	m := NewMemory(Retention{RowAge: time.Hour}, func() time.Time { return now })
	post := func(id string) {
		row := testRow(0)
		row.ID = id
		if err := m.Post(t.Context(), &row); err != nil {
			t.Fatal(err)
		}
	}
	rows := func() int {
		page, err := m.Rows(t.Context(), Filter{Match: Match{AllOrgs: true}})
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Rows)
	}
	post("a")
	now = now.Add(40 * time.Minute)
	post("b")
	now = now.Add(40 * time.Minute)
	if n := rows(); n != 1 {
		t.Errorf("%d rows are told", n)
	}
	post("c")
	if n := m.rows.len(); n != 2 {
		t.Errorf("%d rows are held", n)
	}
	now = now.Add(91 * day)
	post("d")
	if len(m.hours) != 1 || m.held != 1 {
		t.Errorf("%d hours, %d sums are held", len(m.hours), m.held)
	}
}

// TestMemoryHeld has more sums than are held: the oldest hours go.
func TestMemoryHeld(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	m := NewMemory(Retention{}, func() time.Time { return now })
	const hours, names = 60, 1_000
	for h := range hours {
		for i := range names {
			row := testRow(0)
			row.ID, row.Model = "", fmt.Sprint("model", i)
			if err := m.Post(t.Context(), &row); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(time.Hour)
		if want := min(h+1, maxHeld/names); len(m.hours) != want || m.held != want*names {
			t.Fatalf("after %d hours: %d hours, %d sums", h+1, len(m.hours), m.held)
		}
	}
	if newest := m.hours[len(m.hours)-1]; newest.number != hourOf(now)-1 || newest.count != names {
		t.Error("the newest hour is gone")
	}
}
