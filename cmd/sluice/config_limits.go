package main

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"sluice/ratelimit"
)

// Limit is one [[limits]] table. Each of its rates is a limit of its own; they share
// what else stands in the table.
type Limit struct {
	ID    string   `toml:"id" example:"\"per-key\"" doc:"Name of the limit, told to callers that are over it: letters, digits, dot, dash, underscore."`
	Scope string   `toml:"scope" oneof:"global,org,team,user,key,model,key_model,provider,ip" example:"\"key\"" doc:"Whose count it is; each name in the scope has its own"`
	Only  []string `toml:"only" doc:"Names in the scope that it is for, or patterns; [] is all."`
	carried
}

// KeyLimit is one limit that a key carries, beside those of [[limits]].
type KeyLimit struct {
	Scope string `toml:"scope" oneof:"key,key_model" doc:"Whether all models of the key are counted together, or each by itself"`
	carried
}

// carried is what both kinds of limits have.
type carried struct {
	Models []string `toml:"models" doc:"Models that it is for, by name or pattern (\"gpt-4o*\"); [] is all."`
	rates
	Burst     *int   `toml:"burst" min:"1" max:"1000000000" group:"burst" example:"120" doc:"With a single rate: how much a caller that was quiet may take at once. Unset: as much as the rate."`
	Hard      bool   `toml:"hard" doc:"For budgets in US dollars: whether an answer that outgrows its estimate is ended when nothing is left."`
	OnTrouble string `toml:"on_trouble" oneof:"local,open,closed" doc:"While Redis is out of reach: count here, at the limit divided by the number of gateways; let calls pass uncounted; refuse them"`
}

