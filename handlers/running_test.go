package handlers

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/streaming"
)

// kept is a book that remembers when it was told what.
type kept struct {
	at    []time.Time
	rows  [][]ledger.Row
	fails error
}

func (k *kept) Keep(ctx context.Context, rows iter.Seq[*ledger.Row]) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var got []ledger.Row
	for row := range rows {
		got = append(got, *row)
	}
	k.at, k.rows = append(k.at, time.Now()), append(k.rows, got)
	return k.fails
}

func (k *kept) last() []ledger.Row { return k.rows[len(k.rows)-1] }

// started is an answer that runs.
func started(s *Server, id string) (*live, *streaming.Progress) {
	p := streaming.NewProgress(time.Now())
	c := &call{
		req:       &providers.Request{ID: id, Op: providers.Chat, Model: "m", Stream: true, Body: []byte(`{"model":"m","messages":[{"role":"user","content":"hi"}]}`), Choices: 1},
		who:       auth.Principal{Key: "app", Org: "acme", Team: "red", User: "ann"},
		transport: "sse",
	}
	c.account = s.open(c, p)
	return s.begin(c, c.account), p
}

func text(p *streaming.Progress, n int) {
	for range n {
		p.Count([]streaming.Event{{Kind: streaming.Text, Text: "tok"}}, 0)
	}
}

// TestKeepRunning: each second the rows of what runs, and at the end once more.
func TestKeepRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := tallied(&tally{})
		book, start := &kept{}, time.Now()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.opt.Live.KeepRunning(ctx, book, slog.New(slog.DiscardHandler))
		}()
		time.Sleep(500 * time.Millisecond)
		a, ap := started(s, "a")
		_, _ = started(s, "waits") // for a target: nothing has been asked for
		ap.SetTarget("odd/m")
		ap.AddAttempt()
		want := func(n int, output ...int64) {
			t.Helper()
			synctest.Wait()
			if len(book.at) != n || len(book.last()) != len(output) || n <= 4 && !book.at[n-1].Equal(start.Add(time.Duration(n)*time.Second)) {
				t.Fatalf("told %d times, at last %+v at %v", len(book.at), book.last(), book.at)
			}
			for i, row := range book.last() {
				if row.Output != output[i] || row.End != "lost" || !row.Estimated || (row.Requests == 1) != (output[i] > 0) {
					t.Errorf("%+v", row)
				}
			}
		}
		time.Sleep(600 * time.Millisecond)
		want(1, 0)
		text(ap, 3)
		b, bp := started(s, "b")
		bp.SetTarget("odd/m")
		text(bp, 1)
		time.Sleep(time.Second)
		if want(2, 3, 1); book.last()[1].ID == "a" {
			t.Error("in another order")
		}
		a.end(nil)
		text(bp, 1)
		time.Sleep(time.Second)
		want(3, 2)
		b.end(nil)
		time.Sleep(time.Second)
		want(4)
		_, cp := started(s, "c") // is stuck when the process ends
		cp.SetTarget("odd/m")
		text(cp, 7)
		stop()
		<-done
		want(5, 7)
	})
}

