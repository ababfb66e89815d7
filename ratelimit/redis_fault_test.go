package ratelimit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest/redistest"
)

// quick are options under which a gateway is taken for dead after about a second.
func quick(r *ratelimit.Rules) ratelimit.RedisOptions {
	return ratelimit.RedisOptions{Rules: r, Lease: 600 * time.Millisecond}
}

func redisReserve(t testing.TB, l ratelimit.Limiter, c *ratelimit.Call) {
	t.Helper()
	if _, err := l.Reserve(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func deniedBy(t testing.TB, l ratelimit.Limiter, c *ratelimit.Call) *ratelimit.Denied {
	t.Helper()
	var d *ratelimit.Denied
	if _, err := l.Reserve(t.Context(), c); !errors.As(err, &d) {
		t.Fatalf("%v, want it denied", err)
	}
	return d
}

// eventually waits for what other goroutines and Redis do.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen: " + what)
		}
	}
}

func rowsOf(t testing.TB, s *redistest.Server, org string) []ledger.Row {
	t.Helper()
	page, err := ledger.NewRedis(s.Client(nil), "sluice:", ledger.Retention{}).
		Rows(context.Background(), ledger.Filter{Match: ledger.Match{Org: org}, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return page.Rows
}

func TestRedisScriptsAreSentAgainWhenRedisForgetsThem(t *testing.T) {
	s := redistest.Single(t)
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t, fiveRules...)})
	for _, id := range []string{"a", "b"} {
		c := redisCall(id, 10, 10)
		s.Must("SCRIPT", "FLUSH")
		redisReserve(t, l, c)
		s.Must("SCRIPT", "FLUSH")
		redisSettle(t, l, c, ratelimit.Cost{Requests: 1, Input: 10, Output: 5})
	}
	equal(t, "left", left(t, l, redisCall("", 0, 0).Who), 98, 970, 490, 2, 48)
}

// proxy stands between a client and Redis and loses replies.
type proxy struct {
	addr string
	lose atomic.Int32 // how many replies are lost from now on
	mute bool         // the connection stays open
}

func newProxy(t testing.TB, to string, mute bool) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), mute: mute}
	var open sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); open.Wait() })
	open.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			open.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
			open.Go(func() { p.replies(client, server) })
		}
	})
	return p
}

