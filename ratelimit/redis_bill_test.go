package ratelimit_test

import (
	"context"
	"encoding/binary"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/ratelimit"
	"sluice/ratelimit/ratelimittest/redistest"
)

// toldOutput is how many output tokens Redis knows an open call to have used.
func toldOutput(t testing.TB, client redis.UniversalClient, id string) int64 {
	t.Helper()
	value, err := client.GetRange(context.Background(), "sluice:{o:acme}:r:"+id, 21, 28).Bytes()
	if err != nil || len(value) != 8 {
		t.Fatalf("reservation %s: %q, %v", id, value, err)
	}
	return int64(binary.LittleEndian.Uint64(value))
}

var renewStats = regexp.MustCompile(`cmdstat_expire:calls=(\d+)`)

func renewals(s *redistest.Server) int {
	m := renewStats.FindStringSubmatch(s.Must("INFO", "commandstats"))
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// A gateway that is killed owes what it delivered until shortly before, with the lease that
// gateways have, and however many tokens flow Redis is told of them now and then.
func TestRedisLearnsEarlyWhatIsUsed(t *testing.T) {
	s := redistest.Single(t)
	client := s.Client(nil)
	now := time.Date(2026, 10, 25, 0, 59, 0, 0, time.UTC)
	setClock(t, s, now)
	o := ratelimit.WithClock(ratelimit.RedisOptions{Rules: rules(t, fiveRules...)}, keyClock)
	dead, alive := newRedis(t, s, o), newRedis(t, s, o)
	var output atomic.Int64
	c, idle := redisCall("a", 10, 90), redisCall("idle", 1, 1)
	c.Used = func() ratelimit.Cost {
		n := output.Load()
		if n == 0 {
			return ratelimit.Cost{}
		}
		return ratelimit.Cost{Requests: 1, Input: 10, Output: n}
	}
	idle.Used = func() ratelimit.Cost { return ratelimit.Cost{} }
	redisReserve(t, dead, c)
	redisReserve(t, dead, idle)

	begin := time.Now()
	output.Store(1)
	eventually(t, "the first is told", func() bool { output.Add(1); return toldOutput(t, client, "a") > 0 })
	if took := time.Since(begin); took > 4*time.Second { // half a second on a machine at rest
		t.Errorf("the first use was told after %v", took)
	}
	begin = time.Now()
	first := toldOutput(t, client, "a")
	eventually(t, "more is told", func() bool { output.Add(1); return toldOutput(t, client, "a") > first })
	if took := time.Since(begin); took > 6*time.Second { // two and a half on a machine at rest
		t.Errorf("more was told after %v", took)
	}
	if n := renewals(s); n > 2*3 || n < 2*2 { // in two slots; the third may just have begun
		t.Errorf("%d renewals of one call in two slots that was told of twice", n)
	}
	told := toldOutput(t, client, "a")
	_ = dead.Close()
	for range 2 {
		now = now.Add(time.Minute)
		setClock(t, s, now)
		alive.Round(t.Context())
	}
	eventually(t, "both are swept", func() bool { return len(rowsOf(t, s, "acme")) == 2 })
	for _, row := range rowsOf(t, s, "acme") {
		if want := map[string]int64{"a": told}[row.ID]; row.Output != want || row.End != "lost" || !row.Estimated {
			t.Errorf("%+v, want %d tokens", row, want)
		}
	}
}

// What ended is remembered for an hour, what is open for longer than any trouble.
func TestRedisForgetsEndedCallsAfterAnHour(t *testing.T) {
	s := redistest.Single(t)
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t, fiveRules...)})
	ended, open := redisCall("ended", 1, 1), redisCall("open", 1, 1)
	redisReserve(t, l, ended)
	redisReserve(t, l, open)
	redisSettle(t, l, ended, ratelimit.Cost{Requests: 1})
	redisSettle(t, l, redisCall("stranger", 1, 1), ratelimit.Cost{Requests: 1})
	l.RenewAll(t.Context())
	for key, most := range map[string]int{"{o:acme}:r:ended": 3600, "{shared}:r:ended": 3600, "{o:acme}:r:stranger": 3600, "{o:acme}:r:open": 24 * 3600} {
		if ttl, err := strconv.Atoi(s.Must("TTL", "sluice:"+key)); err != nil || ttl > most || ttl < most-100 {
			t.Errorf("%s lives for %d s, want %d", key, ttl, most)
		}
	}
}

// Calls that were under way when Redis lost its data are charged, once, to buckets that began anew.
func TestRedisChargesCallsThatItForgot(t *testing.T) {
	s := redistest.Single(t)
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t, fiveRules...)})
	used := ratelimit.Cost{Requests: 1, Input: 10, Output: 5}
	for i, renewed := range []bool{false, true} { // whether the gateway has learned of it before
		c := redisCall("call-"+strconv.Itoa(i), 10, 90)
		redisReserve(t, l, c)
		s.Must("FLUSHALL")
		if renewed {
			l.RenewAll(t.Context())
		}
		redisSettle(t, l, c, used)
		redisSettle(t, l, c, used)
		redisSettle(t, l, redisCall("stranger", 1, 1), used)
		equal(t, "left", left(t, l, c.Who), 99, 985, 495, 2, 49)
		if n := l.State().Open; n != 0 {
			t.Errorf("%d open", n)
		}
	}
}
