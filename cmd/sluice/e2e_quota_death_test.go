package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"sluice/providers/providertest/wall"
	"sluice/ratelimit/ratelimittest/redistest"
)

// shortLease makes gateways take each other for dead soon.
func shortLease(addr, more string) string {
	return overRedis(addr, "lease = \"2s\"\n"+more)
}

// awaitTold waits until Redis knows that the one open call has used so much.
func awaitTold(t testing.TB, s *redistest.Server, input, output int64) {
	t.Helper()
	s.Await("know what an answer has used", func() bool {
		key, err := s.Do("KEYS", "*:r:*")
		if err != nil || key == "" || strings.ContainsAny(key, "\n") {
			return false
		}
		used, err := s.Do("GETRANGE", key, "13", "28") // input and output of the cost used
		return err == nil && len(used) == 16 && int64(binary.LittleEndian.Uint64([]byte(used))) == input &&
			int64(binary.LittleEndian.Uint64([]byte(used[8:]))) == output
	})
}

// TestQuotaGatewayKilled: what a gateway had delivered before kill -9 is paid, once, and what
// its answer held is free again.
func TestQuotaGatewayKilled(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	base, w := wall.Start(t)
	config := limited(base, shortLease(server.Addr, `
[[prices]]
models = ["*"]
input = 1_000
output = 2_000
[[limits]]
id = "l"
scope = "key"
requests_per_day = 10
usd_per_day = 1
concurrent = 1
`))
	dead, heir := bootProcess(t, config), boot(t, config)
	res := dead.openStream(t.Context(), t, chatBody(wallModel("dies", "stall=7,usage=every"), true, `,"max_tokens":16`))
	defer res.Body.Close()
	awaitCall(t, w, "dies", func(q wall.Request) bool { return q.Tokens == 7 })
	awaitTold(t, server, 3, 7)
	if a := heir.chat(t, wallModel("early", ""), `,"max_tokens":16`); a.status != http.StatusTooManyRequests {
		t.Errorf("the place is taken, and a second answer got %d", a.status)
	}
	dead.kill(t)
	awaitCall(t, w, "dies", func(q wall.Request) bool { return q.End == wall.ClientGone })
	heir.awaitLeft(t, "l.concurrent", "1")
	heir.awaitLeft(t, "l.usd_per_day", "0.983") // three of the prompt, seven of the answer
	heir.awaitLeft(t, "l.requests_per_day", "9")
	if d := heir.usage(t, "").Data; len(d) != 1 || d[0].Calls != 1 || d[0].Requests != 1 || d[0].Input != 3 || d[0].Output != 7 || d[0].Estimated != 1 {
		t.Errorf("recorded: %+v", d)
	}
	if a := heir.chat(t, wallModel("late", ""), `,"max_tokens":16`); a.status != http.StatusOK {
		t.Errorf("%d: %s", a.status, a.body)
	}
	if n := heir.metric(t, "gateway_redis_swept_calls"); n == 0 {
		t.Error("no swept call is counted")
	}
}

