package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest/redistest"
)

// stopped freezes the server; the function lets it go on.
func stopped(t *testing.T, s *redistest.Server) (resume func()) {
	t.Helper()
	var pid int
	for line := range strings.SplitSeq(s.Must("INFO", "server"), "\r\n") {
		if text, ok := strings.CutPrefix(line, "process_id:"); ok {
			pid, _ = strconv.Atoi(text)
		}
	}
	if pid == 0 {
		t.Fatal("the server does not tell its process")
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	resume = func() { once.Do(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) }
	t.Cleanup(resume)
	return resume
}

// troubled is three gateways in front of one Redis, and clients who want more than there is.
type troubled struct {
	server *redistest.Server
	guards []*ratelimit.Guard
	start  time.Time

	mu    sync.Mutex
	calls []timedUse
	rows  map[string]int64
	slow  time.Duration // the longest that a decision took

	stalls *stalls
}

// keepAll lets the ledger have every row of the test.
var keepAll = ledger.Retention{Rows: 200_000}

type timedUse struct {
	asked, decided time.Duration
	n              int64
}

func newTroubled(t *testing.T, server *redistest.Server, rule ratelimit.Rule) *troubled {
	t.Helper()
	x := &troubled{server: server, start: time.Now(), rows: map[string]int64{}, stalls: watchStalls(t)}
	var primaries []*ratelimit.Redis
	for range 3 {
		set, err := ratelimit.NewRules([]ratelimit.Rule{rule})
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		primary := ratelimit.NewRedis(server.Client(ratelimit.TuneRedis), ratelimit.RedisOptions{Rules: set, Log: log, Retention: keepAll})
		journal, err := ratelimit.OpenJournal(ratelimit.JournalOptions{Dir: t.TempDir(), Log: log})
		if err != nil {
			t.Fatal(err)
		}
		g := ratelimit.NewGuard(primary, ratelimit.GuardOptions{Rules: set, Journal: journal, Replicas: func() int { return primary.State().Replicas }, Log: log})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); g.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			<-done
			_ = journal.Close()
			_ = primary.Close()
		})
		x.guards = append(x.guards, g)
		primaries = append(primaries, primary)
	}
	for range 2 { // nobody waits for their next rounds
		for _, p := range primaries {
			p.Round(t.Context())
		}
	}
	server.Await("know three gateways", func() bool {
		return !slices.ContainsFunc(x.guards, func(g *ratelimit.Guard) bool { return g.State().Replicas != 3 })
	})
	x.start = time.Now()
	return x
}

// stalls are the times at which this machine did nothing for longer than a question to Redis may
// take. Questions fail then, whoever is at fault, and a few of them keep the gateways away from Redis for
// the two seconds of their breakers: what a test demands of its time does not hold for these.
type stalls struct {
	mu   sync.Mutex
	lost time.Duration
	end  time.Time // of the last
	stop chan struct{}
	done sync.WaitGroup
}

func watchStalls(t *testing.T) *stalls {
	w := &stalls{stop: make(chan struct{})}
	w.done.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			now := time.Now()
			if now.Sub(last) > 25*time.Millisecond {
				w.note(last, now)
			}
			last = now
		}
	})
	t.Cleanup(func() { close(w.stop); w.done.Wait() })
	return w
}

func (w *stalls) note(from, to time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if from.Before(w.end) {
		from = w.end
	}
	end := to.Add(2500 * time.Millisecond)
	w.lost += end.Sub(from)
	w.end = end
}

