package ratelimit_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

var perAddress = ratelimit.Rule{ID: "ip", Scope: ratelimit.IP, Dim: ratelimit.Requests, Amount: 10, Per: ratelimit.Hour}

func reserve(t testing.TB, m *ratelimit.Memory, id string, who ratelimit.Subject) (*ratelimit.Call, ratelimit.Grant) {
	t.Helper()
	c := &ratelimit.Call{ID: id, Who: who, Want: ratelimit.Cost{Requests: 1, Input: 5, Output: 5, Money: 5}}
	g, err := m.Reserve(context.Background(), c)
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	return c, g
}

func settle(t testing.TB, m *ratelimit.Memory, c *ratelimit.Call) {
	t.Helper()
	if err := m.Settle(context.Background(), &ratelimit.Settlement{Call: c, Used: c.Want}); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryIsBoundedInNames(t *testing.T) {
	clock := newTestClock()
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: mustRules(t, perAddress), Now: clock.Now, MaxNames: 100, Settled: 50})
	open, _ := reserve(t, m, "stays open", ratelimit.Subject{IP: "first"})
	for i := range 20000 {
		clock.Advance(time.Millisecond)
		c, _ := reserve(t, m, fmt.Sprint(i), ratelimit.Subject{IP: fmt.Sprint(i)})
		settle(t, m, c)
	}
	buckets, calls, settled, routes := m.Held()
	if buckets != 100 || calls != 1 || settled < 25 || settled > 50 || routes > 4096 {
		t.Fatalf("holds %d buckets, %d calls, %d of them settled, %d routes", buckets, calls, settled, routes)
	}
	for _, c := range []struct {
		ip   string
		left int64
	}{
		{"first", 9},  // not forgotten while its call runs
		{"19999", 9},  // the last one
		{"10000", 10}, // forgotten: full again
	} {
		levels, err := m.Peek(t.Context(), &ratelimit.Subject{IP: c.ip})
		if err != nil || levels[0].Left != c.left {
			t.Errorf("%s has %+v, error %v; want %d left", c.ip, levels, err, c.left)
		}
	}
	settle(t, m, open)
}

func TestMoreCallsThanNamesRun(t *testing.T) {
	clock := newTestClock()
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: mustRules(t, perAddress), Now: clock.Now, MaxNames: 10})
	var open []*ratelimit.Call
	for i := range 50 {
		c, _ := reserve(t, m, fmt.Sprint(i), ratelimit.Subject{IP: fmt.Sprint(i)})
		open = append(open, c)
	}
	if buckets, _, _, _ := m.Held(); buckets != 50 {
		t.Fatalf("%d buckets of 50 open calls", buckets)
	}
	for _, c := range open {
		settle(t, m, c)
	}
	levels, err := m.Peek(t.Context(), &ratelimit.Subject{IP: "0"})
	if err != nil || levels[0].Left != 9 {
		t.Fatalf("levels %+v, error %v", levels, err)
	}
}

func TestFullIdleBucketsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := mustRules(t, perAddress, ratelimit.Rule{ID: "places", Scope: ratelimit.IP, Dim: ratelimit.Streams, Amount: 5})
		m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: rules})
		open, _ := reserve(t, m, "stays open", ratelimit.Subject{IP: "open"})
		for i := range 3000 {
			c, _ := reserve(t, m, fmt.Sprint(i), ratelimit.Subject{IP: fmt.Sprint(i)})
			settle(t, m, c)
		}
		time.Sleep(5 * time.Minute) // a call an hour over ten: full after six minutes
		if buckets, _, settled, _ := m.Held(); buckets != 3002 || settled != 3000 {
			t.Fatalf("%d buckets after five minutes, want 3001 that fill and a place that is taken; %d settled", buckets, settled)
		}
		time.Sleep(3 * time.Minute)
		if buckets, _, _, _ := m.Held(); buckets != 2 {
			t.Fatalf("%d buckets after eight minutes, want the open call's", buckets)
		}
		time.Sleep(15 * time.Minute)
		if _, calls, settled, _ := m.Held(); calls != 1 || settled != 0 {
			t.Fatalf("%d calls, %d settled after 23 minutes", calls, settled)
		}
		settle(t, m, open)
		time.Sleep(23 * time.Minute)
		if buckets, calls, _, _ := m.Held(); buckets != 0 || calls != 0 {
			t.Fatalf("%d buckets and %d calls in the end", buckets, calls)
		}
	})
}