// TestLostRow is what a settlement of the answer would write if it were cut now.
func TestLostRow(t *testing.T) {
	for name, flow := range map[string]func(p *streaming.Progress){
		"nothing came":       func(*streaming.Progress) {},
		"told, nothing came": func(p *streaming.Progress) { p.SetUsage(&streaming.UsageData{Prompt: 9, Total: 9}) },
		"some came":          func(p *streaming.Progress) { text(p, 5) },
		"told on the way": func(p *streaming.Progress) {
			text(p, 5)
			p.SetUsage(&streaming.UsageData{Prompt: 9, Completion: 4, Cached: 2, Reasoning: 1, Total: 13})
			text(p, 3)
		},
		"told at last": func(p *streaming.Progress) {
			text(p, 5)
			p.SetUsage(&streaming.UsageData{Prompt: 9, Completion: 4, Total: 13})
		},
		"large pieces": func(p *streaming.Progress) {
			p.Count([]streaming.Event{{Kind: streaming.Text, Text: strings.Repeat("word ", 100)}}, 0)
		},
		"a body": func(p *streaming.Progress) { p.Count([]streaming.Event{{Kind: streaming.Whole, Size: 1000}}, 0) },
	} {
		for _, reserves := range []bool{true, false} {
			t.Run(fmt.Sprint(name, reserves), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := &tally{}
					s := tallied(l)
					s.opt.Quota.PriceAt = func(target string) (ratelimit.Price, bool) {
						return ratelimit.Price{Input: 5e6, Cached: 1e6, Output: 7e6}, target == "odd/m"
					}
					e, p := started(s, "a")
					if reserves {
						if err := e.account.reserve(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					p.SetTarget("odd/m")
					p.AddAttempt()
					flow(p)
					time.Sleep(3 * time.Second)
					got := e.lostRow()
					e.account.settle(t.Context(), errPanicked)
					want := l.settled[0].Row
					want.End, want.Estimated = "lost", true
					if got != want || got.Total != 3*time.Second || (got.Reserved > 0) != reserves || (got.Money > 0) != (p.Report().TTFT > 0) {
						t.Errorf("%+v, want %+v", got, want)
					}
				})
			})
		}
	}
}

// TestKeepRunningTrouble: what goes wrong is told once, and goes on being tried; of too many
// answers the oldest are kept.
func TestKeepRunningTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, book := tallied(&tally{}), &kept{}
		var told strings.Builder
		k := keeper{live: s.opt.Live, book: book, log: slog.New(slog.NewTextHandler(&told, nil))}
		tell := func(want string) {
			t.Helper()
			told.Reset()
			k.keep(t.Context())
			if want == "" && told.Len() > 0 || strings.Count(told.String(), "\n") > 1 || !strings.Contains(told.String(), want) {
				t.Errorf("told %q, want %q", told.String(), want)
			}
		}
		tell("")
		book.fails = errors.New("the disk is full")
		tell("the disk is full")
		tell("")
		book.fails = nil
		tell("again")
		tell("")
		var all []*live
		for i := range ledger.MaxRunning {
			e, p := started(s, fmt.Sprint(i))
			p.SetTarget("odd/m")
			all = append(all, e)
		}
		tell("")
		time.Sleep(time.Millisecond)
		for i := range 20 {
			_, p := started(s, fmt.Sprint("young", i))
			p.SetTarget("odd/m")
		}
		tell(fmt.Sprintf("running=%d kept=%d", ledger.MaxRunning+20, ledger.MaxRunning))
		tell("")
		if rows := book.last(); len(rows) != ledger.MaxRunning {
			t.Errorf("%d rows", len(rows))
		}
		for _, row := range book.last() {
			if strings.HasPrefix(row.ID, "young") {
				t.Fatal("a young one is kept instead of an old one")
			}
		}
		for _, e := range all[:20] {
			e.end(nil)
		}
		tell("")
		if len(book.last()) != ledger.MaxRunning {
			t.Errorf("%d rows", len(book.last()))
		}
	})
}

// BenchmarkKeepRunning is what a thousand answers that run cost each second.
func BenchmarkKeepRunning(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	book, err := ledger.OpenBolt(filepath.Join(b.TempDir(), "book"), ledger.Retention{}, time.Now, log)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = book.Close() }()
	file, _, err := book.OpenRunning(b.Context(), filepath.Join(b.TempDir(), "running"))
	if err != nil {
		b.Fatal(err)
	}
	s := tallied(&tally{})
	for i := range 1000 {
		_, p := started(s, fmt.Sprint("req_0123456789abcdef", i))
		p.SetTarget("odd/m")
		text(p, 100)
	}
	k := keeper{live: s.opt.Live, book: file, log: log}
	b.ReportAllocs()
	for b.Loop() {
		k.keep(b.Context())
	}
}