func (p *proxy) replies(client, server net.Conn) {
	defer client.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if p.lose.Load() > 0 && p.lose.Add(-1) >= 0 {
			if p.mute {
				continue
			}
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// Row 40 of the fault matrix: RESERVE ran, and its reply is lost.
func TestRedisChargesOnceWhenAReplyIsLost(t *testing.T) {
	t.Parallel()
	for name, mute := range map[string]bool{"with its connection": false, "in silence": true} {
		t.Run(name, func(t *testing.T) {
			s := redistest.Single(t)
			p := newProxy(t, s.Addr, mute)
			client := redistest.ClientFor(t, p.addr, ratelimit.TuneRedis)
			l := ratelimit.NewRedis(client, ratelimit.RedisOptions{Rules: rules(t, fiveRules...), Timeout: 3 * time.Second})
			t.Cleanup(func() { _ = l.Close() })
			who := redisCall("", 0, 0).Who
			first := redisCall("first", 0, 0)
			first.Who = ratelimit.Subject{Org: "other", Key: "k"}
			redisReserve(t, l, first) // Redis knows the scripts from here on
			redisSettle(t, l, first, ratelimit.Cost{})
			c := redisCall("a", 10, 10)
			p.lose.Store(1)
			redisReserve(t, l, c)
			equal(t, "reserved", left(t, l, who), 99, 980, 490, 1, 49)
			p.lose.Store(1)
			redisSettle(t, l, c, ratelimit.Cost{Requests: 1, Input: 10, Output: 5})
			equal(t, "settled", left(t, l, who), 99, 985, 495, 2, 49)
			if n := len(rowsOf(t, s, "acme")); n != 1 {
				t.Fatalf("%d rows", n)
			}
		})
	}
}

func TestRedisUndoesWhatNobodyWaitedFor(t *testing.T) {
	s := redistest.Single(t)
	set := rules(t, fiveRules...)
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: set, Timeout: 50 * time.Millisecond, Lease: 3 * time.Second})
	who := redisCall("", 0, 0).Who
	other := newRedis(t, s, ratelimit.RedisOptions{Rules: set})
	equal(t, "at first", left(t, other, who), 100, 1000, 500, 2, 50)
	s.Must("CLIENT", "PAUSE", "300", "ALL")
	begin := time.Now()
	_, err := l.Reserve(t.Context(), redisCall("a", 10, 10))
	if !errors.Is(err, ratelimit.ErrUnavailable) {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 250*time.Millisecond {
		t.Errorf("it took %v to give up", took)
	}
	eventually(t, "everything is given back", func() bool {
		v := left(t, other, who)
		return l.State().Open == 0 && v[0] == 100 && v[1] == 1000 && v[2] == 500 && v[3] == 2 && v[4] == 50
	})
}

func TestRedisSettlesForAGatewayThatDied(t *testing.T) {
	s := redistest.Single(t)
	set := rules(t, fiveRules...)
	dead, alive := newRedis(t, s, quick(set)), newRedis(t, s, quick(set))
	who := redisCall("", 0, 0).Who
	told, silent, shared := redisCall("told", 100, 300), redisCall("silent", 10, 10), redisCall("shared", 1, 1)
	told.Used = func() ratelimit.Cost { return ratelimit.Cost{Requests: 1, Input: 100, Output: 42} }
	shared.Who, shared.Row.Org = ratelimit.Subject{Org: "elsewhere", IP: who.IP}, "elsewhere"
	living := redisCall("living", 0, 20)
	living.Who.Key, living.Who.User = "k2", "bob"
	for _, c := range []*ratelimit.Call{told, silent, shared} {
		redisReserve(t, dead, c)
	}
	redisReserve(t, alive, living)
	dead.RenewAll(t.Context()) // tells what was used
	_ = dead.Close()
	eventually(t, "they are settled", func() bool { return alive.State().Swept >= 5 })
	equal(t, "left", left(t, alive, who), 99, 838, 458, 2, 48)
	eventually(t, "the row of the shared one is posted", func() bool { return len(rowsOf(t, s, "elsewhere")) == 1 })
	lost := map[string]int64{}
	for _, row := range append(rowsOf(t, s, "acme"), rowsOf(t, s, "elsewhere")...) {
		if row.End != "lost" || !row.Estimated {
			t.Errorf("%+v", row)
		}
		lost[row.ID] = row.Output
	}
	if len(lost) != 3 || lost["told"] != 42 || lost["silent"] != 0 {
		t.Fatalf("rows %v", lost)
	}
	for _, output := range []int64{400, 7} { // it lived after all; the first settlement counts
		redisSettle(t, alive, told, ratelimit.Cost{Requests: 1, Output: output})
		redisSettle(t, alive, shared, ratelimit.Cost{Requests: 1, Output: output})
	}
	equal(t, "left after all", left(t, alive, who), 99, 580, 100, 2, 47)
	for org, want := range map[string][2]int64{"acme": {1, 400}, "elsewhere": {1, 400}} {
		var requests, output int64
		for _, row := range rowsOf(t, s, org) {
			requests, output = requests+row.Requests, output+row.Output
		}
		if requests != want[0] || output != want[1] {
			t.Errorf("rows of %s have %d requests and %d tokens, want %v", org, requests, output, want)
		}
	}
	redisSettle(t, alive, living, ratelimit.Cost{Requests: 1, Output: 20})
	equal(t, "keys", []int64{keysLike(t, s, "*:open"), keysLike(t, s, "*:c:*"), keysLike(t, s, "*:owed"), keysLike(t, s, "*:w:*")}, 0, 0, 0, 0)
	if n := alive.State().Replicas; n != 1 {
		t.Errorf("%d replicas", n)
	}
}

// Row 45: an hour forward takes no living call for dead; an hour back locks nobody out.
func TestRedisClockJumps(t *testing.T) {
	s := redistest.Single(t)
	perMinute := ratelimit.Rule{ID: "rpm", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 60, Per: ratelimit.Minute}
	set := rules(t, perMinute, ratelimit.Rule{ID: "par", Scope: ratelimit.Key, Dim: ratelimit.Streams, Amount: 2})
	now := time.Date(2026, 10, 25, 0, 59, 0, 0, time.UTC)
	setClock(t, s, now)
	l := newRedis(t, s, ratelimit.WithClock(ratelimit.RedisOptions{Rules: set, Lease: 3 * time.Second}, keyClock))
	c := redisCall("a", 10, 10)
	c.Want.Requests = 60
	redisReserve(t, l, c)
	for _, jump := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
		now = now.Add(jump)
		setClock(t, s, now)
		l.Round(t.Context())
		l.RenewAll(t.Context())
		l.Round(t.Context())
		if v := left(t, l, c.Who); v[0] > 60 || v[1] != 1 {
			t.Fatalf("after %v: %v left", jump, v)
		}
	}
	// What was touched an hour ahead is further away than two minutes: it does not wait.
	now = now.Add(-time.Hour)
	setClock(t, s, now)
	l.RenewAll(t.Context())
	redisReserve(t, l, redisCall("b", 1, 1))
	if s := l.State(); s.Lost != 0 || s.Swept != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestRedisGivesBackWhatASharedLimitDenies(t *testing.T) {
	s := redistest.Single(t)
	set := rules(t, append([]ratelimit.Rule{{ID: "all", Scope: ratelimit.Global, Dim: ratelimit.Requests, Amount: 1, Per: ratelimit.Day}}, fiveRules...)...)
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: set})
	a := redisCall("a", 10, 10)
	redisReserve(t, l, a)
	b := redisCall("b", 10, 10)
	b.Who.Key, b.Who.User = "k2", "bob"
	if d := deniedBy(t, l, b); len(d.Over) != 1 || d.Over[0].Rule.ID != "all" {
		t.Fatalf("%+v", d)
	}
	equal(t, "of all", left(t, l, b.Who), 0, 100, 980, 500, 2, 49)
	if l.State().Open != 1 {
		t.Fatalf("%+v", l.State())
	}
	redisSettle(t, l, a, ratelimit.Cost{})
	redisReserve(t, l, b) // the same id
	equal(t, "of all", left(t, l, b.Who), 0, 99, 980, 490, 1, 49)
}