func TestABucketThatWasForgottenIsOneForAllAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: mustRules(t, perAddress)})
		for i := range 3 {
			for n, key := range []string{"a", fmt.Sprint("b", i)} { // a knows the way, b is new
				c, g := reserve(t, m, fmt.Sprint(key, i), ratelimit.Subject{IP: "192.0.2.1", Key: key})
				if want := int64(9 - n); g.Levels[0].Left != want {
					t.Fatalf("%d left for %s in round %d, want %d", g.Levels[0].Left, key, i, want)
				}
				settle(t, m, c)
			}
			time.Sleep(time.Hour)
		}
	})
}

func TestMemoryKnowsTheDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins at midnight, the first of January 2000
		day := ratelimit.Rule{ID: "day", Scope: ratelimit.Key, Dim: ratelimit.Money, Amount: 20, Per: ratelimit.CalendarDay}
		month := day
		month.ID, month.Per = "month", ratelimit.CalendarMonth
		m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: mustRules(t, day, month)})
		who := ratelimit.Subject{Key: "k"}
		left := func(want ...int64) {
			t.Helper()
			levels, err := m.Peek(t.Context(), &who)
			if err != nil || levels[0].Left != want[0] || levels[1].Left != want[1] {
				t.Fatalf("levels %+v, error %v at %v; want %v left", levels, err, time.Now(), want)
			}
		}
		time.Sleep(23*time.Hour + 59*time.Minute)
		c, _ := reserve(t, m, "a", who)
		settle(t, m, c)
		time.Sleep(time.Minute - time.Millisecond)
		left(15, 15)
		time.Sleep(time.Millisecond)
		left(20, 15)
		time.Sleep(30*24*time.Hour - time.Millisecond)
		left(20, 15)
		time.Sleep(time.Millisecond)
		left(20, 20)
	})
}

func TestASettlementGoesByTheRulesInForce(t *testing.T) {
	clock, rule := newTestClock(), perAddress
	rules := mustRules(t, rule)
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: rules, Now: clock.Now})
	who := ratelimit.Subject{IP: "192.0.2.1"}
	c, _ := reserve(t, m, "a", who)
	rule.Amount = 1000
	if err := rules.Replace([]ratelimit.Rule{rule}); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Hour / 2)
	settle(t, m, c)
	levels, err := m.Peek(t.Context(), &who)
	if err != nil || levels[0].Left != 509 {
		t.Fatalf("levels %+v, error %v; want 9 and half an hour's 500", levels, err)
	}
}

func TestASweepDoesNotKeepALimiterAlive(t *testing.T) {
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: mustRules(t, perAddress)})
	reserve(t, m, "a", ratelimit.Subject{IP: "x"})
	gone := weak.Make(m)
	m = nil
	for range 5 {
		if runtime.GC(); gone.Value() == nil {
			return
		}
	}
	t.Fatal("the limiter is still there")
}

// peeker asks the limiter while it posts.
type peeker struct{ m *ratelimit.Memory }

func (p *peeker) Post(*ledger.Row) {
	_, _ = p.m.Peek(context.Background(), &ratelimit.Subject{IP: "x"})
}

func TestABookMayAskTheLimiter(t *testing.T) {
	b := new(peeker)
	b.m = ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: mustRules(t, perAddress), Book: b})
	c, _ := reserve(t, b.m, "a", ratelimit.Subject{IP: "x"})
	settle(t, b.m, c)
}

func TestRulesChangeWhileCallsRun(t *testing.T) {
	rules := mustRules(t, perKey(5)...)
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: rules})
	var all sync.WaitGroup
	stop := make(chan struct{})
	all.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				if err := rules.Replace(perKey(n % 6)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var callers sync.WaitGroup
	for g := range 4 {
		callers.Go(func() {
			for i := range 2000 {
				c, _ := reserve(t, m, fmt.Sprint(g, "/", i), benchWho)
				settle(t, m, c)
			}
		})
	}
	callers.Wait()
	close(stop)
	all.Wait()
	if err := rules.Replace(perKey(5)); err != nil {
		t.Fatal(err)
	}
	levels, err := m.Peek(t.Context(), &benchWho)
	if err != nil || len(levels) != 5 || levels[3].Left != levels[3].Rule.Amount {
		t.Fatalf("levels %+v, error %v; want every place free", levels, err)
	}
}

func TestReserveAllocatesItsAnswerOnly(t *testing.T) {
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: mustRules(t, perKey(2)...)})
	calls := benchCalls()
	for i := range 100 {
		c := calls[i]
		reserve(t, m, c.ID, benchWho)
		settle(t, m, &c)
	}
	i := 100
	if n := testing.AllocsPerRun(1000, func() {
		c := &calls[i]
		i++
		if _, err := m.Reserve(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		if err := m.Settle(context.Background(), &ratelimit.Settlement{Call: c, Used: c.Want}); err != nil {
			t.Fatal(err)
		}
	}); n > 2 { // the levels; the settlement
		t.Fatalf("%v allocations of a reservation and its settlement", n)
	}
}
