package ratelimittest

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// Compare runs random operations on a limiter and on the Model, and fails when an answer
// differs. All checks share one Harness; each has rules and calls of its own.
func Compare(t *testing.T, start Start) {
	h := start(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine(rt, h)
		defer m.settleAll(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"":         m.agree,
			"reserve":  m.reserve,
			"again":    m.again,
			"extend":   m.extend,
			"settle":   m.settle,
			"stranger": m.stranger,
			"advance":  m.advance,
			"lower":    m.lower,
		})
	})
}

// machine drives a limiter and the model with the same operations.
type machine struct {
	h     Harness
	model *Model
	run   int64
	rules []ratelimit.Rule
	who   []ratelimit.Subject
	calls []*ratelimit.Call // granted; settled ones for as long as they are remembered
	open  map[string]bool
	ended map[string]time.Time
	names int           // of calls so far
	wait  time.Duration // that the last denial named
}

var runs atomic.Int64

func newMachine(rt *rapid.T, h Harness) *machine {
	m := &machine{h: h, model: NewModel(h.Rules, h.Now), run: runs.Add(1), open: map[string]bool{}, ended: map[string]time.Time{}}
	for i := range rapid.IntRange(1, 5).Draw(rt, "rules") {
		m.rules = append(m.rules, drawRule(rt, fmt.Sprintf("r%d-%d", m.run, i)))
	}
	own := drawRule(rt, fmt.Sprintf("own%d", m.run))
	m.who = []ratelimit.Subject{
		{Org: "acme", Team: "t", User: "u", Key: "k", Model: "m/1", IP: "2001:db8::1"},
		{Org: "acme", Team: "t", User: "v", Key: "l", Model: "m/2", IP: "2001:db8::1"},
		{Org: "acme", Team: "t", User: "u", Key: "own", Model: "m/2", Rules: []*ratelimit.Rule{&own}},
		{Org: "", Key: "k", Model: "m/1", IP: "192.0.2.7"},
		{Provider: "openai"},
	}
	if err := h.Rules.Replace(m.rules); err != nil {
		rt.Fatal(err)
	}
	return m
}

// drawRule makes any valid rule, small enough to be felt.
func drawRule(rt *rapid.T, id string) ratelimit.Rule {
	r := ratelimit.Rule{
		ID:     id,
		Scope:  ratelimit.Scope(rapid.IntRange(0, int(ratelimit.KeyModel)).Draw(rt, "scope")),
		Dim:    ratelimit.Dim(rapid.IntRange(0, int(ratelimit.Streams)).Draw(rt, "dim")),
		Amount: rapid.Int64Range(1, 200).Draw(rt, "amount"),
	}
	if rapid.IntRange(0, 9).Draw(rt, "large") == 0 {
		r.Amount *= 4_999_999
	}
	if r.Dim == ratelimit.Streams {
		r.Amount = 1 + r.Amount%4
		return r
	}
	r.Per = ratelimit.Per(rapid.IntRange(1, int(ratelimit.CalendarMonth)).Draw(rt, "per"))
	if calendar(r.Per) {
		r.Hard = rapid.Bool().Draw(rt, "hard")
	} else if rapid.Bool().Draw(rt, "has burst") {
		r.Burst = rapid.Int64Range(1, 300).Draw(rt, "burst")
	}
	if rapid.IntRange(0, 3).Draw(rt, "one model") == 0 {
		r.Models = []string{"*/1"}
	}
	return r
}

func drawCost(rt *rapid.T) ratelimit.Cost {
	n := func(most int64, name string) int64 { return rapid.Int64Range(0, most).Draw(rt, name) }
	return ratelimit.Cost{Requests: n(2, "requests"), Input: n(60, "input"), Output: n(150, "output"),
		Frames: n(20, "frames"), FrameBytes: n(90, "bytes"), Money: n(100, "money")}
}

