package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/ratelimit"
)

// tightest are the buckets that callers are told of: of each kind the one with the least
// left.
type tightest struct{ requests, tokens *ratelimit.Level }

func tightestOf(levels []ratelimit.Level) (t tightest) {
	for i := range levels {
		l := &levels[i]
		switch l.Rule.Dim {
		case ratelimit.Requests:
			t.requests = tighter(t.requests, l)
		case ratelimit.Tokens, ratelimit.Input, ratelimit.Output:
			t.tokens = tighter(t.tokens, l)
		default:
		}
	}
	return t
}

func tighter(a, b *ratelimit.Level) *ratelimit.Level {
	if a == nil || b.Left < a.Left || b.Left == a.Left && b.Reset > a.Reset {
		return b
	}
	return a
}

// levelsOver are the buckets that a denial tells of.
func levelsOver(d *ratelimit.Denied) []ratelimit.Level {
	out := make([]ratelimit.Level, len(d.Over))
	for i := range d.Over {
		out[i] = d.Over[i].Level
	}
	return out
}

// tell writes the headers of OpenAI about limits. The names are canonical.
func (a *account) tell(h http.Header) {
	if h == nil || len(a.levels) == 0 {
		return
	}
	t := tightestOf(a.levels)
	if l := t.requests; l != nil {
		h["X-Ratelimit-Limit-Requests"] = []string{strconv.FormatInt(l.Rule.Full(), 10)}
		h["X-Ratelimit-Remaining-Requests"] = []string{strconv.FormatInt(max(l.Left, 0), 10)}
		h["X-Ratelimit-Reset-Requests"] = []string{spell(l.Reset)}
	}
	if l := t.tokens; l != nil {
		h["X-Ratelimit-Limit-Tokens"] = []string{strconv.FormatInt(l.Rule.Full(), 10)}
		h["X-Ratelimit-Remaining-Tokens"] = []string{strconv.FormatInt(max(l.Left, 0), 10)}
		h["X-Ratelimit-Reset-Tokens"] = []string{spell(l.Reset)}
	}
}

// correct brings the levels of the reservation to what was used in its place. What others
// have done meanwhile is not in them.
func (a *account) correct(used *ratelimit.Cost) {
	for i := range a.levels {
		l := &a.levels[i]
		full := l.Rule.Full()
		left := min(l.Left+min(a.call.Want.Of(l.Rule.Dim), full)-used.Of(l.Rule.Dim), full)
		if missing := full - l.Left; missing > 0 {
			l.Reset = time.Duration(float64(l.Reset) * float64(full-left) / float64(missing))
		}
		l.Left = left
	}
}

// levelsNow are the levels after an answer; none when no limit applies or nobody knows.
func (a *account) levelsNow(ctx context.Context) []ratelimit.Level {
	if !a.reserved {
		return a.levels // those that the answer was refused for
	}
	levels, err := a.quota.Limiter.Peek(ctx, &a.call.Who)
	if err != nil {
		return nil
	}
	return levels
}

// appendLimits is the message about limits over WebSocket.
func appendLimits(dst []byte, levels []ratelimit.Level) []byte {
	dst = appendHead(dst, "limits", "")
	t := tightestOf(levels)
	for _, k := range []struct {
		name  string
		level *ratelimit.Level
	}{{"requests", t.requests}, {"tokens", t.tokens}} {
		if l := k.level; l != nil {
			dst = append(append(append(dst, `,"`...), k.name...), `":{"limit":`...)
			dst = strconv.AppendInt(dst, l.Rule.Full(), 10)
			dst = strconv.AppendInt(append(dst, `,"remaining":`...), max(l.Left, 0), 10)
			dst = strconv.AppendInt(append(dst, `,"reset_ms":`...), roundUp(l.Reset, time.Millisecond).Milliseconds(), 10)
			dst = append(dst, '}')
		}
	}
	return append(dst, '}')
}

// spell writes a duration as OpenAI does and as time.ParseDuration reads it: "20ms",
// "8.64s", "6m0s". It is rounded up, to milliseconds or hundredths of a second.
func spell(d time.Duration) string {
	unit := 10 * time.Millisecond
	switch {
	case d <= 0:
		return "0s"
	case d < time.Second:
		unit = time.Millisecond
	case d >= time.Minute:
		unit = time.Second
	}
	return roundUp(d, unit).String()
}

func roundUp(d, unit time.Duration) time.Duration { return (d + unit - 1) / unit * unit }

// longWait is what official SDKs do not wait for: the oldest of them would ask again
// sooner, and in vain.
const longWait = time.Minute

