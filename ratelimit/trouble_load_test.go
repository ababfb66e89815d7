package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/ratelimit/ledger"
)

// used is what a call has cost, and when it was admitted.
type used struct {
	at time.Duration
	n  int64
}

// crowd is clients who ask for more than there is, through several guards of one store.
type crowd struct {
	guards []*guarded
	start  time.Time
	mu     sync.Mutex
	calls  []used
	rows   map[string]int64
}

func (c *crowd) client(t *testing.T, ctx context.Context, g *guarded, name string, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := 0; ctx.Err() == nil; i++ {
		time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
		call := &Call{ID: fmt.Sprintf("%s-%d", name, i), Who: Subject{Org: "acme", Key: "k"}, Want: Cost{Requests: 1, Output: 1 + rnd.Int64N(20)}}
		if _, err := g.Reserve(context.Background(), call); err != nil {
			continue
		}
		at := time.Since(c.start)
		time.Sleep(time.Duration(rnd.IntN(300)) * time.Millisecond)
		n := 1 + rnd.Int64N(call.Want.Output)
		s := &Settlement{Call: call, Used: Cost{Requests: 1, Output: n}, Row: ledger.Row{ID: call.ID, Output: n}}
		if err := g.Settle(context.Background(), s); err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		c.calls = append(c.calls, used{at, n})
		c.rows[call.ID] = n
		c.mu.Unlock()
	}
}

// most is the most that was used in any window of the length.
func (c *crowd) most(window time.Duration) (most int64, at time.Duration) {
	slices.SortFunc(c.calls, func(a, b used) int { return int(a.at - b.at) })
	var sum int64
	from := 0
	for i := range c.calls {
		sum += c.calls[i].n
		for ; c.calls[i].at-c.calls[from].at > window; from++ {
			sum -= c.calls[from].n
		}
		if sum > most {
			most, at = sum, c.calls[from].at
		}
	}
	return most, at
}

// between is what was used from one time to another.
func (c *crowd) between(from, to time.Duration) (n int64) {
	for _, u := range c.calls {
		if u.at >= from && u.at < to {
			n += u.n
		}
	}
	return n
}

// TestGuardUnderLoad: three replicas lose their store for a minute, then it comes and goes.
// In no minute is more than 1.1 x the limit used; every settlement arrives, once; the
// limit is used while the store is away, and after.
func TestGuardUnderLoad(t *testing.T) { guardUnderLoad(t, 1) }

func guardUnderLoad(t *testing.T, seeds uint64) {
	const limit, burst = 6000, 600
	for seed := range seeds {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				set, err := NewRules([]Rule{{ID: "tpm", Scope: Key, Dim: Output, Amount: limit, Per: Minute, Burst: burst}})
				if err != nil {
					t.Fatal(err)
				}
				store := newFaultyStore(t, set)
				c := &crowd{start: time.Now(), rows: map[string]int64{}}
				ctx, cancel := context.WithCancel(context.Background())
				var all sync.WaitGroup
				for r := range 3 {
					g := guardOver(t, store, set, 3)
					c.guards = append(c.guards, g)
					for i := range 4 {
						all.Go(func() { c.client(t, ctx, g, fmt.Sprintf("%d-%d", r, i), seed*100+uint64(r*10+i)) })
					}
				}
				rnd := rand.New(rand.NewPCG(seed, 2))
				time.Sleep(time.Minute)
				store.set(hanging)
				time.Sleep(time.Minute)
				store.set(healthy)
				time.Sleep(time.Minute)
				for range 20 {
					store.set([]fault{hanging, refusing, losing}[rnd.IntN(3)])
					time.Sleep(time.Duration(rnd.IntN(4000)) * time.Millisecond)
					store.set(healthy)
					time.Sleep(time.Duration(rnd.IntN(4000)) * time.Millisecond)
				}
				end := time.Since(c.start)
				time.Sleep(20 * time.Second)
				cancel()
				all.Wait()
				time.Sleep(5 * time.Second)
				synctest.Wait()
				c.check(t, store, limit, end)
			})
		})
	}
}

func (c *crowd) check(t *testing.T, store *faultyStore, limit int64, flapped time.Duration) {
	t.Helper()
	most, at := c.most(time.Minute)
	t.Logf("%d calls; most in a minute: %d, from %v", len(c.calls), most, at)
	if most*10 > limit*11 {
		t.Errorf("%d were used within a minute from %v, more than 1.1 x %d", most, at, limit)
	}
	for name, span := range map[string][2]time.Duration{
		"before": {0, time.Minute}, "away": {time.Minute, 2 * time.Minute}, "back": {2 * time.Minute, 3 * time.Minute},
		"coming and going": {3 * time.Minute, flapped}, "after": {flapped + 5*time.Second, flapped + 20*time.Second},
	} {
		n, due := c.between(span[0], span[1]), int64((span[1]-span[0]).Minutes()*float64(limit))
		t.Logf("%s: %d of %d", name, n, due)
		if n*10 < due*8 {
			t.Errorf("%s: %d were used, less than 0.8 x the %d that flowed in", name, n, due)
		}
	}
	for _, g := range c.guards {
		if s := g.State(); s.Trouble || s.Lost > 0 || s.Calls > 0 || s.Journal.Pending > 0 {
			t.Errorf("state at the end: %+v", s)
		}
	}
	if len(store.rows) != len(c.rows) {
		t.Errorf("the ledger has %d rows, want %d", len(store.rows), len(c.rows))
	}
	for id, n := range store.rows {
		if n != 1 || c.rows[id] == 0 {
			t.Errorf("%d rows of %s, which used %d", n, id, c.rows[id])
		}
	}
}