// total is how much time stalls have cost, up to now.
func (w *stalls) total() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// pause waits by a timer; it is how clients pass their time.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (x *troubled) client(t *testing.T, ctx context.Context, g *ratelimit.Guard, name string, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	for i := 0; ctx.Err() == nil; i++ {
		pause(ctx, time.Duration(rnd.IntN(20))*time.Millisecond)
		id := name + "-" + strconv.Itoa(i)
		c := &ratelimit.Call{ID: id, Who: ratelimit.Subject{Org: "acme", Key: "k"}, Want: ratelimit.Cost{Requests: 1, Output: 1 + rnd.Int64N(40)}, Row: ledger.Row{ID: id, Org: "acme", Key: "k"}}
		begin := time.Now()
		_, err := g.Reserve(context.Background(), c)
		decided, took := time.Since(x.start), time.Since(begin)
		x.mu.Lock()
		x.slow = max(x.slow, took)
		x.mu.Unlock()
		if d := new(ratelimit.Denied); errors.As(err, &d) {
			continue
		} else if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		pause(ctx, time.Duration(rnd.IntN(100))*time.Millisecond)
		n := 1 + rnd.Int64N(c.Want.Output)
		row := c.Row
		row.Start, row.Output, row.End = begin, n, "ok"
		if err := g.Settle(context.Background(), &ratelimit.Settlement{Call: c, Used: ratelimit.Cost{Requests: 1, Output: n}, Row: row}); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		x.mu.Lock()
		x.calls = append(x.calls, timedUse{begin.Sub(x.start), decided, n})
		x.rows[id] = n
		x.mu.Unlock()
	}
}

// load runs the clients while the story is told.
func (x *troubled) load(t *testing.T, story func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for r, g := range x.guards {
		for i := range 4 {
			all.Go(func() { x.client(t, ctx, g, fmt.Sprintf("%d-%d", r, i), uint64(r*10+i)) })
		}
	}
	story()
	cancel()
	all.Wait()
}

// steady waits until all gateways have handed over what they kept, and returns how long
// that took, and after which time Redis decided everywhere again, but for stalls.
func (x *troubled) steady(t *testing.T) (decided, replayed time.Duration) {
	t.Helper()
	begin, stalled := time.Now(), x.stalls.total()
	for {
		trouble, pending := false, false
		for _, g := range x.guards {
			s := g.State()
			trouble = trouble || s.Trouble
			pending = pending || s.Journal.Pending > 0
		}
		if trouble {
			decided = 0
		} else if decided == 0 {
			decided = max(1, time.Since(begin)-(x.stalls.total()-stalled))
		}
		if !trouble && !pending {
			return decided, time.Since(begin)
		}
		if time.Since(begin) > 60*time.Second {
			t.Fatalf("not steady after 60 s: %+v", x.guards[0].State())
		}
		pause(context.Background(), 20*time.Millisecond)
	}
}

// mostIn is the most that was certainly used in any window of the length: by calls that were
// asked for and decided within it. A machine that has no time decides early and tells late.
func (x *troubled) mostIn(window time.Duration) (most int64, at time.Duration) {
	slices.SortFunc(x.calls, func(a, b timedUse) int { return int(a.asked - b.asked) })
	for i, first := range x.calls {
		var sum int64
		for _, c := range x.calls[i:] {
			if c.asked > first.asked+window {
				break
			}
			if c.decided <= first.asked+window {
				sum += c.n
			}
		}
		if sum > most {
			most, at = sum, first.asked
		}
	}
	return most, at
}

// ledgerHas checks that the ledger has each row once, and no other.
func (x *troubled) ledgerHas(t *testing.T) {
	t.Helper()
	book := ledger.NewRedis(x.server.Client(nil), "sluice:", keepAll)
	defer book.Close()
	found := map[string]int64{}
	f := ledger.Filter{Match: ledger.Match{Org: "acme"}, Limit: 1000}
	for {
		page, err := book.Rows(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Rows {
			if _, twice := found[r.ID]; twice {
				t.Errorf("two rows of %s", r.ID)
			}
			found[r.ID] = r.Output
		}
		if f.Cursor = page.Next; f.Cursor == "" {
			break
		}
	}
	wrong := 0
	for id, n := range x.rows {
		if got, ok := found[id]; !ok || got != n {
			if wrong++; wrong < 5 {
				t.Errorf("%s used %d; the ledger has %d (%v)", id, n, got, ok)
			}
		}
	}
	if len(found) != len(x.rows) || wrong > 0 {
		t.Errorf("the ledger has %d rows of %d, %d are wrong", len(found), len(x.rows), wrong)
	}
}