// fromLimit is the row of an error that a limit has made.
func fromLimit(err error) (f failure, ok bool) {
	var d *ratelimit.Denied
	var b *budgetExhausted
	var lost *placeLost
	switch {
	case errors.As(err, &b):
		over := mainOver(b.Denied)
		return failure{end: endBudget, message: fmt.Sprintf("The answer was ended: limit %q allows %s, and nothing of it is left.", over.Rule.ID, allowance(over.Rule))}, true
	case errors.As(err, &lost):
		return failure{end: endPlaceLost, retryAfter: roundUp(lost.RetryAfter, time.Millisecond),
			message: fmt.Sprintf("The gateway was stopped for so long that what this answer held of limit %q was given to others. Try again.", mainOver(lost.Denied).Rule.ID)}, true
	case errors.As(err, &d):
		return fromDenied(d), true
	case errors.Is(err, ratelimit.ErrUnavailable):
		return failure{end: endNoLimits, message: "Whether this request is within its limits cannot be told now. Try again in a moment.", retryAfter: time.Second}, true
	}
	return f, false
}

func fromDenied(d *ratelimit.Denied) failure {
	over := mainOver(d)
	rule := over.Rule
	if d.TooLarge {
		return failure{end: endOverBurst, message: fmt.Sprintf("The request alone is larger than limit %q (%s) ever lets through at once, which is %s. Make it smaller.",
			rule.ID, allowance(rule), quantity(rule.Dim, rule.Full()))}
	}
	f := failure{end: endOverTokens, retryAfter: roundUp(d.RetryAfter, time.Millisecond)}
	switch rule.Dim {
	case ratelimit.Money:
		f.end = endOverBudget
	case ratelimit.Requests, ratelimit.Streams, ratelimit.Frames, ratelimit.FrameBytes:
		f.end = endOverRequests
	default:
	}
	f.final = f.final || f.retryAfter > longWait
	f.message = fmt.Sprintf("Rate limit reached: %q allows %s. Limit %s, used %s, requested %s.%s",
		rule.ID, allowance(rule), quantity(rule.Dim, rule.Full()), quantity(rule.Dim, rule.Full()-over.Left), quantity(rule.Dim, over.Need), again(f.retryAfter))
	return f
}

func again(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return " Please try again in " + spell(d) + "."
}

// mainOver is the shortage that callers are told of: the one that lasts longest by its
// kind.
func mainOver(d *ratelimit.Denied) *ratelimit.Shortage {
	for i := range d.Over {
		if d.Over[i].Rule.Dim == ratelimit.Money {
			return &d.Over[i]
		}
	}
	return &d.Over[0]
}

// limitID names the limit that ended or refused an answer, for the access line.
func limitID(err error) string {
	if err == nil {
		return ""
	}
	d := new(ratelimit.Denied)
	if !errors.As(err, &d) {
		return ""
	}
	return mainOver(d).Rule.ID
}

var (
	dimNames = [...]string{
		ratelimit.Requests: "requests", ratelimit.Tokens: "tokens", ratelimit.Input: "input tokens", ratelimit.Output: "output tokens",
		ratelimit.Frames: "frames", ratelimit.FrameBytes: "bytes of frames", ratelimit.Money: "usd", ratelimit.Streams: "answers at the same time",
	}
	perNames = [...]string{
		ratelimit.AtOnce: "", ratelimit.Second: "second", ratelimit.Minute: "minute", ratelimit.Hour: "hour", ratelimit.Day: "day",
		ratelimit.CalendarDay: "day", ratelimit.CalendarMonth: "month",
	}
	scopeNames = [...]string{
		ratelimit.Global: "global", ratelimit.Provider: "provider", ratelimit.IP: "ip", ratelimit.Model: "model",
		ratelimit.Org: "org", ratelimit.Team: "team", ratelimit.User: "user", ratelimit.Key: "key", ratelimit.KeyModel: "key_model",
	}
)

// allowance says what a rule lets through: "60 requests per minute for each key".
func allowance(r *ratelimit.Rule) string {
	s := quantity(r.Dim, r.Amount) + " " + dimNames[r.Dim]
	if r.Dim == ratelimit.Money {
		s = quantity(r.Dim, r.Amount)
	}
	if p := perNames[r.Per]; p != "" {
		s += " per " + p
	}
	switch r.Scope {
	case ratelimit.Global:
		return s + " for all callers together"
	case ratelimit.KeyModel:
		return s + " for each key and model"
	case ratelimit.IP:
		return s + " for each client address"
	default:
		return s + " for each " + scopeNames[r.Scope]
	}
}

func quantity(d ratelimit.Dim, n int64) string {
	if d == ratelimit.Money {
		return "$" + dollars(n)
	}
	return strconv.FormatInt(n, 10)
}

// dollars writes nano-dollars with as many decimals as they have, and at least two.
func dollars(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	whole, part := n/1e9, fmt.Sprintf("%09d", n%1e9)
	part = part[:2] + strings.TrimRight(part[2:], "0")
	return sign + strconv.FormatInt(whole, 10) + "." + part
}
