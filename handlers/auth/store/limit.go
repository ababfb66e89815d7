package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice/ratelimit"
)

// Limit is one limit that a key carries. It is written like a table of a key's limits in the
// configuration: {"scope": "key", "models": ["gpt-*"], "requests_per_minute": 60}.
type Limit struct {
	Scope  string // key or key_model; "" is key
	Models []string
	// Rates are the amounts by name: "requests_per_minute", "concurrent", "usd_per_month".
	// Those of US dollars are in nano-dollars (1e-9) here and in dollars where they are
	// written; those of bytes are in bytes.
	Rates     map[string]int64
	Burst     int64 // with one rate that flows; 0 is as much as the rate
	Hard      bool
	OnTrouble string // local, open or closed; "" is local

	rest map[string]json.RawMessage // of newer versions
}

// flow is what a rate counts, and in what time.
type flow struct {
	dim ratelimit.Dim
	per ratelimit.Per
}

var flows = flowsByName()

func flowsByName() map[string]flow {
	out := map[string]flow{
		"concurrent":    {ratelimit.Streams, ratelimit.AtOnce},
		"usd_per_day":   {ratelimit.Money, ratelimit.CalendarDay},
		"usd_per_month": {ratelimit.Money, ratelimit.CalendarMonth},
	}
	dims := map[string]ratelimit.Dim{
		"requests": ratelimit.Requests, "tokens": ratelimit.Tokens, "input_tokens": ratelimit.Input,
		"output_tokens": ratelimit.Output, "frames": ratelimit.Frames, "frame_bytes": ratelimit.FrameBytes,
	}
	pers := map[string]ratelimit.Per{"second": ratelimit.Second, "minute": ratelimit.Minute, "hour": ratelimit.Hour, "day": ratelimit.Day}
	for dim, d := range dims {
		for per, p := range pers {
			out[dim+"_per_"+per] = flow{d, p}
		}
	}
	return out
}

var (
	limitScopes = map[string]ratelimit.Scope{"": ratelimit.Key, "key": ratelimit.Key, "key_model": ratelimit.KeyModel}
	troubles    = map[string]ratelimit.Policy{"": ratelimit.Local, "local": ratelimit.Local, "open": ratelimit.Open, "closed": ratelimit.Closed}
)

// rules makes one rule of each rate, named as those of keys in the configuration are:
// "key.requests_per_minute", and ".2" behind it for the second limit.
func (l *Limit) rules(i int) []ratelimit.Rule {
	var out []ratelimit.Rule
	for _, name := range slices.Sorted(maps.Keys(l.Rates)) {
		f := flows[name]
		r := ratelimit.Rule{
			ID: "key." + name, Scope: limitScopes[l.Scope], Dim: f.dim, Per: f.per, Amount: l.Rates[name], Burst: l.Burst,
			Models: l.Models, Hard: l.Hard, OnTrouble: troubles[l.OnTrouble],
		}
		if i > 0 {
			r.ID += "." + strconv.Itoa(i+1)
		}
		out = append(out, r)
	}
	return out
}

// Unknown names the fields that were read and are not known here, in order.
func (l *Limit) Unknown() []string { return slices.Sorted(maps.Keys(l.rest)) }

// LimitsOf writes rules, such as those of a key of the configuration, as limits: one for
// each.
func LimitsOf(rules []*ratelimit.Rule) []Limit {
	out := make([]Limit, 0, len(rules))
	for _, r := range rules {
		l := Limit{Scope: nameOf(limitScopes, r.Scope), Models: r.Models, Burst: r.Burst, Hard: r.Hard, OnTrouble: nameOf(troubles, r.OnTrouble)}
		if name := nameOf(flows, flow{r.Dim, r.Per}); name != "" {
			l.Rates = map[string]int64{name: r.Amount}
		}
		out = append(out, l)
	}
	return out
}

// nameOf is the longest name of a value: "" stands for a default.
func nameOf[T comparable](names map[string]T, value T) (found string) {
	for name, v := range names {
		if v == value && len(name) > len(found) {
			found = name
		}
	}
	return found
}

