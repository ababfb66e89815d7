package ratelimit_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest/redistest"
)

// benchRules are five buckets in one hash slot.
var benchRules = []ratelimit.Rule{
	{ID: "rpm", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 1e9, Per: ratelimit.Minute},
	{ID: "tpm", Scope: ratelimit.Org, Dim: ratelimit.Tokens, Amount: 1e9, Per: ratelimit.Minute},
	{ID: "usd", Scope: ratelimit.Org, Dim: ratelimit.Money, Amount: 4e15, Per: ratelimit.CalendarMonth},
	{ID: "out", Scope: ratelimit.User, Dim: ratelimit.Output, Amount: 1e9, Per: ratelimit.Day},
	{ID: "par", Scope: ratelimit.Key, Dim: ratelimit.Streams, Amount: 1e6},
}

func benchCall(id string) *ratelimit.Call {
	return &ratelimit.Call{
		ID:   id,
		Who:  ratelimit.Subject{Org: "acme", User: "ann", Key: "k1", Model: "m"},
		Want: ratelimit.Cost{Requests: 1, Input: 1200, Output: 1024, Money: 7_250_000},
		Row: ledger.Row{ID: id, Start: time.Unix(1.7e9, 0), Total: time.Second, Org: "acme", User: "ann", Key: "k1", Op: "chat",
			Model: "m", Target: "upstream/m", Requests: 1, Input: 1200, Output: 300, Money: 3_000_000, Reserved: 2224, Attempts: 1},
	}
}

var scriptStats = regexp.MustCompile(`cmdstat_evalsha:calls=(\d+),usec=(\d+)`)

// scriptMicros is Redis' own time of all scripts since the last look, per script.
func scriptMicros(b testing.TB, s *redistest.Server) float64 {
	b.Helper()
	m := scriptStats.FindStringSubmatch(s.Must("INFO", "commandstats"))
	s.Must("CONFIG", "RESETSTAT")
	if m == nil {
		return 0
	}
	calls, _ := strconv.ParseFloat(m[1], 64)
	micros, _ := strconv.ParseFloat(m[2], 64)
	return micros / calls
}

// The commands of RESERVE and of SETTLE with the five buckets of benchRules and a row, and
// nothing else: what no such script costs less than.
const (
	reserveCommands = `local c, v = redis.call, '32 bytes of one bucket          '
c('TIME')
c('MGET', KEYS[1], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
c('ZCOUNT', KEYS[7], '(1790000000000', '+inf')
for i = 3, 6 do c('SETRANGE', KEYS[i], '0', v) end
c('ZADD', KEYS[7], '1790000030000', ARGV[1])
c('ZADD', KEYS[2], '1790000030000', ARGV[1])
c('SET', KEYS[1], ARGV[2], 'EX', '86400')
return {v, v, v, v, v}`
	settleCommands = `local c, v = redis.call, '32 bytes of one bucket          '
c('TIME')
c('MGET', unpack(KEYS))
c('ZREM', KEYS[2], ARGV[1])
c('ZREM', KEYS[7], ARGV[1])
for i = 4, 6 do c('SETRANGE', KEYS[i], '0', v) end
c('SET', KEYS[1], 'settled', 'EX', '3600')
c('XADD', '{bare}rows', 'MAXLEN', '~', '10000', '*', 't', '1790000000000000', 'r', ARGV[3])
c('HGET', '{bare}sums', ARGV[4])
c('HSET', '{bare}sums', ARGV[4], ARGV[5])
return 1`
)

