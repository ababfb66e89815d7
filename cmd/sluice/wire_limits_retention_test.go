package main

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"sluice/handlers"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// TestUsageRecordsAreBounded: data.usage_records is what the book keeps, in memory and on disk.
func TestUsageRecordsAreBounded(t *testing.T) {
	for name, dir := range map[string]string{"memory": "", "file": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			c := new(Config)
			c.Data.setDefaults()
			c.Data.Dir, c.Data.UsageRecords = dir, 100
			q, err := newQuota(c, handlers.NewObserver(nil), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			for i := range 1000 {
				id := fmt.Sprint(i)
				s := &ratelimit.Settlement{Call: &ratelimit.Call{ID: id, Who: ratelimit.Subject{Org: "acme"}}, Row: ledger.Row{ID: id, Org: "acme", Requests: 1}}
				if err := q.handlers.Limiter.Settle(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			book, ok := q.handlers.Ledger.(rowReader)
			if !ok {
				t.Fatalf("%T cannot be read by rows", q.handlers.Ledger)
			}
			page, err := book.Rows(t.Context(), ledger.Filter{Match: ledger.Match{Org: "acme"}, Limit: 1000})
			if err != nil || len(page.Rows) < 100 || len(page.Rows) > 200 || page.Rows[0].ID != "999" {
				t.Errorf("%d rows, %v, want about the newest 100 of 1000", len(page.Rows), err)
			}
		})
	}
}

type rowReader interface {
	Rows(ctx context.Context, f ledger.Filter) (ledger.Page, error)
}