// check reports what is wrong with the limit, by field.
func (l *Limit) check(i int, bad func(field, format string, args ...any)) {
	field := func(name string) string { return fmt.Sprintf("limits[%d].%s", i, name) }
	if _, ok := limitScopes[l.Scope]; !ok {
		bad(field("scope"), "want key or key_model")
	}
	if _, ok := troubles[l.OnTrouble]; !ok {
		bad(field("on_trouble"), "want local, open or closed")
	}
	if len(l.Rates) == 0 {
		bad(fmt.Sprintf("limits[%d]", i), "a rate is required, such as requests_per_minute")
	}
	if l.Burst != 0 && len(l.Rates) > 1 {
		bad(field("burst"), "a burst needs a limit with a single rate")
	}
	for name := range l.Rates {
		if _, ok := flows[name]; !ok {
			bad(field(name), "there is no such rate")
			return
		}
	}
	var wrong ratelimit.RuleErrors
	if errors.As(ratelimit.CheckRules(l.rules(i)), &wrong) {
		for _, e := range wrong {
			name := e.Field
			if name == "amount" {
				name = strings.TrimPrefix(e.ID, "key.")
				name, _, _ = strings.Cut(name, ".")
			}
			bad(field(name), "%s", e.Problem)
		}
	}
}

// limitJSON are the fields beside the rates.
type limitJSON struct {
	Scope     string   `json:"scope,omitempty"`
	Models    []string `json:"models,omitempty"`
	Burst     int64    `json:"burst,omitempty"`
	Hard      bool     `json:"hard,omitempty"`
	OnTrouble string   `json:"on_trouble,omitempty"`
}

// MarshalJSON writes the rates beside the other fields.
func (l Limit) MarshalJSON() ([]byte, error) {
	more := make(map[string]json.RawMessage, len(l.rest)+len(l.Rates))
	maps.Copy(more, l.rest)
	for name, amount := range l.Rates {
		more[name] = json.RawMessage(rateText(name, amount))
	}
	return marshalWith(limitJSON{l.Scope, l.Models, l.Burst, l.Hard, l.OnTrouble}, more)
}

// UnmarshalJSON keeps fields that it does not know.
func (l *Limit) UnmarshalJSON(text []byte) error {
	var in limitJSON
	rest, err := unmarshalWith(text, &in)
	if err != nil {
		return err
	}
	*l = Limit{Scope: in.Scope, Models: in.Models, Burst: in.Burst, Hard: in.Hard, OnTrouble: in.OnTrouble}
	for name, value := range rest {
		if _, ok := flows[name]; !ok {
			continue
		}
		amount, err := readRate(name, value)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if l.Rates == nil {
			l.Rates = map[string]int64{}
		}
		l.Rates[name] = amount
		delete(rest, name)
	}
	l.rest = rest
	return nil
}

// nano is how many nano-dollars a dollar has.
const nano = 1_000_000_000

func isMoney(name string) bool { return flows[name].dim == ratelimit.Money }

// rateText writes whole numbers, and dollars as a decimal that is exact.
func rateText(name string, amount int64) string {
	if !isMoney(name) || amount%nano == 0 {
		if isMoney(name) {
			amount /= nano
		}
		return strconv.FormatInt(amount, 10)
	}
	sign := ""
	if amount < 0 {
		sign, amount = "-", -amount
	}
	return fmt.Sprintf("%s%d.%s", sign, amount/nano, strings.TrimRight(fmt.Sprintf("%09d", amount%nano), "0"))
}

var errDollars = errors.New("want an amount in US dollars with at most nine decimals")

// readRate reads a number, or a text that holds one.
func readRate(name string, value json.RawMessage) (int64, error) {
	value = bytes.Trim(value, `"`)
	if !isMoney(name) {
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			return 0, errors.New("want a whole number")
		}
		return n, nil
	}
	whole, part, point := strings.Cut(string(value), ".")
	if part = strings.TrimRight(part, "0"); len(part) > 9 || len(whole) > 9 || whole == "" || point && len(value) == len(whole)+1 {
		return 0, errDollars
	}
	digits := whole + part + "000000000"[len(part):]
	if strings.Trim(digits, "0123456789") != "" {
		return 0, errDollars
	}
	return strconv.ParseInt(digits, 10, 64)
}
