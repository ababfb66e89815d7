package ratelimit_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest"
	"sluice/ratelimit/ratelimittest/redistest"
)

// keyClock replaces the scripts' clock by one that is in two keys of the same Redis.
const keyClock = "local time = redis.call('MGET', 'clock:s', 'clock:us')"

// setClock sets what keyClock reads.
func setClock(t testing.TB, s *redistest.Server, now time.Time) {
	t.Helper()
	s.Must("MSET", "clock:s", fmt.Sprint(now.Unix()), "clock:us", fmt.Sprint(now.Nanosecond()/1000))
}

// told is a limiter that tells the ledger of the organisations it has rows of.
type told struct {
	*ratelimit.Redis
	book  *ledger.Redis
	touch bool // at each look
}

// Peek notes the time first if it shall, as the model does. Scripts that only look or deny write
// nothing, so that Redis knows less of the past when its clock runs back or a limit changes.
func (l told) Peek(ctx context.Context, who *ratelimit.Subject) ([]ratelimit.Level, error) {
	if l.touch {
		if err := l.Touch(ctx, who); err != nil {
			return nil, err
		}
	}
	return l.Redis.Peek(ctx, who)
}

func (l told) Settle(ctx context.Context, s *ratelimit.Settlement) error {
	l.book.Saw(s.Row.Org)
	if s.Row.Org != s.Call.Who.Org {
		l.book.Saw(s.Call.Who.Org)
	}
	return l.Redis.Settle(ctx, s)
}

func (l told) rows(t *testing.T) []ledger.Row {
	t.Helper()
	if err := l.book.Close(); err != nil { // waits until all organisations are known
		t.Fatal(err)
	}
	var out []ledger.Row
	f := ledger.Filter{Match: ledger.Match{AllOrgs: true}, Limit: 1000}
	for {
		page, err := l.book.Rows(context.Background(), f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, page.Rows...)
		if f.Cursor = page.Next; f.Cursor == "" {
			return out
		}
	}
}

func TestRedisPassesTheSuite(t *testing.T) {
	t.Parallel()
	ratelimittest.Run(t, func(t *testing.T) ratelimittest.Harness {
		s, clock, rules := redistest.Single(t), newTestClock(), mustRules(t)
		setClock(t, s, clock.Now())
		// Rows have the time of the real Redis, and are kept by that of the test.
		keep := ledger.Retention{RowAge: 40 * 365 * 24 * time.Hour}
		o := ratelimit.WithClock(ratelimit.RedisOptions{Rules: rules, Retention: keep}, keyClock)
		l := told{newRedis(t, s, o), ledger.NewRedis(s.Client(nil), "sluice:", ledger.Retention{}), strings.Contains(t.Name(), "agrees_with_the_model")}
		return ratelimittest.Harness{
			Limiter: l, Rules: rules, Now: clock.Now,
			Advance: func(d time.Duration) {
				clock.Advance(d)
				setClock(t, s, clock.Now())
				l.RenewAll(context.Background())
			},
			Rows: func() []ledger.Row { return l.rows(t) },
		}
	})
}

func TestOneLineOfTheScriptsReadsTheClock(t *testing.T) {
	if n := ratelimit.ClockLines(); n != 1 {
		t.Fatalf("%d lines read a clock", n)
	}
}
