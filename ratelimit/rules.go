package ratelimit

import (
	"sync/atomic"
)

// Rules are the declared limits in force. All methods may be called concurrently; who
// holds Rules sees a Replace at the next call.
type Rules struct{ set atomic.Pointer[ruleSet] }

// ruleSet never changes once it is in force.
type ruleSet struct {
	rules []*Rule
	byID  map[string]*Rule
	byIP  bool // a rule goes by the caller's address
}

// NewRules checks and copies the declared rules. The error is a RuleErrors.
func NewRules(declared []Rule) (*Rules, error) {
	r := new(Rules)
	if err := r.Replace(declared); err != nil {
		return nil, err
	}
	return r, nil
}

// Replace puts other rules in force, for all who hold r. Buckets whose rule keeps its ID
// keep their level, up to the new burst. A rule that does not hold changes nothing; the
// error is a RuleErrors.
func (r *Rules) Replace(declared []Rule) error {
	if err := CheckRules(declared); err != nil {
		return err
	}
	set := &ruleSet{byID: make(map[string]*Rule, len(declared))}
	for i := range declared {
		rule := declared[i]
		set.rules = append(set.rules, &rule)
		set.byID[rule.ID] = &rule
		set.byIP = set.byIP || rule.Scope == IP
	}
	r.set.Store(set)
	return nil
}

// All are the declared rules in their order. They are read only.
func (r *Rules) All() []*Rule { return r.set.Load().rules }

// Match appends the buckets that a call of who takes from: those of the declared rules in
// their order, then those of the subject's own. A rule of the subject takes the place of a
// declared one with the same ID. It allocates only to grow dst.
func (r *Rules) Match(dst []Bucket, who *Subject) []Bucket {
	return r.set.Load().match(dst, who)
}

func (s *ruleSet) match(dst []Bucket, who *Subject) []Bucket {
	names := who.names()
	for _, rule := range s.rules {
		if rule.applies(who, &names) && !hasID(who.Rules, rule.ID) {
			dst = append(dst, rule.bucket(who, &names))
		}
	}
	for i, rule := range who.Rules {
		if rule.applies(who, &names) && !hasID(who.Rules[:i], rule.ID) {
			dst = append(dst, rule.bucket(who, &names))
		}
	}
	return dst
}

func hasID(rules []*Rule, id string) bool {
	for _, rule := range rules {
		if rule.ID == id {
			return true
		}
	}
	return false
}

// Bucket names one bucket. Two Buckets are the same one if all but the Rule's content
// is equal: its ID counts.
type Bucket struct {
	Rule  *Rule
	Org   string // of the tenant; "" in shared scopes
	Name  string // in the scope; "" for Global
	Model string // for KeyModel
}

// Label is the name as operators and callers read it. It allocates for KeyModel.
func (b Bucket) Label() string {
	if b.Model == "" {
		return b.Name
	}
	return b.Name + "/" + b.Model
}

// names are a subject's, by scope. That of Global stands for everybody.
type names [KeyModel + 1]string

func (who *Subject) names() names {
	n := names{
		Global: "everybody", Provider: who.Provider, IP: who.IP, Model: who.Model,
		Org: who.Org, Team: who.Team, User: who.User, Key: who.Key,
	}
	if who.Model != "" {
		n[KeyModel] = who.Key
	}
	return n
}

// applies reports whether the rule has a bucket that a call of who takes from.
func (r *Rule) applies(who *Subject, names *names) bool {
	return names[r.Scope] != "" &&
		(r.Scope == Provider) == (who.Provider != "") &&
		(len(r.Models) == 0 || anyGlob(r.Models, who.Model)) &&
		(len(r.Only) == 0 || anyGlob(r.Only, names[r.Scope]))
}

func (r *Rule) bucket(who *Subject, names *names) Bucket {
	b := Bucket{Rule: r}
	if r.Scope != Global {
		b.Name = names[r.Scope]
	}
	if !r.Scope.Shared() {
		b.Org = who.Org
	}
	if r.Scope == KeyModel {
		b.Model = who.Model
	}
	return b
}

func anyGlob(patterns []string, name string) bool {
	for _, p := range patterns {
		if globMatch(p, name) {
			return true
		}
	}
	return false
}