// TestQuotaGatewayWoken: a gateway that was stopped for longer than its leases last, and wakes. An
// answer whose place nobody has taken goes on and has it again; one whose place is another's
// ends, and says so; rates end none. Each is paid once.
func TestQuotaGatewayWoken(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	base, open := gated(t)
	config := limited(base, shortLease(server.Addr, dailyLimits))
	for _, name := range []string{"rates", "free", "taken"} {
		config += fmt.Sprintf("[[keys]]\nname = %[1]q\nkey = \"sk-%[1]s\"\n", name)
		if name != "rates" {
			config += "limits = [{ concurrent = 1 }]\n"
		}
	}
	asleep, awake := bootProcess(t, config), boot(t, config)
	as := func(g *gatewayUnderTest, name string) *gatewayUnderTest { g.Key = "sk-" + name; return g }
	answers := map[string]*held{}
	for _, name := range []string{"rates", "free", "taken"} {
		answers[name] = hold(t, as(asleep, name), name)
	}
	asleep.Signal(t, syscall.SIGSTOP)
	for _, name := range []string{"free", "taken"} {
		as(awake, name).awaitLeft(t, "key.concurrent", "1")
	}
	awake.eventually(t, "all are taken for dead", func() bool { return len(as(awake, "rates").usage(t, "").Data) == 1 })
	thief := hold(t, as(awake, "taken"), "thief")
	asleep.Signal(t, syscall.SIGCONT)

	if s := answers["taken"].rest(t); len(s.errors) != 1 || s.errors[0].Code != "place_lost" || s.done {
		t.Errorf("the place was given away, and its first holder ended with %+v", s)
	}
	as(awake, "free").awaitLeft(t, "key.concurrent", "0")
	open()
	for name, h := range map[string]*held{"rates": answers["rates"], "free": answers["free"], "thief": thief} {
		if s := h.rest(t); !s.done || len(s.errors) > 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	for name, calls := range map[string]int64{"rates": 1, "free": 1, "taken": 2} {
		as(awake, name)
		if name != "rates" {
			awake.awaitLeft(t, "key.concurrent", "1")
		}
		awake.awaitLeft(t, "day.requests_per_day", fmt.Sprint(100-calls))
		d := awake.usage(t, "?group_by=day").Data
		left := awake.left(t, "day.tokens_per_day")
		if len(d) != 1 || d[0].Calls != calls || d[0].Requests != calls || left != fmt.Sprint(10_000-d[0].Input-d[0].Output) || d[0].Input != calls*promptEstimate {
			t.Errorf("%s: %s tokens are left, recorded is %+v", name, left, d)
		}
	}
	server.Await("hold nothing any more", func() bool {
		for _, keys := range []string{"*:open", "*:c:*"} {
			if found, err := server.Do("KEYS", keys); err != nil || found != "" {
				return false
			}
		}
		return true
	})
}

// TestQuotaShares: without Redis each gateway has its part of a limit, of as many parts as
// redis.gateways says, and tells it so; what they let pass together is charged when Redis is back.
func TestQuotaShares(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t, "--appendonly", "yes", "--appendfsync", "always")
	base, _ := wall.Start(t)
	config := limited(base, overRedis(server.Addr, "gateways = 4\n[[limits]]\nid = \"l\"\nscope = \"key\"\nrequests_per_day = 40\n"+
		"[[limits]]\nid = \"places\"\nscope = \"key\"\nconcurrent = 8\n"))
	both := []*gatewayUnderTest{bootProcess(t, config), bootProcess(t, config)}
	for _, g := range both {
		if left := g.left(t, "l"); left != "40" { // as Redis tells
			t.Fatalf("%s are left", left)
		}
	}
	server.Kill()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	for _, g := range both {
		for range 2 {
			g.openStream(ctx, t, chatBody(wallModel("stays", "stall=1"), true, ""))
		}
		if a := g.chat(t, wallModel("third", ""), ""); a.status != http.StatusTooManyRequests || !strings.Contains(a.body, "2 answers at the same time") {
			t.Errorf("the third answer at a gateway whose share is two: %d, %s", a.status, a.body)
		}
	}
	leave()
	for _, g := range both {
		g.idle(t)
		for i := range 12 {
			a := g.chat(t, wallModel("share", ""), "")
			if passes := i < 8; (a.status == http.StatusOK) != passes || a.header.Get("X-Ratelimit-Limit-Requests") != "10" {
				t.Errorf("call %d of a share of 10: %d, of %s", i+2, a.status, a.header.Get("X-Ratelimit-Limit-Requests"))
			}
		}
	}
	server.Start()
	for _, g := range both {
		g.awaitSteady(t)
	}
	for _, g := range both {
		g.awaitLeft(t, "l", "20")
		g.awaitLeft(t, "places", "8")
	}
}
