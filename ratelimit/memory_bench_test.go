package ratelimit_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"sluice/ratelimit"
)

// perKey are n limits of each key that never deny.
func perKey(n int) []ratelimit.Rule {
	rules := []ratelimit.Rule{
		{ID: "tpm", Scope: ratelimit.Key, Dim: ratelimit.Tokens, Amount: 1e9, Per: ratelimit.Second},
		{ID: "rpm", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 1e9, Per: ratelimit.Second},
		{ID: "org", Scope: ratelimit.Org, Dim: ratelimit.Tokens, Amount: 1e9, Per: ratelimit.Second},
		{ID: "streams", Scope: ratelimit.User, Dim: ratelimit.Streams, Amount: 1e6},
		{ID: "money", Scope: ratelimit.Team, Dim: ratelimit.Money, Amount: 4e15, Per: ratelimit.CalendarMonth, Hard: true},
	}
	return rules[:n]
}

var benchWho = ratelimit.Subject{Org: "acme", Team: "blue", User: "ann", Key: "key-1234", Model: "gpt-4o-mini", IP: "192.0.2.1"}

// benchCalls are enough that their settled ids are forgotten before they come again.
func benchCalls() []ratelimit.Call {
	calls := make([]ratelimit.Call, 1<<12)
	for i := range calls {
		calls[i] = ratelimit.Call{ID: fmt.Sprintf("chatcmpl-%016x", i), Who: benchWho,
			Want: ratelimit.Cost{Requests: 1, Input: 10, Output: 100, Money: 5000}}
	}
	return calls
}

// benchPairs reserves and settles, over and over; one op is the pair.
func benchPairs(b *testing.B, m *ratelimit.Memory, calls []ratelimit.Call) {
	ctx := context.Background()
	b.ReportAllocs()
	var next atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c := &calls[next.Add(1)%int64(len(calls))]
			if _, err := m.Reserve(ctx, c); err != nil {
				b.Error(err)
				return
			}
			if err := m.Settle(ctx, &ratelimit.Settlement{Call: c, Used: c.Want}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkReserve is one decision, with 0 to 5 buckets. Settling is not in the time.
func BenchmarkReserve(b *testing.B) {
	calls := benchCalls()
	for _, n := range []int{0, 1, 2, 5} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			ctx := context.Background()
			m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: mustRules(b, perKey(n)...), Settled: 1 << 10})
			b.ReportAllocs()
			const batch = 1 << 9
			for i := 0; b.Loop(); i++ {
				c := &calls[i%len(calls)]
				if _, err := m.Reserve(ctx, c); err != nil {
					b.Fatal(err)
				}
				if i%batch == batch-1 {
					b.StopTimer()
					for j := i - batch + 1; j <= i; j++ {
						c := &calls[j%len(calls)]
						if err := m.Settle(ctx, &ratelimit.Settlement{Call: c, Used: c.Want}); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
				}
			}
		})
	}
}

// BenchmarkPair is a reservation and its settlement.
func BenchmarkPair(b *testing.B) {
	calls := benchCalls()
	for _, n := range []int{1, 2, 5} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.SetParallelism(1)
			m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: mustRules(b, perKey(n)...), Settled: 1 << 10})
			benchPairs(b, m, calls)
		})
	}
}

// BenchmarkNewName is a decision about a name that nobody has seen, while the rule has as
// many as it may have.
func BenchmarkNewName(b *testing.B) {
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: mustRules(b, perAddress), MaxNames: 1 << 12, Settled: 1 << 10})
	names := make([]string, 1<<14)
	for i := range names {
		names[i] = fmt.Sprintf("192.168.%d.%d", i>>8, i&255)
	}
	calls := benchCalls()
	ctx := context.Background()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c := &calls[i%len(calls)]
		c.Who = ratelimit.Subject{IP: names[i%len(names)]}
		if _, err := m.Reserve(ctx, c); err != nil {
			b.Fatal(err)
		}
		if err := m.Settle(ctx, &ratelimit.Settlement{Call: c, Used: c.Want}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDenied is a decision against a call.
func BenchmarkDenied(b *testing.B) {
	rules := mustRules(b, ratelimit.Rule{ID: "rpd", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 1, Per: ratelimit.Day})
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: rules})
	ctx := context.Background()
	c := &ratelimit.Call{ID: "a", Who: benchWho, Want: ratelimit.Cost{Requests: 1}}
	if _, err := m.Reserve(ctx, c); err != nil {
		b.Fatal(err)
	}
	c = &ratelimit.Call{ID: "b", Who: benchWho, Want: ratelimit.Cost{Requests: 1}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Reserve(ctx, c); err == nil {
			b.Fatal("granted")
		}
	}
}

// BenchmarkMatch is what finding 2 buckets costs among many rules of other models and scopes.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{2, 10, 50} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			declared := perKey(2)
			for i := len(declared); i < n; i++ {
				r := declared[i%2]
				r.ID, r.Models = fmt.Sprint("r", i), []string{fmt.Sprintf("model-%d-*", i)}
				declared = append(declared, r)
			}
			rules := mustRules(b, declared...)
			var some [8]ratelimit.Bucket
			b.ReportAllocs()
			for b.Loop() {
				if len(rules.Match(some[:0], &benchWho)) != 2 {
					b.Fatal("no match")
				}
			}
		})
	}
}
