package router

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/providers"
)

// Rule sends some requests elsewhere than their model's name does.
type Rule struct {
	Name string
	When When
	Then Then
}

// When says which requests a rule is for: those for which all of it holds. What is left at
// its zero value holds for all. Names are patterns, in which * stands for any characters.
type When struct {
	// Models are the names that callers may ask for. A name that is another one's alias or
	// version is meant by that one too.
	Models []string
	Keys   []string
	Orgs   []string
	Teams  []string // as "org/team", or "team" of any
	Groups []string // one of them is enough
	Header []HeaderIs
	Needs  providers.Feature
	Stream *bool
	// PromptOver is how many tokens of the prompt, as estimated, are not enough.
	PromptOver int64
	Hours      Hours
	// Share is the part of all callers, 0 to 1: always the same ones, by Per and Name. nil is all.
	Share *float64
	Per   Per
}

// HeaderIs is a header of the request, and the patterns of which one of its values must match one.
type HeaderIs struct {
	Name string
	Any  []string
}

// Hours are times of the week. From and Until are minutes of the day; when Until is not after From it is
// on the next day, and Days are those on which they begin. The zero value is always.
type Hours struct {
	Days        uint8 // 1 << time.Weekday; 0 is all
	From, Until int
	Zone        *time.Location // nil is UTC
}

// Per is what Share keeps together.
type Per uint8

const (
	// PerUser is the user that a request names, else the key.
	PerUser Per = iota
	// PerKey is the key.
	PerKey
	// PerSession is the session, else the user.
	PerSession
)

// Then is what a rule does. One that only has a Shadow lets the rules behind it decide.
type Then struct {
	Model   string // that is asked; "" is the request's own
	Version string // of it
	Tier    *int   // the priority of the targets that are asked first
	Refuse  string // what the caller is told; "" lets it pass
	Shadow  Shadow
}

func (t *Then) decides() bool {
	return t.Model != "" || t.Version != "" || t.Tier != nil || t.Refuse != ""
}

// Rules are looked at in order; the first one that holds decides. They never change, and are
// safe for concurrent use.
type Rules struct {
	rules   []rule
	names   *Catalog
	headers []string
	now     func() time.Time
}

// rule is a Rule, made ready.
type rule struct {
	Rule
	models, keys, orgs, teams, groups globs
	headers                           []headerGlobs
	timed                             bool
	salt                              uint64
	decides                           bool
}

type headerGlobs struct {
	name string
	any  globs
}

// NewRules makes rules ready that have been checked. names tells which names are one model's.
func NewRules(names *Catalog, rules []Rule) *Rules {
	out := &Rules{names: names, now: time.Now}
	for _, r := range rules {
		w := &r.When
		u := rule{Rule: r, salt: hashString(r.Name), decides: r.Then.decides(), timed: w.Hours != Hours{}}
		u.models, u.keys, u.orgs, u.groups = newGlobs(w.Models), newGlobs(w.Keys), newGlobs(w.Orgs), newGlobs(w.Groups)
		for _, h := range w.Header {
			name := http.CanonicalHeaderKey(h.Name)
			if !slices.Contains(out.headers, name) {
				out.headers = append(out.headers, name)
			}
			u.headers = append(u.headers, headerGlobs{name, newGlobs(h.Any)})
		}
		teams := slices.Clone(w.Teams)
		for i, t := range teams {
			if !strings.Contains(t, "/") {
				teams[i] = "*/" + t
			}
		}
		u.teams = newGlobs(teams)
		out.rules = append(out.rules, u)
	}
	return out
}

// Headers are the names of the headers that rules look at, in canonical form. It is read only.
func (r *Rules) Headers() []string {
	if r == nil {
		return nil
	}
	return r.headers
}

// Apply sets the route of a request whose hints are known, once, before anybody else reads
// it. The error is the refusal of a rule.
func (r *Rules) Apply(req *providers.Request) error {
	if r == nil || len(r.rules) == 0 {
		return nil
	}
	f := facts{req: req, base: r.names.Base(req.Model), clock: r.now, prompt: -1}
	f.versioned = req.Hints.Version != "" || r.names.Versioned(req.Model)
	for i := range r.rules {
		u := &r.rules[i]
		if u.holds(&f) != held {
			continue
		}
		if req.Route.Shadow == "" && u.Then.Shadow.drawn() {
			req.Route.Shadow = u.Then.Shadow.Model
		}
		if u.decides {
			return u.decide(req)
		}
	}
	return nil
}

func (u *rule) decide(req *providers.Request) error {
	x := &req.Route
	x.Rule, x.Model, x.Version = u.Name, u.Then.Model, u.Then.Version
	if u.Then.Tier != nil {
		x.Tier = *u.Then.Tier + 1
	}
	if u.Then.Refuse != "" {
		x.Shadow = ""
		return &providers.Error{Kind: providers.Forbidden, Code: "refused_by_rule", Param: "model", Message: u.Then.Refuse}
	}
	return nil
}
