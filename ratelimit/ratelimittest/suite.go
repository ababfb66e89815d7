// Package ratelimittest knows how a limiter must behave, whatever it keeps its buckets in:
// a suite of named cases, a model that is slow and obviously right, a random comparison
// of both, and a check of recorded histories.
package ratelimittest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// Harness is a limiter under test. Its buckets are full and it has no rules in force.
type Harness struct {
	Limiter ratelimit.Limiter
	Rules   *ratelimit.Rules // that the limiter follows
	// Now is the clock that the limiter decides by, in whole microseconds.
	Now func() time.Time
	// Advance moves that clock, and nothing else does; back when d is negative. Open calls
	// stay alive however far it goes: whoever renews their leases does so.
	Advance func(d time.Duration)
	// Rows are those posted so far, in any order, including all that were settled before. They
	// belong to the Orgs.
	Rows func() []ledger.Row
}

// Orgs are the organisations that the suite makes calls for.
var Orgs = []string{"acme", "other", ""}

// Start makes a Harness and cleans up when the test ends.
type Start func(t *testing.T) Harness

// Run runs all cases, each on a Harness of its own.
func Run(t *testing.T, start Start) {
	for _, c := range slices.Concat(rateCases, settleCases, calendarCases, placesCases, concurrentCases) {
		t.Run(c.name, func(t *testing.T) { c.run(newDesk(t, start)) })
	}
	t.Run("any order of operations agrees with the model", func(t *testing.T) { Compare(t, start) })
}

// a named case. The names of peers' failures say where they were seen.
type suiteCase struct {
	name string
	run  func(d *desk)
}

// desk is where the calls of one case are made.
type desk struct {
	*testing.T
	Harness
	calls map[string]*ratelimit.Call
}

func newDesk(t *testing.T, start Start) *desk {
	return &desk{T: t, Harness: start(t), calls: map[string]*ratelimit.Call{}}
}

var (
	anyone = ratelimit.Subject{Org: "acme", Team: "blue", User: "ann", Key: "ann-1", Model: "gpt-4o", IP: "192.0.2.1"}
	other  = ratelimit.Subject{Org: "acme", Team: "blue", User: "bob", Key: "bob-1", Model: "gpt-4o", IP: "192.0.2.2"}
)

// perMinute is a limit of every key.
func perMinute(dim ratelimit.Dim, amount int64) ratelimit.Rule {
	return ratelimit.Rule{ID: fmt.Sprintf("key-%d", dim), Scope: ratelimit.Key, Dim: dim, Amount: amount, Per: ratelimit.Minute}
}

// places is a limit of calls at the same time.
func places(amount int64) ratelimit.Rule {
	return ratelimit.Rule{ID: "places", Scope: ratelimit.Key, Dim: ratelimit.Streams, Amount: amount}
}

// tokens is the cost of one call with so many tokens in and out.
func tokens(in, out int64) ratelimit.Cost {
	return ratelimit.Cost{Requests: 1, Input: in, Output: out}
}

func (d *desk) rules(rules ...ratelimit.Rule) {
	d.Helper()
	if err := d.Rules.Replace(rules); err != nil {
		d.Fatal(err)
	}
}

func (d *desk) try(id string, who ratelimit.Subject, want ratelimit.Cost) (ratelimit.Grant, error) {
	c := &ratelimit.Call{ID: id, Who: who, Want: want}
	g, err := d.Limiter.Reserve(d.Context(), c)
	if err == nil && d.calls[id] == nil {
		d.calls[id] = c
	}
	return g, err
}

func (d *desk) reserve(id string, who ratelimit.Subject, want ratelimit.Cost) ratelimit.Grant {
	d.Helper()
	g, err := d.try(id, who, want)
	if err != nil {
		d.Fatalf("%s: %v, want it granted", id, err)
	}
	return g
}

// refuse reserves what must be denied.
func (d *desk) refuse(id string, who ratelimit.Subject, want ratelimit.Cost) *ratelimit.Denied {
	d.Helper()
	_, err := d.try(id, who, want)
	return d.denied(id, err)
}

func (d *desk) denied(id string, err error) *ratelimit.Denied {
	d.Helper()
	var denied *ratelimit.Denied
	if !errors.As(err, &denied) {
		d.Fatalf("%s: error %v, want it denied", id, err)
	}
	if len(denied.Over) == 0 {
		d.Fatalf("%s: denied without a limit", id)
	}
	return denied
}

func (d *desk) extend(id string, more ratelimit.Cost) error {
	return d.Limiter.Extend(d.Context(), d.calls[id], more)
}

func (d *desk) settle(id string, used ratelimit.Cost) {
	d.Helper()
	c := d.calls[id]
	if c == nil {
		c = &ratelimit.Call{ID: id, Who: anyone}
	}
	row := ledger.Row{ID: id, Org: c.Who.Org, Key: c.Who.Key, Start: d.Now(), Requests: used.Requests,
		Input: used.Input, Output: used.Output, Money: used.Money, End: "stop"}
	if err := d.Limiter.Settle(d.Context(), &ratelimit.Settlement{Call: c, Used: used, Row: row}); err != nil {
		d.Fatalf("settling %s: %v", id, err)
	}
}

func (d *desk) peek(who ratelimit.Subject) []ratelimit.Level {
	d.Helper()
	levels, err := d.Limiter.Peek(d.Context(), &who)
	if err != nil {
		d.Fatal(err)
	}
	return levels
}

// left is the level of the rule's bucket.
func (d *desk) left(who ratelimit.Subject, rule string) int64 {
	d.Helper()
	return d.level(who, rule).Left
}

func (d *desk) level(who ratelimit.Subject, rule string) ratelimit.Level {
	d.Helper()
	levels := d.peek(who)
	for _, l := range levels {
		if l.Rule.ID == rule {
			return l
		}
	}
	d.Fatalf("no bucket of rule %s among %d", rule, len(levels))
	return ratelimit.Level{}
}

func (d *desk) wantLeft(who ratelimit.Subject, rule string, want int64) {
	d.Helper()
	if got := d.left(who, rule); got != want {
		d.Fatalf("%s has %d left, want %d", rule, got, want)
	}
}

// wantWait checks that waiting for exactly the wait is needed and enough for the call.
func (d *desk) wantWait(who ratelimit.Subject, cost ratelimit.Cost, wait time.Duration) {
	d.Helper()
	denied := d.refuse("too soon", who, cost)
	if denied.RetryAfter != wait {
		d.Fatalf("retry after %v, want %v", denied.RetryAfter, wait)
	}
	d.Advance(wait - time.Microsecond)
	if again := d.refuse("still too soon", who, cost); again.RetryAfter != time.Microsecond {
		d.Fatalf("retry after %v, a microsecond before it was due", again.RetryAfter)
	}
	d.Advance(time.Microsecond)
	d.reserve("in time", who, cost)
}

// rows are the posted rows with the id.
func (d *desk) rows(id string) []ledger.Row {
	return slices.DeleteFunc(slices.Clone(d.Rows()), func(r ledger.Row) bool { return r.ID != id })
}

func overIDs(d *ratelimit.Denied) []string {
	var ids []string
	for _, s := range d.Over {
		ids = append(ids, s.Rule.ID)
	}
	return ids
}