// rates are the amounts of a limit. Those that are nil do not limit.
type rates struct {
	RequestsPerSecond     *int     `toml:"requests_per_second" min:"1" max:"1000000000" group:"rate" example:"10" doc:"Its rates, one or several: requests, tokens (of both kinds, or by kind)."`
	RequestsPerMinute     *int     `toml:"requests_per_minute" min:"1" max:"1000000000" group:"rate" example:"60" doc:"Requests in a minute."`
	RequestsPerHour       *int     `toml:"requests_per_hour" min:"1" max:"1000000000" group:"rate" example:"1000" doc:"Requests in an hour."`
	RequestsPerDay        *int     `toml:"requests_per_day" min:"1" max:"1000000000" group:"rate" example:"10_000" doc:"Requests in a day."`
	TokensPerSecond       *int     `toml:"tokens_per_second" min:"1" max:"1000000000" group:"rate" example:"2_000" doc:"Input and output tokens together."`
	TokensPerMinute       *int     `toml:"tokens_per_minute" min:"1" max:"1000000000" group:"rate" example:"100_000" doc:"The same in a minute."`
	TokensPerHour         *int     `toml:"tokens_per_hour" min:"1" max:"1000000000" group:"rate" example:"1_000_000" doc:"The same in an hour."`
	TokensPerDay          *int     `toml:"tokens_per_day" min:"1" max:"1000000000" group:"rate" example:"10_000_000" doc:"The same in a day."`
	InputTokensPerSecond  *int     `toml:"input_tokens_per_second" min:"1" max:"1000000000" group:"rate" example:"1_000" doc:"Tokens of prompts."`
	InputTokensPerMinute  *int     `toml:"input_tokens_per_minute" min:"1" max:"1000000000" group:"rate" example:"50_000" doc:"The same in a minute."`
	InputTokensPerHour    *int     `toml:"input_tokens_per_hour" min:"1" max:"1000000000" group:"rate" example:"500_000" doc:"The same in an hour."`
	InputTokensPerDay     *int     `toml:"input_tokens_per_day" min:"1" max:"1000000000" group:"rate" example:"5_000_000" doc:"The same in a day."`
	OutputTokensPerSecond *int     `toml:"output_tokens_per_second" min:"1" max:"1000000000" group:"rate" example:"1_000" doc:"Tokens that were generated."`
	OutputTokensPerMinute *int     `toml:"output_tokens_per_minute" min:"1" max:"1000000000" group:"rate" example:"50_000" doc:"The same in a minute."`
	OutputTokensPerHour   *int     `toml:"output_tokens_per_hour" min:"1" max:"1000000000" group:"rate" example:"500_000" doc:"The same in an hour."`
	OutputTokensPerDay    *int     `toml:"output_tokens_per_day" min:"1" max:"1000000000" group:"rate" example:"5_000_000" doc:"The same in a day."`
	FramesPerSecond       *int     `toml:"frames_per_second" min:"1" max:"1000000000" group:"rate" example:"30" doc:"Frames of video."`
	FramesPerMinute       *int     `toml:"frames_per_minute" min:"1" max:"1000000000" group:"rate" example:"1_800" doc:"The same in a minute."`
	FramesPerHour         *int     `toml:"frames_per_hour" min:"1" max:"1000000000" group:"rate" example:"100_000" doc:"The same in an hour."`
	FramesPerDay          *int     `toml:"frames_per_day" min:"1" max:"1000000000" group:"rate" example:"1_000_000" doc:"The same in a day."`
	FrameBytesPerSecond   *Size    `toml:"frame_bytes_per_second" min:"1" max:"1000000000" group:"rate" example:"\"2MiB\"" doc:"Bytes of frames of video."`
	FrameBytesPerMinute   *Size    `toml:"frame_bytes_per_minute" min:"1" max:"1000000000" group:"rate" example:"\"60MiB\"" doc:"The same in a minute."`
	FrameBytesPerHour     *Size    `toml:"frame_bytes_per_hour" min:"1" max:"1000000000" group:"rate" example:"\"500MiB\"" doc:"The same in an hour."`
	FrameBytesPerDay      *Size    `toml:"frame_bytes_per_day" min:"1" max:"1000000000" group:"rate" example:"\"900MiB\"" doc:"The same in a day."`
	Concurrent            *int     `toml:"concurrent" min:"1" max:"1000000" group:"rate" example:"8" doc:"Answers that run at the same time."`
	USDPerDay             *Dollars `toml:"usd_per_day" min:"0.000000001" max:"4000000" group:"rate" example:"5.00" doc:"US dollars by [[prices]] in a day of the calendar (UTC)."`
	USDPerMonth           *Dollars `toml:"usd_per_month" min:"0.000000001" max:"4000000" group:"rate" example:"100.00" doc:"The same in a month of the calendar."`
}

func (l *Limit) setDefaults()    { *l = Limit{Only: []string{}, carried: defaultCarried()} }
func (l *KeyLimit) setDefaults() { *l = KeyLimit{Scope: "key", carried: defaultCarried()} }

func defaultCarried() carried { return carried{Models: []string{}, OnTrouble: "local"} }

// rate is one limit of a table that may hold several.
type rate struct {
	name   string // its key
	dim    ratelimit.Dim
	per    ratelimit.Per
	amount int64
}

