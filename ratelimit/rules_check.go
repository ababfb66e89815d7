package ratelimit

import (
	"fmt"
	"strings"
)

// Largest amounts. Both limiters count exactly up to here: Redis scripts compute in
// float64, which holds integers up to 2^53.
const (
	MaxFlow   = 1e9  // of a bucket that fills steadily, amount and burst
	MaxBudget = 4e15 // of a calendar period, and of what one call can cost
	MaxPlaces = 1e6  // of Streams
)

const maxRuleID = 64

// RuleError is what is wrong with one rule, and how to mend it.
type RuleError struct {
	Index int    // of the rule in the list that was checked
	ID    string // of the rule; may be empty
	// Field is what to change: id, scope, dim, amount, per, burst, models, only, hard, policy
	// or grace.
	Field   string
	Problem string
}

func (e *RuleError) Error() string {
	if e.ID == "" {
		return fmt.Sprintf("limit %d: %s", e.Index+1, e.Problem)
	}
	return fmt.Sprintf("limit %q: %s", e.ID, e.Problem)
}

// RuleErrors are all that is wrong with a list of rules; at least one.
type RuleErrors []*RuleError

func (e RuleErrors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// CheckRules returns a RuleErrors with everything that is wrong with the rules, or nil.
func CheckRules(rules []Rule) error {
	var errs RuleErrors
	seen := make(map[string]int, len(rules))
	for i := range rules {
		r := &rules[i]
		r.check(func(field, format string, args ...any) {
			errs = append(errs, &RuleError{Index: i, ID: r.ID, Field: field, Problem: fmt.Sprintf(format, args...)})
		})
		if first, ok := seen[r.ID]; ok && r.ID != "" {
			errs = append(errs, &RuleError{Index: i, ID: r.ID, Field: "id",
				Problem: fmt.Sprintf("limit %d has this id already; give each limit its own", first+1)})
			continue
		}
		seen[r.ID] = i
	}
	if len(errs) == 0 {
		return nil
	}
	return errs
}

type report func(field, format string, args ...any)

func (r *Rule) check(bad report) {
	switch {
	case r.ID == "":
		bad("id", "it has no id; name it, with letters, digits, '.', '_' and '-'")
	case len(r.ID) > maxRuleID || strings.IndexFunc(r.ID, notInID) >= 0:
		bad("id", "the id may have up to %d letters, digits, '.', '_' and '-'", maxRuleID)
	}
	if r.Scope > KeyModel {
		bad("scope", "there is no such scope")
	}
	if r.OnTrouble > Closed {
		bad("policy", "there is no such policy")
	}
	if r.Grace < 0 || r.Grace > max(r.Amount, 0) {
		bad("grace", "the grace is between 0 and the amount")
	}
	r.checkAmount(bad)
	r.checkGlobs(bad)
}

func notInID(c rune) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return false
	default:
		return c != '.' && c != '_' && c != '-'
	}
}

func (r *Rule) checkAmount(bad report) {
	switch {
	case r.Dim > Streams:
		bad("dim", "there is no such dimension")
	case r.Per > CalendarMonth:
		bad("per", "there is no such period")
	case r.Dim == Streams && r.Per != AtOnce:
		bad("per", "calls at the same time have no period; leave it out")
	case r.Dim != Streams && r.Per == AtOnce:
		bad("per", "it has no period; say in what time the amount is meant")
	}
	switch {
	case r.Dim == Streams:
		r.checkRange(bad, MaxPlaces)
	case r.Per.calendar():
		r.checkRange(bad, MaxBudget)
	default:
		r.checkRange(bad, MaxFlow)
	}
	if r.Hard && !r.Per.calendar() {
		bad("hard", "only a budget of a calendar day or month can end an answer that runs; leave hard out or change the period")
	}
}

func (r *Rule) checkRange(bad report, most int64) {
	steady := most == MaxFlow
	switch {
	case r.Amount < 1:
		bad("amount", "the amount must be at least 1; to refuse all calls, disable the key or the model")
	case r.Amount > most && steady:
		bad("amount", "the amount is at most %d in a period that fills steadily; use a calendar day or month, or a shorter period", most)
	case r.Amount > most:
		bad("amount", "the amount is at most %d", most)
	}
	switch {
	case r.Burst < 0:
		bad("burst", "the burst must be at least 1; leave it out for the amount itself")
	case r.Burst != 0 && !steady && r.Burst != r.Amount:
		bad("burst", "a burst is for amounts that flow in steadily; leave it out")
	case r.Burst > most && steady:
		bad("burst", "the burst is at most %d", most)
	}
}

func (r *Rule) checkGlobs(bad report) {
	for _, g := range r.Models {
		checkOne(bad, "models", g)
	}
	for _, g := range r.Only {
		checkOne(bad, "only", g)
	}
	if len(r.Only) > 0 && r.Scope == Global {
		bad("only", "the global scope has no names to choose from; leave it out or change the scope")
	}
}

func checkOne(bad report, field, glob string) {
	if glob == "" {
		bad(field, "an empty name matches nothing; use \"*\" for all, or leave the list out")
	} else if err := checkGlob(glob); err != nil {
		bad(field, "pattern %q has %v; write \\[ for a bracket", glob, err)
	}
}
