package handlers

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// Ledger sums up what calls have cost.
type Ledger interface {
	Usage(ctx context.Context, q ledger.Query) ([]ledger.Sum, error)
}

// usageAnswer is what GET /usage tells a caller of itself.
type usageAnswer struct {
	Object  string       `json:"object"` // "usage"
	Key     string       `json:"key"`
	Org     string       `json:"org,omitempty"`
	Start   int64        `json:"start"` // unix seconds
	End     int64        `json:"end"`
	GroupBy []string     `json:"group_by"`
	Limits  []usageLimit `json:"limits"`
	Data    []usageSum   `json:"data"`
}

// usageLimit is the level of one bucket now. Amounts of money are in US dollars.
type usageLimit struct {
	ID        string `json:"id"`
	Scope     string `json:"scope"`
	Name      string `json:"name,omitempty"`
	Unit      string `json:"unit"`
	Per       string `json:"per,omitempty"`
	Limit     amount `json:"limit"`
	Remaining amount `json:"remaining"` // below 0 for what has to be waited out
	Reset     int64  `json:"reset_ms"`
}

// amount is a number of JSON.
type amount string

func (a amount) MarshalJSON() ([]byte, error) { return []byte(a), nil }

// usageSum is what the calls of one group have cost.
type usageSum struct {
	Start     int64  `json:"start,omitempty"` // of the hour or day, unix seconds
	Model     string `json:"model,omitempty"`
	Calls     int64  `json:"calls"`
	Requests  int64  `json:"requests"` // calls without those that were given back
	Input     int64  `json:"input_tokens"`
	Cached    int64  `json:"cached_tokens"`
	Output    int64  `json:"output_tokens"`
	Reasoning int64  `json:"reasoning_tokens"`
	Frames    int64  `json:"frames"`
	Cost      amount `json:"cost_usd"`
	Estimated int64  `json:"estimated_calls"` // whose tokens the gateway counted itself
}

// usage answers GET /usage: the caller's own limits and what it has used.
func (s *Server) usage(c echo.Context) error {
	who, err := s.opt.Auth.Authenticate(c.Request().Header)
	if err != nil {
		return err
	}
	q, err := usageQuery(c.QueryParams(), time.Now())
	if err != nil {
		return err
	}
	q.Org, q.Key = who.Org, who.Key
	out := usageAnswer{
		Object: "usage", Key: who.Key, Org: who.Org, Start: q.Since.Unix(), End: q.Until.Unix(),
		GroupBy: []string{}, Limits: []usageLimit{}, Data: []usageSum{},
	}
	for _, g := range q.By {
		out.GroupBy = append(out.GroupBy, g.String())
	}
	if s.opt.Quota != nil {
		if err := s.fillUsage(c.Request().Context(), &out, who, q, c.RealIP()); err != nil {
			return err
		}
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, out)
}

func (s *Server) fillUsage(ctx context.Context, out *usageAnswer, who auth.Principal, q ledger.Query, remote string) error {
	q.Model = s.opt.Quota.ModelOf(q.Model)
	levels, err := s.opt.Quota.Limiter.Peek(ctx, &ratelimit.Subject{
		Org: who.Org, Team: who.Team, User: who.User, Key: who.Key, Model: q.Model, IP: addressName(remote), Rules: who.Rules,
	})
	if err != nil {
		return err
	}
	for i := range levels {
		out.Limits = append(out.Limits, limitNow(&levels[i]))
	}
	sums, err := s.sums(ctx, q)
	out.Data = append(out.Data, sums...)
	return err
}

func limitNow(l *ratelimit.Level) usageLimit {
	number := func(n int64) amount {
		if l.Rule.Dim == ratelimit.Money {
			return amount(dollars(n))
		}
		return amount(strconv.FormatInt(n, 10))
	}
	return usageLimit{
		ID: l.Rule.ID, Scope: scopeNames[l.Rule.Scope], Name: l.Name, Unit: unitNames[l.Rule.Dim], Per: perNames[l.Rule.Per],
		Limit: number(l.Rule.Full()), Remaining: number(l.Left), Reset: roundUp(l.Reset, time.Millisecond).Milliseconds(),
	}
}

var unitNames = [...]string{
	ratelimit.Requests: "requests", ratelimit.Tokens: "tokens", ratelimit.Input: "input_tokens", ratelimit.Output: "output_tokens",
	ratelimit.Frames: "frames", ratelimit.FrameBytes: "frame_bytes", ratelimit.Money: "usd", ratelimit.Streams: "concurrent",
}

func sumOf(s *ledger.Sum) usageSum {
	out := usageSum{
		Model: s.Model, Calls: s.Calls, Requests: s.Requests, Input: s.Input, Cached: s.Cached, Output: s.Output,
		Reasoning: s.Reasoning, Frames: s.Frames, Cost: amount(dollars(s.Money)), Estimated: s.Estimated,
	}
	if !s.From.IsZero() {
		out.Start = s.From.Unix()
	}
	return out
}

const (
	maxUsage  = 10_000               // sums in an answer
	maxHours  = 31 * 24 * time.Hour  // that can be asked for by hours
	maxDays   = 366 * 24 * time.Hour // that can be asked for at all
	usualDays = 7 * 24 * time.Hour
	usageTime = time.Second // in which the records must be read: who asks is told soon that they cannot be
)

// usageQuery reads the parameters start, end, group_by and model. What is asked for is
// in whole hours, of UTC.
func usageQuery(p url.Values, now time.Time) (q ledger.Query, err error) {
	for name := range p {
		if !slices.Contains([]string{"start", "end", "group_by", "model"}, name) {
			return q, providers.Invalid(name, "There is no parameter "+strconv.Quote(name)+". Known are start, end, group_by and model.")
		}
	}
	q.Model = p.Get("model")
	if q.Until, err = moment(p, "end", now.Add(time.Hour-1).Truncate(time.Hour)); err != nil {
		return q, err
	}
	if q.Since, err = moment(p, "start", q.Until.Add(-usualDays)); err != nil {
		return q, err
	}
	text := p.Get("group_by")
	if text == "" {
		text = "model,day"
	}
	for name := range strings.SplitSeq(text, ",") {
		g, err := ledger.ParseGroup(name)
		if err != nil || g != ledger.ByModel && g != ledger.ByHour && g != ledger.ByDay {
			return q, providers.Invalid("group_by", "group_by is model, hour or day, or model with one of the others: model,day.")
		}
		q.By = append(q.By, g)
	}
	hours := slices.Contains(q.By, ledger.ByHour)
	switch asked := q.Until.Sub(q.Since); {
	case hours && slices.Contains(q.By, ledger.ByDay):
		return q, providers.Invalid("group_by", "Group by hour or by day.")
	case asked <= 0:
		return q, providers.Invalid("start", "start must be before end.")
	case hours && asked > maxHours:
		return q, providers.Invalid("start", "By hours up to 31 days can be asked for at once.")
	case asked > maxDays:
		return q, providers.Invalid("start", "Up to 366 days can be asked for at once.")
	}
	return q, nil
}

// moment reads a time: unix seconds, a date, or RFC 3339.
func moment(p url.Values, name string, otherwise time.Time) (time.Time, error) {
	text := p.Get(name)
	if text == "" {
		return otherwise, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 && n < 1<<36 {
		return time.Unix(n, 0).UTC(), nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return otherwise, providers.Invalid(name, name+" is a time: unix seconds, a date such as 2026-11-01, or RFC 3339.")
}
