package admin

import (
	"context"
	"net/http"
	"strconv"

	"sluice/handlers/auth"
	"sluice/ratelimit"
)

// Limits are the declared limits, and how full their buckets are.
type Limits interface {
	Rules() []*ratelimit.Rule
	// Peek changes no level.
	Peek(ctx context.Context, who *ratelimit.Subject) ([]ratelimit.Level, error)
	// Fullest are up to n buckets of which most is used, by share. ok is false when the store
	// of the limits could not tell without looking at all of them.
	Fullest(n int) (levels []ratelimit.Level, ok bool)
	// Caller is who a key stands for.
	Caller(key string) (auth.Principal, bool)
}

// The names of what limits are about, as in the configuration.
var (
	unitNames = [...]string{
		ratelimit.Requests: "requests", ratelimit.Tokens: "tokens", ratelimit.Input: "input_tokens", ratelimit.Output: "output_tokens",
		ratelimit.Frames: "frames", ratelimit.FrameBytes: "frame_bytes", ratelimit.Money: "usd", ratelimit.Streams: "concurrent",
	}
	perNames = [...]string{
		ratelimit.AtOnce: "", ratelimit.Second: "second", ratelimit.Minute: "minute", ratelimit.Hour: "hour", ratelimit.Day: "day",
		ratelimit.CalendarDay: "calendar_day", ratelimit.CalendarMonth: "calendar_month",
	}
	scopeNames = [...]string{
		ratelimit.Global: "global", ratelimit.Provider: "provider", ratelimit.IP: "ip", ratelimit.Model: "model",
		ratelimit.Org: "org", ratelimit.Team: "team", ratelimit.User: "user", ratelimit.Key: "key", ratelimit.KeyModel: "key_model",
	}
	troubleNames = [...]string{ratelimit.Local: "local", ratelimit.Open: "open", ratelimit.Closed: "closed"}
)

// amount is a number of a limit's unit: money in US dollars.
type amount struct {
	n   int64
	dim ratelimit.Dim
}

// MarshalJSON writes a number.
func (a amount) MarshalJSON() ([]byte, error) {
	if a.dim == ratelimit.Money {
		return usd(a.n).MarshalJSON()
	}
	return strconv.AppendInt(nil, a.n, 10), nil
}

type ruleJSON struct {
	ID        string   `json:"id"`
	Scope     string   `json:"scope"`
	Unit      string   `json:"unit"`
	Amount    amount   `json:"amount"`
	Per       string   `json:"per,omitempty"`
	Burst     amount   `json:"burst"` // of a full bucket
	Models    []string `json:"models"`
	Only      []string `json:"only"`
	Hard      bool     `json:"hard"`
	OnTrouble string   `json:"on_trouble"`
}

func ruleOut(r *ratelimit.Rule) ruleJSON {
	return ruleJSON{
		ID: r.ID, Scope: scopeNames[r.Scope], Unit: unitNames[r.Dim], Amount: amount{r.Amount, r.Dim}, Per: perNames[r.Per], Burst: amount{r.Full(), r.Dim},
		Models: listed(r.Models), Only: listed(r.Only), Hard: r.Hard, OnTrouble: troubleNames[r.OnTrouble],
	}
}

// levelJSON is one bucket now.
type levelJSON struct {
	ID    string  `json:"id"`
	Scope string  `json:"scope"`
	Name  string  `json:"name,omitempty"` // in the scope
	Title string  `json:"key_name,omitempty"`
	Unit  string  `json:"unit"`
	Per   string  `json:"per,omitempty"`
	Limit amount  `json:"limit"`
	Level amount  `json:"remaining"` // below 0 for what has to be waited out
	Used  amount  `json:"used"`
	Share float64 `json:"used_share"` // 0 to 1, more in debt
	Reset millis  `json:"reset_ms"`   // until it is full, if nobody takes from it
}