func TestRedisNamesForgeNoKeys(t *testing.T) {
	s := redistest.Single(t)
	set := rules(t,
		ratelimit.Rule{ID: "k", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 5, Per: ratelimit.Day},
		ratelimit.Rule{ID: "km", Scope: ratelimit.KeyModel, Dim: ratelimit.Requests, Amount: 5, Per: ratelimit.Day})
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: set})
	seen := map[string]bool{}
	for i, who := range []ratelimit.Subject{
		{Org: "a", Key: "x", Model: "y"}, {Org: "a", Key: "x/y"}, {Org: "a", Key: "x:y"}, {Org: "a", Key: "x\ny"},
		{Org: "a}:b:k:x{", Key: "x"}, {Org: "", Key: "{o:a}:b:k:x"}, {Org: "a", Key: "x", Model: "y/z"}, {Org: "a", Key: "x%2Fy", Model: "z"},
		{Org: "a", Key: strings.Repeat("\x00", 300)},
	} {
		c := &ratelimit.Call{ID: "a}:b{\n" + string(rune('a'+i)), Who: who, Want: ratelimit.Cost{Requests: 1}}
		redisReserve(t, l, c)
		for _, v := range left(t, l, who) {
			seen[who.Org+"\xff"+who.Key] = true
			if v != 4 && (who.Key != "x" || who.Org != "a") {
				t.Errorf("%+v shares a bucket: %d left", who, v)
			}
		}
		redisSettle(t, l, c, ratelimit.Cost{Requests: 1})
	}
	if len(seen) < 8 {
		t.Fatal(seen)
	}
}

func TestRedisWarnsOfEviction(t *testing.T) {
	s := redistest.Single(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	said := &lockedBuffer{}
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t), Log: slog.New(slog.NewTextHandler(said, nil))})
	eventually(t, "it is known", func() bool { return l.State().Evicts == "allkeys-lru" })
	eventually(t, "it is told", func() bool { return strings.Contains(said.String(), "maxmemory_policy=allkeys-lru") })

	calm := newRedis(t, redistest.Single(t), ratelimit.RedisOptions{Rules: rules(t)})
	eventually(t, "a round", func() bool { return calm.State().Replicas == 1 })
	if calm.State().Evicts != "" {
		t.Fatal(calm.State())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