// bareMicros is Redis' own time of a script that does the commands alone, for so many ids.
func bareMicros(b *testing.B, s *redistest.Server, client redis.UniversalClient, text string, ids int) float64 {
	b.Helper()
	script := redis.NewScript(text)
	script.Load(b.Context(), client)
	scriptMicros(b, s)
	for i := range ids {
		id := fmt.Sprint(i)
		keys := []string{"{bare}:r:" + id, "{bare}:open", "{bare}:rpm", "{bare}:tpm", "{bare}:usd", "{bare}:out", "{bare}:par"}
		err := script.EvalSha(b.Context(), client, keys, id, strings.Repeat("r", 600), strings.Repeat("r", 200), "name of a sum", strings.Repeat("r", 80)).Err()
		if err == nil {
			err = client.Ping(b.Context()).Err()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return scriptMicros(b, s)
}

// BenchmarkRedisScripts tells what RESERVE and SETTLE with five buckets and a row cost Redis,
// by its own count, beside their commands alone, and how long a caller waits for RESERVE,
// against a PING in the same run.
func BenchmarkRedisScripts(b *testing.B) {
	s := redistest.Single(b)
	client := s.Client(ratelimit.TuneRedis)
	l := newRedis(b, s, ratelimit.RedisOptions{Rules: rules(b, benchRules...)})
	const n = 200
	reserves, settles := make([]float64, 0, b.N), make([]float64, 0, b.N)
	var bareReserves, bareSettles []float64
	waits, pings := make([]time.Duration, 0, b.N*n), make([]time.Duration, 0, b.N*n)
	calls := make([]*ratelimit.Call, n)
	for round := range b.N {
		scriptMicros(b, s)
		for i := range calls {
			calls[i] = benchCall(fmt.Sprint(round, "-", i))
			begin := time.Now()
			if _, err := l.Reserve(b.Context(), calls[i]); err != nil {
				b.Fatal(err)
			}
			waits = append(waits, time.Since(begin))
			begin = time.Now()
			if err := client.Ping(b.Context()).Err(); err != nil {
				b.Fatal(err)
			}
			pings = append(pings, time.Since(begin))
		}
		reserves = append(reserves, scriptMicros(b, s))
		for _, c := range calls {
			redisSettle(b, l, c, ratelimit.Cost{Requests: 1, Input: 1200, Output: 300, Money: 3_000_000})
		}
		settles = append(settles, scriptMicros(b, s))
		bareReserves = append(bareReserves, bareMicros(b, s, client, reserveCommands, n))
		bareSettles = append(bareSettles, bareMicros(b, s, client, settleCommands, n))
	}
	b.ReportMetric(middle(reserves), "us/RESERVE")
	b.ReportMetric(middle(settles), "us/SETTLE")
	b.ReportMetric(middle(bareReserves), "us/RESERVE-commands")
	b.ReportMetric(middle(bareSettles), "us/SETTLE-commands")
	b.ReportMetric(float64(middle(waits))/1e3, "p50-us/Reserve")
	b.ReportMetric(float64(middle(pings))/1e3, "p50-us/PING")
	b.ReportMetric(0, "ns/op")
}

func middle[T float64 | time.Duration](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}

// BenchmarkRedisLoad makes many calls at a time; each is reserved and settled. With 1,000 trips
// at a time nothing is sent together.
func BenchmarkRedisLoad(b *testing.B) {
	for _, c := range [][2]int{{1, 2}, {8, 2}, {64, 1}, {64, 2}, {64, 4}, {64, 1000}, {512, 2}, {512, 1000}} {
		callers, trips := c[0], c[1]
		b.Run(fmt.Sprintf("callers=%d/trips=%d", callers, trips), func(b *testing.B) {
			s := redistest.Single(b)
			l := newRedis(b, s, ratelimit.RedisOptions{Rules: rules(b, benchRules...)})
			l.SetTrips(trips)
			var wg sync.WaitGroup
			next := make(chan int)
			for range callers {
				wg.Go(func() {
					for i := range next {
						c := benchCall(strconv.Itoa(i))
						if _, err := l.Reserve(b.Context(), c); err != nil {
							b.Error(err)
							return
						}
						redisSettle(b, l, c, ratelimit.Cost{Requests: 1, Input: 1200, Output: 300})
					}
				})
			}
			for i := range b.N {
				next <- i
			}
			close(next)
			wg.Wait()
			b.ReportMetric(scriptMicros(b, s), "us/script")
		})
	}
}