func (s *server) levelOut(l *ratelimit.Level) levelJSON {
	full := l.Rule.Full()
	out := levelJSON{
		ID: l.Rule.ID, Scope: scopeNames[l.Rule.Scope], Name: l.Name, Unit: unitNames[l.Rule.Dim], Per: perNames[l.Rule.Per],
		Limit: amount{full, l.Rule.Dim}, Level: amount{l.Left, l.Rule.Dim}, Used: amount{full - l.Left, l.Rule.Dim}, Reset: millis(max(l.Reset, 0)),
		Share: float64(int64(float64(full-l.Left)/float64(full)*1e4)) / 1e4,
	}
	if l.Rule.Scope == ratelimit.Key {
		out.Title = s.keyName(l.Name)
	}
	return out
}

func (s *server) limitRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/limits", role: viewer, handle: s.limitRules},
		{method: http.MethodGet, path: "/limits/levels", role: viewer, query: []string{"key", "org", "team", "user", "model", "client", "upstream"}, handle: s.limitLevels},
		{method: http.MethodGet, path: "/limits/fullest", role: viewer, query: []string{"limit"}, handle: s.fullestLimits},
	}
}

func (s *server) limitRules(c *call) error {
	if s.opt.Limits == nil {
		return notFound("This gateway has no limits.")
	}
	out := list[ruleJSON]{Data: []ruleJSON{}}
	for _, r := range s.opt.Limits.Rules() {
		out.Data = append(out.Data, ruleOut(r))
	}
	return c.reply(http.StatusOK, out)
}

// limitLevels tells the buckets that a call of somebody would take from. A key brings its
// own limits, and the tenants that it is of.
func (s *server) limitLevels(c *call) error {
	if s.opt.Limits == nil {
		return notFound("This gateway has no limits.")
	}
	who := ratelimit.Subject{
		Org: c.query("org"), Team: c.query("team"), User: c.query("user"), Key: c.query("key"), Model: c.query("model"), IP: c.query("client"), Provider: c.query("upstream"),
	}
	if who.Provider != "" && (who.Org != "" || who.Team != "" || who.User != "" || who.Key != "" || who.IP != "") {
		return badField("upstream", "Limits of an upstream are nobody's: ask for them with a model at most.")
	}
	if who.Key != "" {
		caller, ok := s.opt.Limits.Caller(who.Key)
		if !ok {
			return badField("key", "There is no key %q.", who.Key)
		}
		for _, f := range []struct {
			name      string
			given, is *string
		}{{"org", &who.Org, &caller.Org}, {"team", &who.Team, &caller.Team}, {"user", &who.User, &caller.User}} {
			if *f.given != "" && *f.given != *f.is {
				return badField(f.name, "The key %q is not of this %s.", who.Key, f.name)
			}
			*f.given = *f.is
		}
		who.Rules = caller.Rules
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), ledgerTime)
	defer cancel()
	levels, err := s.opt.Limits.Peek(ctx, &who)
	if err != nil {
		return unavailable("The limits cannot be read now: try again in a moment.")
	}
	return s.replyLevels(c, levels)
}

func (s *server) replyLevels(c *call, levels []ratelimit.Level) error {
	out := list[levelJSON]{Data: []levelJSON{}}
	for i := range levels {
		out.Data = append(out.Data, s.levelOut(&levels[i]))
	}
	return c.reply(http.StatusOK, out)
}

func (s *server) fullestLimits(c *call) error {
	limit, err := c.limit(20, usualPage)
	if err != nil {
		return err
	}
	if s.opt.Limits == nil {
		return notFound("This gateway has no limits.")
	}
	levels, ok := s.opt.Limits.Fullest(limit)
	if !ok {
		return &fault{status: http.StatusNotImplemented, code: "not_available", message: "With limits in Redis nobody knows all buckets. Ask for those of a key, an organisation or a model: " + Prefix + "/limits/levels."}
	}
	return s.replyLevels(c, levels)
}
