package ratelimit_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ratelimittest/redistest"
)

const dayBucket, minuteBucket = "sluice:{o:acme}:b:day:acme", "sluice:{o:acme}:b:minute:acme"

var timedRules = []ratelimit.Rule{
	{ID: "day", Scope: ratelimit.Org, Dim: ratelimit.Requests, Amount: 24, Per: ratelimit.Day},
	{ID: "minute", Scope: ratelimit.Org, Dim: ratelimit.Tokens, Amount: 60_000, Per: ratelimit.Minute},
}

// lives is for how much longer Redis keeps a bucket.
func lives(t testing.TB, s *redistest.Server, key string) time.Duration {
	t.Helper()
	ms, err := strconv.ParseInt(s.Must("PTTL", key), 10, 64)
	if err != nil || ms <= 0 {
		t.Fatalf("%s lives for %d ms: %v", key, ms, err)
	}
	return time.Duration(ms) * time.Millisecond
}

// A bucket is kept until it has been full for a minute. Its expiry is set anew only when it comes too early.
func TestRedisBucketsLiveUntilTheyAreFull(t *testing.T) {
	s := redistest.Single(t)
	now := time.UnixMilli(1_790_000_000_123)
	setClock(t, s, now)
	l := newRedis(t, s, ratelimit.WithClock(ratelimit.RedisOptions{Rules: rules(t, timedRules...)}, keyClock))
	for i := range 12 {
		redisReserve(t, l, redisCall(strconv.Itoa(i), 100, 0))
		for key, full := range map[string]time.Duration{
			dayBucket:    time.Duration(i+1)*time.Hour - time.Duration(i)*time.Second,
			minuteBucket: 100 * time.Millisecond,
		} {
			if left := lives(t, s, key); left < full+50*time.Second || left > full+140*time.Second {
				t.Errorf("call %d: %s is full in %v and lives for %v", i, key, full, left)
			}
		}
		now = now.Add(time.Second)
		setClock(t, s, now)
	}
	if n := commandCalls(s, "setrange"); n != 11 {
		t.Errorf("%d writes without an expiry, want 11: all of the bucket of a minute but the first", n)
	}
	s.Must("PEXPIRE", minuteBucket, "30000") // as if the time had gone by for Redis, too
	setClock(t, s, now.Add(time.Minute))
	redisReserve(t, l, redisCall("late", 100, 0))
	if left := lives(t, s, minuteBucket); left < 100*time.Second {
		t.Errorf("a bucket that was to expire within a minute lives for %v", left)
	}
}

// commandCalls is how often a command was called.
func commandCalls(s *redistest.Server, name string) int {
	_, rest, _ := strings.Cut(s.Must("INFO", "commandstats"), "cmdstat_"+name+":calls=")
	digits, _, _ := strings.Cut(rest, ",")
	n, _ := strconv.Atoi(digits)
	return n
}

// Gateways of before wrote buckets without the expiry of their key, and read the first 24 bytes of any.
func TestRedisBucketsOfOlderGateways(t *testing.T) {
	s := redistest.Single(t)
	client := s.Client(nil)
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t, timedRules...)})
	for i := range 3 {
		redisReserve(t, l, redisCall(strconv.Itoa(i), 0, 0))
		value, err := client.Get(t.Context(), dayBucket).Result()
		if err != nil || len(value) != 32 {
			t.Fatalf("%d bytes, %v", len(value), err)
		}
		if err := client.Set(t.Context(), dayBucket, value[:24], 30*time.Second).Err(); err != nil {
			t.Fatal(err)
		}
		equal(t, "left", left(t, l, redisCall("", 0, 0).Who), 23-int64(i), 60_000)
	}
	redisSettle(t, l, redisCall("0", 0, 0), ratelimit.Cost{})
	equal(t, "left", left(t, l, redisCall("", 0, 0).Who), 22, 60_000)
	if left := lives(t, s, dayBucket); left < time.Hour {
		t.Errorf("the bucket lives for %v", left)
	}
}

// Another gateway, with other limits, settles a call in the buckets that it was taken from.
func TestRedisSettlesBucketsOfTheReservation(t *testing.T) {
	s := redistest.Single(t)
	before := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t, fiveRules...)})
	turned := append([]ratelimit.Rule{{ID: "new", Scope: ratelimit.Org, Dim: ratelimit.Tokens, Amount: 10, Per: ratelimit.Day}}, fiveRules[1:]...)
	turned[1], turned[3] = turned[3], turned[1]
	after := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t, turned...)})
	c := redisCall("a", 10, 90)
	redisReserve(t, before, c)
	equal(t, "reserved", left(t, before, c.Who), 99, 900, 410, 1, 49)
	redisSettle(t, after, c, ratelimit.Cost{Requests: 1, Input: 10, Output: 5})
	equal(t, "settled", left(t, before, c.Who), 99, 985, 495, 2, 49)
	levels, err := after.Peek(context.Background(), &c.Who)
	if err != nil || levels[0].Rule.ID != "new" || levels[0].Left != 10 {
		t.Errorf("%+v, %v: the limit that the call was not held to was charged", levels, err)
	}
}