// agree compares all levels.
func (m *machine) agree(rt *rapid.T) {
	for i := range m.who {
		got, err := m.h.Limiter.Peek(rt.Context(), &m.who[i])
		want, _ := m.model.Peek(rt.Context(), &m.who[i])
		if err != nil || !slices.Equal(plainLevels(got), plainLevels(want)) {
			rt.Fatalf("levels of %s/%s at %v: %v, error %v\nwant %v", m.who[i].Org, m.who[i].Key, m.h.Now(), plainLevels(got), err, plainLevels(want))
		}
	}
}

func (m *machine) reserve(rt *rapid.T) {
	m.names++
	c := &ratelimit.Call{
		ID:   fmt.Sprintf("%d/%d", m.run, m.names),
		Who:  m.who[rapid.IntRange(0, len(m.who)-1).Draw(rt, "who")],
		Want: drawCost(rt),
	}
	if m.same(rt, c) {
		m.calls = append(m.calls, c)
		m.open[c.ID] = true
	}
}

// same reserves with both and compares the answers. It reports whether they granted.
func (m *machine) same(rt *rapid.T, c *ratelimit.Call) bool {
	got, err := m.h.Limiter.Reserve(rt.Context(), c)
	want, wantErr := m.model.Reserve(rt.Context(), c)
	m.compare(rt, err, wantErr)
	if wantErr == nil && (got.Hard != want.Hard || !slices.Equal(plainLevels(got.Levels), plainLevels(want.Levels))) {
		rt.Fatalf("granted %v, want %v", plainLevels(got.Levels), plainLevels(want.Levels))
	}
	return wantErr == nil
}

// compare fails unless both errors deny the same.
func (m *machine) compare(rt *rapid.T, err, wantErr error) {
	got, want := plainDenial(err), plainDenial(wantErr)
	if got.err != want.err || got.tooLarge != want.tooLarge || got.wait != want.wait || !slices.Equal(got.over, want.over) {
		rt.Fatalf("answer %+v, want %+v", got, want)
	}
	if want.wait > 0 {
		m.wait = want.wait
	}
}

// again repeats a reservation that was granted, with the same id.
func (m *machine) again(rt *rapid.T) {
	m.same(rt, m.pick(rt))
}

// pick draws a call that was granted, open or settled.
func (m *machine) pick(rt *rapid.T) *ratelimit.Call {
	if len(m.calls) == 0 {
		rt.Skip("no call yet")
	}
	return m.calls[rapid.IntRange(0, len(m.calls)-1).Draw(rt, "call")]
}

// extend lets a limiter whose budgets are in two places stop at the first that denies: it
// names one of those that the model names.
func (m *machine) extend(rt *rapid.T) {
	c, more := m.pick(rt), drawCost(rt)
	got := plainDenial(m.h.Limiter.Extend(rt.Context(), c, more))
	want := plainDenial(m.model.Extend(rt.Context(), c, more))
	missing := slices.ContainsFunc(got.over, func(p plain) bool { return !slices.Contains(want.over, p) })
	if got.err != want.err || missing || (len(got.over) > 0) != (len(want.over) > 0) {
		rt.Fatalf("answer %+v, want %+v", got, want)
	}
}

func (m *machine) settle(rt *rapid.T) {
	m.end(rt, m.pick(rt), drawCost(rt))
}

// stranger settles a call that nobody reserved.
func (m *machine) stranger(rt *rapid.T) {
	m.names++
	c := &ratelimit.Call{ID: fmt.Sprintf("%d/%d", m.run, m.names), Who: m.who[0]}
	m.end(rt, c, drawCost(rt))
	m.settleBoth(rt, c, drawCost(rt))
}

func (m *machine) end(rt *rapid.T, c *ratelimit.Call, used ratelimit.Cost) {
	delete(m.open, c.ID)
	if _, again := m.ended[c.ID]; !again {
		m.ended[c.ID] = m.h.Now()
	}
	m.settleBoth(rt, c, used)
}

func (m *machine) settleBoth(rt *rapid.T, c *ratelimit.Call, used ratelimit.Cost) {
	s := &ratelimit.Settlement{Call: c, Used: used, Row: ledger.Row{ID: c.ID, Org: c.Who.Org, Output: used.Output}}
	for _, l := range []ratelimit.Limiter{m.h.Limiter, m.model} {
		if err := l.Settle(rt.Context(), s); err != nil {
			rt.Fatal(err)
		}
	}
}

