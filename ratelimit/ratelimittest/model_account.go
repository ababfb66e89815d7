package ratelimittest

import (
	"math/big"
	"time"

	"sluice/ratelimit"
)

// advance lets in what flows until now.
func (a *account) advance(r *ratelimit.Rule, now time.Time) {
	switch {
	case a.level == nil, a.level.Cmp(rat(r.Full())) >= 0, a.at.Sub(now) > 2*period(r):
		a.level, a.at = rat(r.Full()), now
	case !now.After(a.at):
	case calendar(r.Per):
		if a.at.Before(calendarBegin(r.Per, now)) {
			a.level = rat(r.Full())
		}
		a.at = now
	default:
		a.level.Add(a.level, inflow(r, now.Sub(a.at)))
		a.at = now
	}
	a.add(r, 0)
}

// add changes the level, between the largest debt and the burst.
func (a *account) add(r *ratelimit.Rule, n int64) {
	a.level.Add(a.level, rat(n))
	if a.level.Cmp(rat(r.Full())) > 0 {
		a.level = rat(r.Full())
	}
	if n < 0 && a.level.Cmp(rat(-ratelimit.MaxBudget)) < 0 {
		a.level = rat(-ratelimit.MaxBudget)
	}
}

func rat(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

func inflow(r *ratelimit.Rule, d time.Duration) *big.Rat {
	in := big.NewRat(d.Microseconds(), period(r).Microseconds())
	return in.Mul(in, rat(r.Amount))
}

// left is the level, rounded down.
func (a *account) left() int64 {
	return new(big.Int).Div(a.level.Num(), a.level.Denom()).Int64()
}

func (a *account) leftOf(r *ratelimit.Rule) int64 {
	if r.Dim == ratelimit.Streams {
		return r.Amount - int64(len(a.calls))
	}
	return a.left()
}

// wait is until the level is need, rounded up to a microsecond.
func (a *account) wait(r *ratelimit.Rule, need int64, now time.Time) time.Duration {
	if need <= a.leftOf(r) {
		return 0
	}
	ahead := max(a.at.Sub(now), 0)
	switch {
	case r.Dim == ratelimit.Streams:
		return time.Second
	case r.Per == ratelimit.CalendarDay:
		return calendarBegin(r.Per, now.Add(ahead)).AddDate(0, 0, 1).Sub(now)
	case r.Per == ratelimit.CalendarMonth:
		return calendarBegin(r.Per, now.Add(ahead)).AddDate(0, 1, 0).Sub(now)
	}
	missing := rat(need)
	missing.Sub(missing, a.level)
	missing.Mul(missing, big.NewRat(period(r).Microseconds(), r.Amount))
	up := new(big.Int).Add(missing.Num(), missing.Denom())
	up.Sub(up, big.NewInt(1)).Div(up, missing.Denom())
	return time.Duration(up.Int64())*time.Microsecond + ahead
}

func calendar(p ratelimit.Per) bool {
	return p == ratelimit.CalendarDay || p == ratelimit.CalendarMonth
}

// calendarBegin is when the calendar period of now began; the zero time for others.
func calendarBegin(p ratelimit.Per, now time.Time) time.Time {
	now = now.UTC()
	switch p {
	case ratelimit.CalendarDay:
		return time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	case ratelimit.CalendarMonth:
		return time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	default:
		return time.Time{}
	}
}

// period is the time in which the amount flows in; the longest that a calendar period can be.
func period(r *ratelimit.Rule) time.Duration {
	switch r.Per {
	case ratelimit.Second:
		return time.Second
	case ratelimit.Minute:
		return time.Minute
	case ratelimit.Hour:
		return time.Hour
	case ratelimit.CalendarMonth:
		return 31 * 24 * time.Hour
	default:
		return 24 * time.Hour
	}
}

// cost is what a bucket of the rule is charged for a call.
func cost(r *ratelimit.Rule, c ratelimit.Cost) int64 {
	return min(max(c.Of(r.Dim), 0), ratelimit.MaxBudget)
}

// promptOf is the part of a cost that nobody can shorten.
func promptOf(d ratelimit.Dim, c ratelimit.Cost) int64 {
	switch d {
	case ratelimit.Tokens, ratelimit.Input:
		return c.Input
	case ratelimit.Frames:
		return c.Frames
	case ratelimit.FrameBytes:
		return c.FrameBytes
	default:
		return 0
	}
}
