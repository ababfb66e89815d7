package router

import (
	"slices"
	"strings"
	"time"

	"sluice/providers"
)

// facts are what rules look at; what costs something is found when it is first asked for.
type facts struct {
	req       *providers.Request
	base      string // the name behind an alias or a version
	versioned bool   // the caller has asked for a version
	clock     func() time.Time
	now       time.Time
	prompt    int64 // -1: not estimated yet
	hashed    [PerSession + 1]bool
	hashes    [PerSession + 1]uint64
}

// outcome is why a rule does not hold.
type outcome uint8

const (
	held outcome = iota
	otherModel
	ownVersion
	otherStream
	otherKey
	otherOrg
	otherTeam
	otherGroup
	otherHeader
	noNeed
	otherHours
	otherShare
	shortPrompt
)

var outcomes = [...]string{
	"it holds", "the model is another", "the caller has asked for a version itself", "the answer is, or is not, streamed", "the key is another",
	"the organisation is another", "the team is another", "the key is in none of the groups", "a header is missing or another",
	"the request does not need all of that", "it is another time", "the caller is not in the share", "the prompt is too short",
}

func (o outcome) String() string { return outcomes[o] }

// holds asks the cheap questions first.
func (u *rule) holds(f *facts) outcome {
	w, h := &u.When, &f.req.Hints
	switch {
	case len(u.models) > 0 && !u.models.fit(f.req.Model) && (f.base == f.req.Model || !u.models.fit(f.base)):
		return otherModel
	case f.versioned && u.Then.Version != "" && u.Then.Model == "":
		return ownVersion
	case w.Stream != nil && *w.Stream != f.req.Stream:
		return otherStream
	case len(u.keys) > 0 && !u.keys.fit(h.Key):
		return otherKey
	case len(u.orgs) > 0 && !u.orgs.fit(h.Org):
		return otherOrg
	case len(u.teams) > 0 && !u.teams.fit(h.Team):
		return otherTeam
	case len(u.groups) > 0 && !u.groups.fitOne(h.Groups):
		return otherGroup
	case w.Needs != 0 && !f.req.Needs().Has(w.Needs):
		return noNeed
	}
	for i := range u.headers {
		if !u.headers[i].any.fitOne(h.Header[u.headers[i].name]) {
			return otherHeader
		}
	}
	switch {
	case u.timed && !w.Hours.at(f.time()):
		return otherHours
	case w.Share != nil && point(u.salt, f.who(w.Per)) >= *w.Share:
		return otherShare
	case w.PromptOver > 0 && f.tokens() <= w.PromptOver:
		return shortPrompt
	default:
		return held
	}
}

// globs are patterns, made ready. glob has what stands before the only star and behind it.
type globs []glob

type glob struct {
	text       string
	head, tail string
	stars      int
}

func newGlobs(patterns []string) (out globs) {
	for _, p := range patterns {
		g := glob{text: p, stars: strings.Count(p, "*")}
		g.head, g.tail, _ = strings.Cut(p, "*")
		out = append(out, g)
	}
	return out
}

func (gs globs) fit(name string) bool {
	for i := range gs {
		if gs[i].fits(name) {
			return true
		}
	}
	return false
}

func (gs globs) fitOne(names []string) bool {
	for _, n := range names {
		if gs.fit(n) {
			return true
		}
	}
	return false
}

func (g *glob) fits(name string) bool {
	switch g.stars {
	case 0:
		return g.text == name
	case 1:
		return len(name) >= len(g.head)+len(g.tail) && strings.HasPrefix(name, g.head) && strings.HasSuffix(name, g.tail)
	default:
		return Matches(g.text, name)
	}
}

// fits is for configurations: of patterns, it tells whether one lets another through.
func fits(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Matches(p, name) })
}

// who is the hash of whom a share is taken by.
func (f *facts) who(p Per) uint64 {
	if !f.hashed[p] {
		f.hashed[p], f.hashes[p] = true, hashString(p.of(&f.req.Hints))
	}
	return f.hashes[p]
}

func (f *facts) time() time.Time {
	if f.now.IsZero() {
		f.now = f.clock()
	}
	return f.now
}

func (f *facts) tokens() int64 {
	if f.prompt < 0 {
		f.prompt = f.req.PromptEstimate()
	}
	return f.prompt
}

// at reports whether a time is one of these.
func (h *Hours) at(now time.Time) bool {
	zone := h.Zone
	if zone == nil {
		zone = time.UTC
	}
	now = now.In(zone)
	hour, minute, _ := now.Clock()
	m, day := hour*60+minute, now.Weekday()
	on := func(d time.Weekday) bool { return h.Days == 0 || h.Days&(1<<d) != 0 }
	switch {
	case h.From == h.Until:
		return on(day)
	case h.From < h.Until:
		return m >= h.From && m < h.Until && on(day)
	case m >= h.From:
		return on(day)
	default:
		return m < h.Until && on((day+6)%7)
	}
}

// of is what a share of callers is taken by.
func (p Per) of(h *providers.Hints) string {
	switch {
	case p == PerKey:
		return h.Key
	case p == PerSession && h.Session != "":
		return h.Session
	default:
		return h.User
	}
}

// point is where somebody stands among all, from 0 to below 1: the same at all replicas and
// after every restart, and elsewhere for each rule.
func point(salt, who uint64) float64 { return float64(mix(salt^who)>>11) / (1 << 53) }

func hashString(text string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return mix(h)
}

// Hides reports whether a rule that stands before another leaves nothing to it: it decides,
// and holds wherever that one does. names tells which names are one model's.
func (r *Rule) Hides(later *Rule, base func(string) string) bool {
	a, b := &r.When, &later.When
	return r.Then.decides() && (a.Share == nil || *a.Share >= 1) && a.Hours.covers(&b.Hours) && a.PromptOver <= b.PromptOver && b.Needs.Has(a.Needs) &&
		(a.Stream == nil || b.Stream != nil && *a.Stream == *b.Stream) &&
		coversModels(a.Models, b.Models, base) && covers(a.Keys, b.Keys) && covers(a.Orgs, b.Orgs) && covers(a.Teams, b.Teams) && covers(a.Groups, b.Groups) &&
		coversHeaders(a.Header, b.Header) && !(r.Then.Version != "" && r.Then.Model == "")
}

func (h *Hours) covers(later *Hours) bool { return *h == Hours{} || *h == *later }

// covers reports whether each of the later patterns lets through only what one of the
// earlier ones does; none let through all.
func covers(before, later []string) bool {
	if len(before) == 0 || slices.Contains(before, "*") {
		return true
	}
	return len(later) > 0 && !slices.ContainsFunc(later, func(p string) bool { return !fits(before, p) })
}

func coversModels(before, later []string, base func(string) string) bool {
	if covers(before, later) {
		return true
	}
	return len(later) > 0 && !slices.ContainsFunc(later, func(p string) bool { return !fits(before, p) && !fits(before, base(p)) })
}

// coversHeaders reports whether each of the earlier demands is one of the later too.
func coversHeaders(before, later []HeaderIs) bool {
	for i := range before {
		if !slices.ContainsFunc(later, func(h HeaderIs) bool {
			return strings.EqualFold(h.Name, before[i].Name) && covers(before[i].Any, h.Any)
		}) {
			return false
		}
	}
	return true
}
