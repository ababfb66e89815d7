package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest/redistest"
)

// pairRules let everything pass, so that what counts is what is left in the end.
var pairRules = []ratelimit.Rule{
	{ID: "rpd", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 1e9, Per: ratelimit.Day},
	{ID: "tpm", Scope: ratelimit.Org, Dim: ratelimit.Tokens, Amount: 1e9, Per: ratelimit.Second},
	{ID: "par", Scope: ratelimit.Key, Dim: ratelimit.Streams, Amount: 1e6},
	{ID: "ip", Scope: ratelimit.IP, Dim: ratelimit.Requests, Amount: 1e9, Per: ratelimit.Second},
}

// pairs makes so many calls: some are settled twice, some by another gateway, some never,
// and replies are lost; trouble may stop and start things meanwhile.
type pairs struct {
	t     *testing.T
	s     *redistest.Server
	truth sync.Map // id -> output tokens of calls that were settled
	lost  sync.Map // ids of calls that nobody settles
}

// patientSettle settles until it is acknowledged, as the journal of settlements does.
func (p *pairs) settle(l ratelimit.Limiter, s *ratelimit.Settlement) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := l.Settle(context.Background(), s)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Error(err)
			return
		}
	}
}

func (p *pairs) one(l, other ratelimit.Limiter, id string, r *rand.Rand) {
	c := redisCall(id, r.Int64N(100), r.Int64N(100))
	c.Who.Org, c.Row.Org = "pairs", "pairs"
	c.Used = func() ratelimit.Cost { return ratelimit.Cost{} }
	_, err := l.Reserve(context.Background(), c)
	var d *ratelimit.Denied
	if errors.As(err, &d) {
		p.t.Errorf("%s: %v", id, err)
		return
	}
	if err == nil && r.IntN(50) == 0 {
		p.lost.Store(id, true)
		return
	}
	used := ratelimit.Cost{Requests: 1, Input: c.Want.Input, Output: r.Int64N(300)}
	row := c.Row
	row.Requests, row.Input, row.Output, row.End = 1, used.Input, used.Output, "complete"
	s := &ratelimit.Settlement{Call: c, Used: used, Row: row}
	p.truth.Store(id, used.Output)
	p.settle(l, s)
	if r.IntN(20) == 0 {
		again := *s
		again.Used.Output, again.Row.Output = 1e6, 1e6
		p.settle(other, &again)
	}
}

// check waits until all is quiet and compares the ledger with the truth.
func (p *pairs) check(l *ratelimit.Redis) {
	t := p.t
	t.Helper()
	eventually(t, "nothing is open", func() bool {
		return keysLike(t, p.s, "*:open")+keysLike(t, p.s, "*:c:*")+keysLike(t, p.s, "*:owed") == 0
	})
	want, rows := int64(0), 0
	p.truth.Range(func(_, v any) bool { want += v.(int64); rows++; return true })
	p.lost.Range(func(_, _ any) bool { rows++; return true })
	book := ledger.NewRedis(p.s.Client(nil), "sluice:", ledger.Retention{})
	sums, err := book.Usage(t.Context(), ledger.Query{Match: ledger.Match{Org: "pairs"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(sums) != 1 || sums[0].Output != want || sums[0].Calls != int64(rows) {
		t.Errorf("ledger %+v, want %d rows with %d tokens", sums, rows, want)
	}
	who := redisCall("", 0, 0).Who
	who.Org = "pairs"
	eventually(t, "the buckets are full", func() bool {
		v, err := l.Peek(t.Context(), &who)
		return err == nil && len(v) == 4 && v[1].Left == 1e9 && v[2].Left == 1e6 && v[3].Left == 1e9
	})
	if d := 1e9 - left(t, l, who)[0]; d > int64(rows) { // it flows back in a day
		t.Errorf("%d requests are missing", d)
	}
}

func (p *pairs) run(n int, l, other ratelimit.Limiter, trouble func(done <-chan struct{})) {
	var wg, troubles sync.WaitGroup
	done := make(chan struct{})
	troubles.Go(func() { trouble(done) })
	for worker := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(worker)))
			for i := range n / 16 {
				p.one(l, other, fmt.Sprintf("%d-%d", worker, i), r)
			}
		})
	}
	wg.Wait()
	close(done)
	troubles.Wait()
}

func runPairs(t *testing.T, n int) {
	s := redistest.Single(t, "--appendonly", "yes", "--appendfsync", "always")
	p := &pairs{t: t, s: s}
	way := newProxy(t, s.Addr, false)
	set := rules(t, pairRules...)
	o := ratelimit.RedisOptions{Rules: set, Lease: 3 * time.Second, Timeout: 500 * time.Millisecond, Retention: ledger.Retention{Rows: 1 << 20}}
	l := ratelimit.NewRedis(redistest.ClientFor(t, way.addr, ratelimit.TuneRedis), o)
	other := newRedis(t, s, o)
	p.run(n, l, other, func(done <-chan struct{}) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		kill := time.After(500 * time.Millisecond)
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				way.lose.Store(2)
			case <-kill:
				s.Kill()
				s.Start()
				kill = time.After(3 * time.Second)
			}
		}
	})
	if s := l.State(); s.Reminded > 0 {
		t.Errorf("a Redis that keeps what it acknowledges was told %d times again: %+v", s.Reminded, s)
	}
	_ = l.Close() // what it has not settled is lost
	p.check(other)
}

func TestRedisLedgerIsTheTruth(t *testing.T) {
	t.Parallel()
	runPairs(t, 10_000)
}