// advance moves the clock, never back: then it would matter who has looked at a bucket when,
// which is not part of the contract. Named cases are about that.
func (m *machine) advance(rt *rapid.T) {
	now := m.h.Now()
	d := rapid.SampledFrom([]time.Duration{
		time.Microsecond, 7919 * time.Microsecond, time.Second, 59 * time.Second, time.Hour, 25 * time.Hour, 60 * 24 * time.Hour,
		m.wait - time.Microsecond, m.wait, calendarBegin(ratelimit.CalendarMonth, now).AddDate(0, 1, 0).Sub(now),
		calendarBegin(ratelimit.CalendarDay, now).AddDate(0, 0, 1).Sub(now) - time.Microsecond,
	}).Draw(rt, "time")
	m.h.Advance(max(d, 0))
	m.calls = slices.DeleteFunc(m.calls, func(c *ratelimit.Call) bool {
		at, ended := m.ended[c.ID]
		return ended && m.h.Now().Sub(at) > ratelimit.Remembered
	})
}

// lower makes a full bucket smaller, while no call is open. How fast it fills stays: from
// when on another rate counts is not part of the contract.
func (m *machine) lower(rt *rapid.T) {
	if len(m.open) > 0 {
		rt.Skip("calls are open")
	}
	m.rules = slices.Clone(m.rules)
	r := &m.rules[rapid.IntRange(0, len(m.rules)-1).Draw(rt, "rule")]
	full := rapid.Int64Range(1, r.Full()).Draw(rt, "full")
	if r.Per == ratelimit.AtOnce || calendar(r.Per) {
		r.Amount = full
	} else {
		r.Burst = full
	}
	if err := m.h.Rules.Replace(m.rules); err != nil {
		rt.Fatal(err)
	}
}

// settleAll ends what is open and compares the rows of the run.
func (m *machine) settleAll(rt *rapid.T) {
	for _, c := range m.calls {
		if m.open[c.ID] {
			m.end(rt, c, ratelimit.Cost{})
		}
	}
	ids := map[string]int64{}
	for _, r := range m.h.Rows() {
		ids[r.ID] = r.Output
	}
	for _, r := range m.model.Rows() {
		if got, ok := ids[r.ID]; !ok || got != r.Output {
			rt.Errorf("row of %s: %d tokens out (there: %t), want %d", r.ID, got, ok, r.Output)
		}
	}
	if n := len(m.model.Rows()); n != len(m.ended) {
		rt.Errorf("%d rows in the model, %d calls ended", n, len(m.ended))
	}
}

// plain is a level without what differs between limiters: a guess.
type plain struct {
	rule, name string
	left, need int64
	reset      time.Duration
}

func plainLevel(l ratelimit.Level) plain {
	p := plain{rule: l.Rule.ID, name: l.Name, left: l.Left, reset: l.Reset}
	if l.Rule.Dim == ratelimit.Streams {
		p.reset = min(p.reset, 1)
	}
	return p
}

func plainLevels(levels []ratelimit.Level) []plain {
	out := make([]plain, len(levels))
	for i, l := range levels {
		out[i] = plainLevel(l)
	}
	return out
}

// denial is an error of a limiter in a form that can be compared.
type denial struct {
	err      string // of another kind
	over     []plain
	wait     time.Duration
	tooLarge bool
}

func plainDenial(err error) denial {
	var d *ratelimit.Denied
	if err == nil {
		return denial{}
	}
	if !errors.As(err, &d) {
		return denial{err: err.Error()}
	}
	out := denial{wait: d.RetryAfter, tooLarge: d.TooLarge}
	for _, s := range d.Over {
		p := plainLevel(s.Level)
		p.name, p.need = "", s.Need // an extension need not know the name
		out.over = append(out.over, p)
		if s.Rule.Dim == ratelimit.Streams {
			out.wait = 0 // a guess
		}
	}
	return out
}
