package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrQuery is wrapped by errors that mean: the question itself is wrong, and wrong again
// if asked again.
var ErrQuery = errors.New("bad ledger query")

// ErrClosed is returned by a book that was closed.
var ErrClosed = errors.New("the ledger is closed")

// maxSums bounds the answer of Usage. A question with a longer answer is refused.
const maxSums = 100_000

// Match says which rows count. An empty name matches all but for Org, which is exact
// unless AllOrgs is set: no caller sees another tenant by leaving something out.
type Match struct {
	AllOrgs                             bool
	Org, Team, User, Key, Model, Target string
	// Posted is in [Since, Until). A zero time is no bound. Usage widens both to whole hours.
	Since, Until time.Time
}

// Query asks for sums.
type Query struct {
	Match
	By []Group // none: one sum of everything
}

// Filter asks for rows, newest first.
type Filter struct {
	Match
	ID, End string // empty matches all
	Limit   int    // rows per page: default 100, at most 1,000
	Cursor  string // Next of the page before
}

// Page is one page of rows. Next is empty on the last one.
type Page struct {
	Rows []Row  `json:"rows"`
	Next string `json:"next,omitempty"`
}

const (
	defaultLimit = 100
	maxLimit     = 1_000
)

// Group is what sums are grouped by. Hours and days are of UTC.
type Group uint8

// The groups.
const (
	ByOrg Group = iota
	ByTeam
	ByUser
	ByKey
	ByModel
	ByTarget
	ByHour
	ByDay
)

var groupNames = [...]string{"org", "team", "user", "key", "model", "target", "hour", "day"}

func (g Group) String() string { return groupNames[g] }

// ParseGroup reads the name of a group. Its error wraps ErrQuery.
func ParseGroup(s string) (Group, error) {
	i := slices.Index(groupNames[:], s)
	if i < 0 {
		return 0, fmt.Errorf("%w: cannot group by %q, only by %s", ErrQuery, s, strings.Join(groupNames[:], ", "))
	}
	return Group(i), nil
}

// Sum is what the rows of one group add up to. Of the names only those grouped by are set;
// "(other)" stands for names that were summed together.
type Sum struct {
	From      time.Time     `json:"from,omitzero"` // begin of the hour or day
	Org       string        `json:"org,omitempty"`
	Team      string        `json:"team,omitempty"`
	User      string        `json:"user,omitempty"`
	Key       string        `json:"key,omitempty"`
	Model     string        `json:"model,omitempty"`
	Target    string        `json:"target,omitempty"`
	Calls     int64         `json:"calls"`
	Requests  int64         `json:"requests"` // calls that were not refunded
	Input     int64         `json:"input"`
	Cached    int64         `json:"cached"`
	Output    int64         `json:"output"`
	Reasoning int64         `json:"reasoning"`
	Frames    int64         `json:"frames"`
	Money     int64         `json:"money"`     // nano-dollars
	Estimated int64         `json:"estimated"` // calls whose tokens the gateway counted
	Time      time.Duration `json:"time"`      // that the calls took together, to the microsecond
}

func (s *Sum) set(a *amounts) {
	s.Calls, s.Requests, s.Input, s.Cached, s.Output = a[0], a[1], a[2], a[3], a[4]
	s.Reasoning, s.Frames, s.Money, s.Estimated = a[5], a[6], a[7], a[8]
	s.Time = time.Duration(a[9]) * time.Microsecond
}

// normal cuts the names as those of rows are cut.
func (m Match) normal() Match {
	for _, s := range []*string{&m.Org, &m.Team, &m.User, &m.Key, &m.Model, &m.Target} {
		*s = cut(*s)
	}
	return m
}

func (m *Match) names(org string, n *name) bool {
	either := func(want, got string) bool { return want == "" || want == got }
	return (m.AllOrgs || m.Org == org) && either(m.Team, n.team) && either(m.User, n.user) &&
		either(m.Key, n.key) && either(m.Model, n.model) && either(m.Target, n.target)
}

func (m *Match) at(posted time.Time) bool {
	return !posted.Before(m.Since) && (m.Until.IsZero() || posted.Before(m.Until))
}

// hours are the first hour since 1970 that counts, and the first after them.
func (m *Match) hours() (first, end int64) {
	first, end = 0, 1<<32-1
	if !m.Since.IsZero() {
		first = max(0, hourOf(m.Since))
	}
	if !m.Until.IsZero() {
		end = min(end, hourOf(m.Until.Add(time.Hour-1)))
	}
	return first, end
}

func hourOf(t time.Time) int64 {
	s := t.Unix()
	if s < 0 {
		return -1
	}
	return s / 3600
}

func (f *Filter) row(r *Row) bool {
	n := r.name()
	return f.names(r.Org, &n) && f.at(r.Posted) && (f.ID == "" || f.ID == r.ID) && (f.End == "" || f.End == r.End)
}

func (f Filter) normal() Filter {
	f.Match = f.Match.normal()
	f.ID, f.End = cut(f.ID), cut(f.End)
	if f.Limit <= 0 {
		f.Limit = defaultLimit
	}
	f.Limit = min(f.Limit, maxLimit)
	return f
}

// place is the group of a sum.
type place struct {
	hour int64 // since 1970
	org  string
	name
}

// grouping adds hourly sums up to those asked for.
type grouping struct {
	match Match
	by    [len(groupNames)]bool
	sums  map[place]*amounts
}

func newGrouping(q Query) (*grouping, error) {
	g := &grouping{match: q.Match.normal(), sums: map[place]*amounts{}}
	for _, by := range q.By {
		if int(by) >= len(g.by) {
			return nil, fmt.Errorf("%w: unknown group %d", ErrQuery, by)
		}
		g.by[by] = true
	}
	if g.by[ByHour] && g.by[ByDay] {
		return nil, fmt.Errorf("%w: hours and days at once", ErrQuery)
	}
	return g, nil
}

// add counts an hourly sum, if it matches.
func (g *grouping) add(hour int64, org string, n name, a *amounts) error {
	if !g.match.names(org, &n) {
		return nil
	}
	at := g.place(hour, org, n)
	sum := g.sums[at]
	if sum == nil {
		if len(g.sums) == maxSums {
			return fmt.Errorf("%w: the answer has more than %d sums", ErrQuery, maxSums)
		}
		sum = new(amounts)
		g.sums[at] = sum
	}
	sum.add(a)
	return nil
}

func (g *grouping) place(hour int64, org string, n name) place {
	var at place
	pick := func(by Group, to *string, from string) {
		if g.by[by] {
			*to = from
		}
	}
	pick(ByOrg, &at.org, org)
	pick(ByTeam, &at.team, n.team)
	pick(ByUser, &at.user, n.user)
	pick(ByKey, &at.key, n.key)
	pick(ByModel, &at.model, n.model)
	pick(ByTarget, &at.target, n.target)
	switch {
	case g.by[ByHour]:
		at.hour = hour
	case g.by[ByDay]:
		at.hour = hour - hour%24
	}
	return at
}

// result is in order of time, then of names.
func (g *grouping) result() []Sum {
	out := make([]Sum, 0, len(g.sums))
	for at, a := range g.sums {
		s := Sum{Org: at.org, Team: at.team, User: at.user, Key: at.key, Model: at.model, Target: at.target}
		if g.by[ByHour] || g.by[ByDay] {
			s.From = time.Unix(at.hour*3600, 0).UTC()
		}
		s.set(a)
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Sum) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Org, b.Org), cmp.Compare(a.Team, b.Team), cmp.Compare(a.User, b.User),
			cmp.Compare(a.Key, b.Key), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Target, b.Target))
	})
	return out
}
