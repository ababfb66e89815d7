package router

import (
	"net/http"
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
	case len(w.Models) > 0 && !fits(w.Models, f.req.Model) && (f.base == f.req.Model || !fits(w.Models, f.base)):
		return otherModel
	case f.versioned && u.Then.Version != "" && u.Then.Model == "":
		return ownVersion
	case w.Stream != nil && *w.Stream != f.req.Stream:
		return otherStream
	case len(w.Keys) > 0 && !fits(w.Keys, h.Key):
		return otherKey
	case len(w.Orgs) > 0 && !fits(w.Orgs, h.Org):
		return otherOrg
	case len(w.Teams) > 0 && !fits(w.Teams, h.Team):
		return otherTeam
	case len(w.Groups) > 0 && !fitsOne(w.Groups, h.Groups):
		return otherGroup
	case w.Needs != 0 && !f.req.Needs().Has(w.Needs):
		return noNeed
	}
	for i := range w.Header {
		if !w.Header[i].in(h.Header) {
			return otherHeader
		}
	}
	switch {
	case w.Hours != Hours{} && !w.Hours.at(f.time()):
		return otherHours
	case w.Share != nil && point(u.salt, w.Per.of(h)) >= *w.Share:
		return otherShare
	case w.PromptOver > 0 && f.tokens() <= w.PromptOver:
		return shortPrompt
	default:
		return held
	}
}

func fits(patterns []string, name string) bool {
	for _, p := range patterns {
		if p == name || Matches(p, name) {
			return true
		}
	}
	return false
}

func fitsOne(patterns, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return fits(patterns, name) })
}

func (h *HeaderIs) in(header http.Header) bool { return fitsOne(h.Any, header[h.Name]) }

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
func point(salt uint64, who string) float64 { return float64(hashString(salt, who)>>11) / (1 << 53) }

func hashString(seed uint64, text string) uint64 {
	h := uint64(14695981039346656037) ^ seed // FNV-1a
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return mix(h)
}

// Hides reports whether a rule that stands before another leaves nothing to it: it decides,
// and holds wherever that one does. names tells which names are one model's.
func (r *Rule) Hides(later *Rule, base func(string) string) bool {
	a, b := &r.When, &later.When
	return r.Then.decides() && a.Per.covers(a, b) && a.Hours.covers(&b.Hours) && a.PromptOver <= b.PromptOver && b.Needs.Has(a.Needs) &&
		(a.Stream == nil || b.Stream != nil && *a.Stream == *b.Stream) &&
		coversModels(a.Models, b.Models, base) && covers(a.Keys, b.Keys) && covers(a.Orgs, b.Orgs) && covers(a.Teams, b.Teams) && covers(a.Groups, b.Groups) &&
		coversHeaders(a.Header, b.Header) && !(r.Then.Version != "" && r.Then.Model == "")
}

func (Per) covers(a, b *When) bool { return a.Share == nil || *a.Share >= 1 }

func (h *Hours) covers(later *Hours) bool { return *h == Hours{} || *h == *later }

// covers reports whether each of the later patterns lets through only what one of the
// earlier ones does; none let through all.
func covers(before, later []string) bool {
	if len(before) == 0 || fits(before, "*") && slices.Contains(before, "*") {
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
		if !slices.ContainsFunc(later, func(h HeaderIs) bool { return strings.EqualFold(h.Name, before[i].Name) && covers(before[i].Any, h.Any) }) {
			return false
		}
	}
	return true
}
