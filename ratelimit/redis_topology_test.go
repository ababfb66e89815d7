package ratelimit_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ratelimittest/redistest"
)

func TestRedisCluster(t *testing.T) {
	nodes := redistest.Cluster(t)
	set := rules(t, fiveRules...)
	o := quick(set)
	o.Timeout = patient
	l := ratelimit.NewRedis(nodes.Client(ratelimit.TuneRedis), o)
	t.Cleanup(func() { _ = l.Close() })
	who := redisCall("", 0, 0).Who
	orgs := []string{"acme", "a", "b", "c", "d", "e"}
	for _, org := range orgs {
		c := redisCall("x-"+org, 10, 10)
		c.Who.Org = org
		redisReserve(t, l, c)
		redisSettle(t, l, c, ratelimit.Cost{Requests: 1, Input: 10, Output: 5})
	}
	equal(t, "left", left(t, l, who), 99, 985, 495, 2, 44)

	open := redisCall("open", 10, 10)
	redisReserve(t, l, open)
	const slot = "sluice:{o:acme}"
	from := nodes.Owner(slot)
	to := nodes[0]
	if to == from {
		to = nodes[1]
	}
	nodes.Move(slot, to) // the client learns of it by MOVED
	equal(t, "left after the move", left(t, l, who), 98, 965, 485, 1, 43)
	redisSettle(t, l, open, ratelimit.Cost{Requests: 1, Input: 10, Output: 10})
	equal(t, "settled after the move", left(t, l, who), 98, 965, 485, 2, 43)

	lost := redisCall("lost", 10, 10)
	redisReserve(t, l, lost)
	_ = l.Close()
	alive := ratelimit.NewRedis(nodes.Client(ratelimit.TuneRedis), o)
	t.Cleanup(func() { _ = alive.Close() })
	eventually(t, "both parts are swept", func() bool { return alive.State().Swept >= 2 })
	equal(t, "left after the sweep", left(t, alive, who), 98, 965, 485, 2, 43)
}

func TestRedisClusterServesWhatIsLeftOfIt(t *testing.T) {
	t.Parallel()
	nodes := redistest.Cluster(t)
	l := ratelimit.NewRedis(nodes.Client(ratelimit.TuneRedis), ratelimit.RedisOptions{Rules: rules(t, fiveRules[:2]...), Timeout: patient})
	t.Cleanup(func() { _ = l.Close() })
	dead := nodes.Owner("sluice:{o:acme}")
	for _, org := range []string{"acme", "a", "b", "c", "d", "e", "f"} {
		c := redisCall("1-"+org, 1, 1)
		c.Who.Org = org
		redisReserve(t, l, c)
	}
	dead.Kill()
	served, refused := 0, 0
	for _, org := range []string{"acme", "a", "b", "c", "d", "e", "f"} {
		c := redisCall("2-"+org, 1, 1)
		c.Who.Org = org
		_, err := l.Reserve(t.Context(), c)
		switch {
		case err == nil:
			served++
		case errors.Is(err, ratelimit.ErrUnavailable):
			refused++
		default:
			t.Fatal(err)
		}
	}
	if served == 0 || refused == 0 {
		t.Fatalf("%d served, %d refused", served, refused)
	}
}

func TestRedisSentinelFailover(t *testing.T) {
	t.Parallel()
	w := redistest.Sentinel(t)
	l := ratelimit.NewRedis(w.Client(ratelimit.TuneRedis), ratelimit.RedisOptions{Rules: rules(t, fiveRules...), Timeout: time.Second, Lease: 6 * time.Second})
	t.Cleanup(func() { _ = l.Close() })
	c := redisCall("a", 10, 10)
	eventually(t, "the first is reserved", func() bool { _, err := l.Reserve(t.Context(), c); return err == nil })
	if w.Primary.Must("WAIT", "1", "5000") != "1" {
		t.Fatal("the replica does not follow")
	}
	w.Primary.Kill()
	eventually(t, "another is reserved", func() bool { _, err := l.Reserve(t.Context(), redisCall("b", 10, 10)); return err == nil })
	redisSettle(t, l, c, ratelimit.Cost{Requests: 1, Input: 10, Output: 10})
	eventually(t, "unsure reservations are undone", func() bool { return l.State().Open == 1 })
	equal(t, "left", left(t, l, c.Who), 98, 960, 480, 1, 48)
}

func TestRedisReplicaIsNoStore(t *testing.T) {
	primary := redistest.Single(t)
	host, port, _ := net.SplitHostPort(primary.Addr)
	s := redistest.Single(t, "--replicaof", host+" "+port)
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t, fiveRules...)})
	if _, err := l.Reserve(t.Context(), redisCall("a", 10, 10)); !errors.Is(err, ratelimit.ErrUnavailable) || !strings.Contains(err.Error(), "READONLY") {
		t.Fatalf("%v, want READONLY", err)
	}
	s.Must("REPLICAOF", "NO", "ONE")
	redisReserve(t, l, redisCall("a", 10, 10))
	equal(t, "left", left(t, l, redisCall("", 0, 0).Who), 99, 980, 490, 1, 49)
}

func TestRedisRestarts(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		left []int64 // after a is settled and b is reserved and settled
		rows int
	}{
		"empty":    {nil, []int64{98, 970, 490, 2, 48}, 2}, // a is unknown, and charged all the same
		"with AOF": {[]string{"--appendonly", "yes", "--appendfsync", "always"}, []int64{98, 970, 490, 2, 48}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := redistest.Single(t, c.args...)
			l := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t, fiveRules...), Timeout: time.Second})
			a, b := redisCall("a", 10, 10), redisCall("b", 10, 10)
			redisReserve(t, l, a)
			s.Kill()
			if _, err := l.Reserve(t.Context(), redisCall("during", 1, 1)); !errors.Is(err, ratelimit.ErrUnavailable) {
				t.Fatal(err)
			}
			s.Start()
			eventually(t, "it serves again", func() bool { _, err := l.Peek(t.Context(), &a.Who); return err == nil })
			used := ratelimit.Cost{Requests: 1, Input: 10, Output: 5}
			redisSettle(t, l, a, used)
			redisReserve(t, l, b)
			redisSettle(t, l, b, used)
			equal(t, "left", left(t, l, a.Who), c.left...)
			if n := len(rowsOf(t, s, "acme")); n != c.rows {
				t.Errorf("%d rows", n)
			}
		})
	}
}