// given lists the rates that are set, in the order of the table.
func (r *rates) given() (out []rate) {
	number := func(name string, d ratelimit.Dim, p ratelimit.Per, v *int) {
		if v != nil {
			out = append(out, rate{name, d, p, int64(*v)})
		}
	}
	flows := func(name string, d ratelimit.Dim, second, minute, hour, day *int) {
		number(name+"_per_second", d, ratelimit.Second, second)
		number(name+"_per_minute", d, ratelimit.Minute, minute)
		number(name+"_per_hour", d, ratelimit.Hour, hour)
		number(name+"_per_day", d, ratelimit.Day, day)
	}
	flows("requests", ratelimit.Requests, r.RequestsPerSecond, r.RequestsPerMinute, r.RequestsPerHour, r.RequestsPerDay)
	flows("tokens", ratelimit.Tokens, r.TokensPerSecond, r.TokensPerMinute, r.TokensPerHour, r.TokensPerDay)
	flows("input_tokens", ratelimit.Input, r.InputTokensPerSecond, r.InputTokensPerMinute, r.InputTokensPerHour, r.InputTokensPerDay)
	flows("output_tokens", ratelimit.Output, r.OutputTokensPerSecond, r.OutputTokensPerMinute, r.OutputTokensPerHour, r.OutputTokensPerDay)
	flows("frames", ratelimit.Frames, r.FramesPerSecond, r.FramesPerMinute, r.FramesPerHour, r.FramesPerDay)
	flows("frame_bytes", ratelimit.FrameBytes, number64(r.FrameBytesPerSecond), number64(r.FrameBytesPerMinute), number64(r.FrameBytesPerHour), number64(r.FrameBytesPerDay))
	number("concurrent", ratelimit.Streams, ratelimit.AtOnce, r.Concurrent)
	number("usd_per_day", ratelimit.Money, ratelimit.CalendarDay, number64(r.USDPerDay))
	number("usd_per_month", ratelimit.Money, ratelimit.CalendarMonth, number64(r.USDPerMonth))
	return out
}

func number64[T ~int64](v *T) *int {
	if v == nil {
		return nil
	}
	n := int(*v)
	return &n
}

// flows tells whether a rate comes back bit by bit, so that it may have a burst.
func (r rate) flows() bool {
	return r.dim != ratelimit.Money && r.dim != ratelimit.Streams
}

var scopes = map[string]ratelimit.Scope{
	"global": ratelimit.Global, "org": ratelimit.Org, "team": ratelimit.Team, "user": ratelimit.User, "key": ratelimit.Key,
	"model": ratelimit.Model, "key_model": ratelimit.KeyModel, "provider": ratelimit.Provider, "ip": ratelimit.IP,
}

var troubles = map[string]ratelimit.Policy{"local": ratelimit.Local, "open": ratelimit.Open, "closed": ratelimit.Closed}

// rules makes one rule of each rate.
func (c *carried) rules(id string, scope ratelimit.Scope, only []string) []*ratelimit.Rule {
	given := c.given()
	out := make([]*ratelimit.Rule, len(given))
	for i, r := range given {
		out[i] = &ratelimit.Rule{
			ID: id, Scope: scope, Dim: r.dim, Amount: r.amount, Per: r.per, Models: c.Models, Only: only,
			Hard: c.Hard && r.dim == ratelimit.Money, OnTrouble: troubles[c.OnTrouble],
		}
		if len(given) > 1 {
			out[i].ID += "." + r.name
		}
		if c.Burst != nil {
			out[i].Burst = int64(*c.Burst)
		}
	}
	return out
}

// limitRules are the declared limits.
func limitRules(c *Config) (out []*ratelimit.Rule) {
	for i := range c.Limits {
		l := &c.Limits[i]
		out = append(out, l.rules(l.ID, scopes[l.Scope], l.Only)...)
	}
	return out
}

// keyRules are the limits that a key carries. Their ids begin with "key.", which those of
// declared limits never do, and may be the same for several keys: a bucket belongs to
// the key and the id.
func keyRules(k *Key) (out []*ratelimit.Rule) {
	for i := range k.Limits {
		l := &k.Limits[i]
		for j, r := range l.rules("", scopes[l.Scope], nil) {
			r.ID = ownLimit + "." + l.given()[j].name
			if i > 0 {
				r.ID += fmt.Sprintf(".%d", i+1)
			}
			out = append(out, r)
		}
	}
	return out
}

// ownLimit begins the ids of limits that a key carries.
const ownLimit = "key"

// maxLimitID leaves room in a rule's id for the name of the rate.
const maxLimitID = 32

