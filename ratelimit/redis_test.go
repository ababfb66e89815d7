package ratelimit_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest/redistest"
)

func rules(t testing.TB, declared ...ratelimit.Rule) *ratelimit.Rules {
	t.Helper()
	r, err := ratelimit.NewRules(declared)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// patient is a timeout that a busy machine keeps too. What Timeout does has tests of its own.
const patient = 5 * time.Second

func newRedis(t testing.TB, s *redistest.Server, o ratelimit.RedisOptions) *ratelimit.Redis {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = patient
	}
	l := ratelimit.NewRedis(s.Client(ratelimit.TuneRedis), o)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func redisCall(id string, input, output int64) *ratelimit.Call {
	return &ratelimit.Call{
		ID:   id,
		Who:  ratelimit.Subject{Org: "acme", User: "ann", Key: "k1", Model: "m", IP: "192.0.2.7"},
		Want: ratelimit.Cost{Requests: 1, Input: input, Output: output},
		Row:  ledger.Row{ID: id, Org: "acme", Key: "k1", Model: "m"},
	}
}

func redisSettle(t testing.TB, l ratelimit.Limiter, c *ratelimit.Call, used ratelimit.Cost) {
	t.Helper()
	row := c.Row
	row.Requests, row.Input, row.Output, row.End = used.Requests, used.Input, used.Output, "complete"
	if err := l.Settle(t.Context(), &ratelimit.Settlement{Call: c, Used: used, Row: row}); err != nil {
		t.Fatal(err)
	}
}

func left(t testing.TB, l ratelimit.Limiter, who ratelimit.Subject) []int64 {
	t.Helper()
	levels, err := l.Peek(t.Context(), &who)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]int64, len(levels))
	for i, v := range levels {
		out[i] = v.Left
	}
	return out
}

func equal(t testing.TB, what string, got []int64, want ...int64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: %v, want %v", what, got, want)
		}
	}
}

var fiveRules = []ratelimit.Rule{
	{ID: "rpd", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 100, Per: ratelimit.Day},
	{ID: "tpd", Scope: ratelimit.Org, Dim: ratelimit.Tokens, Amount: 1000, Per: ratelimit.Day},
	{ID: "usd", Scope: ratelimit.Team, Dim: ratelimit.Money, Amount: 1e9, Per: ratelimit.CalendarMonth, Hard: true},
	{ID: "out", Scope: ratelimit.User, Dim: ratelimit.Output, Amount: 500, Per: ratelimit.Day},
	{ID: "par", Scope: ratelimit.Key, Dim: ratelimit.Streams, Amount: 2},
	{ID: "ip", Scope: ratelimit.IP, Dim: ratelimit.Requests, Amount: 50, Per: ratelimit.Day},
}

func TestRedisReserveAndSettle(t *testing.T) {
	s := redistest.Single(t)
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t, fiveRules...)})
	who := redisCall("", 0, 0).Who
	equal(t, "at first", left(t, l, who), 100, 1000, 500, 2, 50)

	a := redisCall("a", 100, 300)
	g, err := l.Reserve(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]int64, 0)
	for _, v := range g.Levels {
		got = append(got, v.Left)
	}
	equal(t, "granted", got, 99, 600, 200, 1, 49)
	if _, err := l.Reserve(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	equal(t, "the same id again", left(t, l, who), 99, 600, 200, 1, 49)

	var d *ratelimit.Denied
	if _, err = l.Reserve(t.Context(), redisCall("b", 100, 300)); !errors.As(err, &d) {
		t.Fatal(err)
	}
	if len(d.Over) != 1 || d.Over[0].Rule.ID != "out" || d.Over[0].Need != 300 || d.Over[0].Left != 200 || d.RetryAfter <= 0 {
		t.Fatalf("%+v", d)
	}
	equal(t, "after a denial", left(t, l, who), 99, 600, 200, 1, 49)

	redisSettle(t, l, a, ratelimit.Cost{Requests: 1, Input: 100, Output: 700})
	redisSettle(t, l, a, ratelimit.Cost{})
	equal(t, "settled once", left(t, l, who), 99, 200, -200, 2, 49)
	if s := l.State(); s.Open != 0 {
		t.Fatalf("%+v", s)
	}
	equal(t, "keys", []int64{keysLike(t, s, "*:open"), keysLike(t, s, "*:c:*")}, 0, 0)
}

func keysLike(t testing.TB, s *redistest.Server, pattern string) int64 {
	t.Helper()
	keys, err := s.Client(nil).Keys(context.Background(), pattern).Result()
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(keys))
}

// One gateway of 64 had a name that told Redis that it leaves, and was not counted.
func TestRedisCountsGatewaysOfAnyName(t *testing.T) {
	for range 10_000 {
		if name := ratelimit.NewGatewayName(); len(name) != 8 || strings.Contains(name, "-") {
			t.Fatalf("a gateway is called %q", name)
		}
	}
}