// validateLimits checks [[limits]] and the limits of keys.
func (d *decoder) validateLimits(cfg *Config) {
	ids := map[string]string{}
	for i := range cfg.Limits {
		l, at := &cfg.Limits[i], fmt.Sprintf("limits[%d]", i)
		switch {
		case l.ID == "":
			d.failAt(at+".id", "an id is required: callers that are over the limit are told it")
		case len(l.ID) > maxLimitID || !plainName.MatchString(l.ID):
			d.failAt(at+".id", "want up to %d letters, digits, dots, dashes and underscores", maxLimitID)
		case l.ID == ownLimit || strings.HasPrefix(l.ID, ownLimit+"."):
			d.failAt(at+".id", "%q is what the limits of [[keys]] are called", l.ID)
		}
		d.uniqueRules(ids, l, at)
		if l.Scope == "" {
			d.failAt(at+".scope", "a scope is required: %s", oneOf(scopeNames()))
		}
		if l.Scope == "provider" && l.Hard {
			d.failAt(at+".hard", "a budget of an upstream ends no answer: callers are held to their own; leave hard out, or give callers a hard budget")
		}
		d.validateOnly(at+".only", cfg, l)
		d.validateCarried(at, cfg, &l.carried)
	}
	for i := range cfg.Keys {
		for j := range cfg.Keys[i].Limits {
			d.validateCarried(fmt.Sprintf("keys[%d].limits[%d]", i, j), cfg, &cfg.Keys[i].Limits[j].carried)
		}
	}
}

// uniqueRules tells about a limit that has an id of another, be it with the name of a rate.
func (d *decoder) uniqueRules(ids map[string]string, l *Limit, at string) {
	d.unique(ids, l.ID, at+".id")
	for _, r := range l.rules(l.ID, 0, nil) {
		if r.ID != l.ID {
			d.unique(ids, r.ID, at+".id")
		}
	}
}

func scopeNames() []string {
	f, _ := fieldOf(reflect.TypeFor[Limit](), "scope")
	return f.oneof
}

func (d *decoder) validateCarried(at string, cfg *Config, c *carried) {
	given := c.given()
	switch {
	case len(given) == 0 && !d.badBelow(at):
		d.failAt(at, "a rate is required, such as requests_per_minute = 60")
	case c.Burst != nil && len(given) > 1:
		d.failAt(at+".burst", "a burst needs a limit with a single rate; this one has %d: make a table for each", len(given))
	case c.Burst != nil && len(given) == 1 && !given[0].flows():
		d.failAt(at+".burst", "%s has no burst: it is there at once", given[0].name)
	}
	for _, r := range given {
		if c.Hard && r.dim != ratelimit.Money {
			d.failAt(at+".hard", "only budgets (usd_per_day, usd_per_month) can be hard; %s is a rate, and never ends an answer", r.name)
		}
	}
	d.validateGlobs(at+".models", c.Models)
	d.validateKnownModels(at+".models", cfg, c.Models)
	for _, r := range given {
		if r.dim == ratelimit.Money {
			d.validatePriced(at, r.name, cfg, c.Models)
		}
	}
}

func (d *decoder) validateGlobs(at string, globs []string) {
	for i, g := range globs {
		if _, err := path.Match(g, ""); err != nil || g == "" {
			d.failAt(fmt.Sprintf("%s[%d]", at, i), `want a name or a pattern such as "gpt-*"`)
		}
	}
}

// validateOnly finds names that nobody in the scope can have.
func (d *decoder) validateOnly(at string, cfg *Config, l *Limit) {
	d.validateGlobs(at, l.Only)
	known, what := namesIn(cfg, l.Scope)
	switch {
	case l.Scope == "global" && len(l.Only) > 0:
		d.failAt(at, "the global scope has no names")
	case l.Scope == "model" || l.Scope == "key_model":
		d.validateKnownModels(at, cfg, l.Only)
	case what != "" && !keepsKeys(cfg): // else issued keys may have the names
		for i, name := range l.Only {
			if !isPattern(name) && !slices.Contains(known, name) {
				d.failAt(fmt.Sprintf("%s[%d]", at, i), "there is no %s %q%s", what, name, meant(name, known))
			}
		}
	}
}

// namesIn lists the names in a scope that the configuration declares.
func namesIn(cfg *Config, scope string) (names []string, what string) {
	var of func(*Key) string
	switch scope {
	case "provider":
		for _, u := range cfg.Upstreams {
			names = append(names, u.Name)
		}
		return append(names, demoUpstream), "upstream"
	case "org":
		of, what = func(k *Key) string { return k.Org }, "key with the org"
	case "team":
		of, what = func(k *Key) string { return k.Team }, "key with the team"
	case "user":
		of, what = func(k *Key) string { return k.User }, "key with the user"
	case "key":
		of, what = func(k *Key) string { return k.Name }, "key"
	default:
		return nil, ""
	}
	for i := range cfg.Keys {
		if name := of(&cfg.Keys[i]); name != "" {
			names = append(names, name)
		}
	}
	return names, what
}

func meant(name string, known []string) string {
	if s := nearest(name, known); s != "" {
		return fmt.Sprintf("; did you mean %q?", s)
	}
	return ""
}

func isPattern(name string) bool { return strings.ContainsAny(name, `*?[\`) }

// served is what can be asked for, as far as the configuration tells: names, and the
// patterns of upstreams that let more names through.
func served(cfg *Config) (names, patterns []string) {
	for i := range cfg.Models {
		names = append(names, cfg.Models[i].Name)
	}
	for i := range cfg.Upstreams {
		u := &cfg.Upstreams[i]
		if len(u.Models) == 0 {
			patterns = append(patterns, "*")
		}
		for _, m := range u.Models {
			if isPattern(m) {
				patterns = append(patterns, m)
			} else {
				names = append(names, m)
			}
		}
	}
	return names, patterns
}

// validateKnownModels finds models that nobody serves, by name or pattern.
func (d *decoder) validateKnownModels(at string, cfg *Config, models []string) {
	names, patterns := served(cfg)
	if cfg.Demo.Enabled {
		names = append(names, demoModels...)
	}
	for i, m := range models {
		known := slices.ContainsFunc(names, func(n string) bool { return ratelimit.Fits(m, n) }) ||
			slices.ContainsFunc(patterns, func(p string) bool { return isPattern(m) && mayOverlap(p, m) || ratelimit.Fits(p, m) })
		if !known {
			d.failAt(fmt.Sprintf("%s[%d]", at, i), "no upstream serves a model %q%s", m, meant(m, names))
		}
	}
}

// mayOverlap tells whether two patterns may fit the same name, as far as their beginnings
// tell.
func mayOverlap(a, b string) bool {
	a, b = a[:strings.IndexAny(a+"*", `*?[\`)], b[:strings.IndexAny(b+"*", `*?[\`)]
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

// validatePriced finds models that money is counted for and that have no price. The demo
// models cost nothing.
func (d *decoder) validatePriced(at, rate string, cfg *Config, models []string) {
	names, patterns := served(cfg)
	for _, m := range slices.Concat(names, patterns) {
		for _, g := range cmpOr(models, []string{""}) {
			want := m
			switch {
			case g == "":
			case !isPattern(m) && !ratelimit.Fits(g, m), isPattern(m) && !isPattern(g) && !ratelimit.Fits(m, g):
				continue
			case isPattern(m):
				want = g
			}
			if !priced(cfg, want) && !priced(cfg, m) && !d.bad["prices"] {
				d.failAt(at+"."+rate, "the model %q has no price: add a [[prices]] table for it, or name the models of this limit", want)
				return
			}
		}
	}
}

func cmpOr[T any](s, otherwise []T) []T {
	if len(s) > 0 {
		return s
	}
	return otherwise
}

// priced tells whether a price is for a model, or for all models of a pattern.
func priced(cfg *Config, model string) bool {
	return slices.ContainsFunc(cfg.Prices, func(p Price) bool {
		return slices.ContainsFunc(p.Models, func(g string) bool { return g == model || ratelimit.Fits(g, model) })
	})
}
