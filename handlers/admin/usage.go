package admin

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/ratelimit/ledger"
)

// Ledger is what calls have cost, by all gateways that share it.
type Ledger interface {
	Usage(ctx context.Context, q ledger.Query) ([]ledger.Sum, error)
	Rows(ctx context.Context, f ledger.Filter) (ledger.Page, error)
}

// usageNames are what sums can be grouped by, beside time. An upstream is the first part of
// a target.
var usageNames = []string{"org", "team", "user", "key", "model", "target", "upstream"}

const (
	maxGroups   = 3
	usualTop    = 20
	mostTop     = 1_000
	mostUsage   = 20_000               // rows of an answer
	mostHours   = 31 * 24 * time.Hour  // that can be asked for by hours
	mostDays    = 366 * 24 * time.Hour // at all
	usualUsage  = 7 * 24 * time.Hour
	ledgerTime  = 5 * time.Second // in which the ledger must answer
	otherGroups = "(other)"
)

func (s *server) usageRoutes() []route {
	q := append([]string{"start", "end", "group_by", "interval", "top", "sort", "format"}, usageNames...)
	return []route{{method: http.MethodGet, path: "/usage", role: viewer, query: q, handle: s.usage}}
}

// usageQuery is what sums are asked for.
type usageQuery struct {
	ledger.Query
	by       []string // of usageNames
	interval string   // "", "hour" or "day"
	upstream string
	top      int
	sort     string
}

// usageSum is what the calls of a group add up to. Of the names those grouped by are set.
type usageSum struct {
	Start     *time.Time `json:"start,omitempty"`
	Org       *string    `json:"org,omitempty"`
	Team      *string    `json:"team,omitempty"`
	User      *string    `json:"user,omitempty"`
	Key       *string    `json:"key,omitempty"`
	KeyName   string     `json:"key_name,omitempty"`
	Model     *string    `json:"model,omitempty"`
	Target    *string    `json:"target,omitempty"`
	Upstream  *string    `json:"upstream,omitempty"`
	Calls     int64      `json:"calls"`
	Requests  int64      `json:"requests"` // calls without those that were given back
	Input     int64      `json:"input_tokens"`
	Cached    int64      `json:"cached_tokens"`
	Output    int64      `json:"output_tokens"`
	Reasoning int64      `json:"reasoning_tokens"`
	Frames    int64      `json:"frames"`
	Cost      usd        `json:"cost_usd"`
	Estimated int64      `json:"estimated_calls"`
	Took      millis     `json:"took_ms"` // by all of them together
}

func (u *usageSum) add(s *ledger.Sum) {
	u.Calls += s.Calls
	u.Requests += s.Requests
	u.Input += s.Input
	u.Cached += s.Cached
	u.Output += s.Output
	u.Reasoning += s.Reasoning
	u.Frames += s.Frames
	u.Cost += usd(s.Money)
	u.Estimated += s.Estimated
	u.Took += millis(s.Time)
}

// usageSorts say by what groups are ranked.
var usageSorts = map[string]func(*usageSum) int64{
	"cost":     func(u *usageSum) int64 { return int64(u.Cost) },
	"tokens":   func(u *usageSum) int64 { return u.Input + u.Output },
	"input":    func(u *usageSum) int64 { return u.Input },
	"output":   func(u *usageSum) int64 { return u.Output },
	"requests": func(u *usageSum) int64 { return u.Calls },
}

type usageAnswer struct {
	Start    time.Time  `json:"start"`
	End      time.Time  `json:"end"`
	GroupBy  []string   `json:"group_by"`
	Interval string     `json:"interval,omitempty"`
	Groups   int        `json:"groups"` // that there are, without regard to time
	Folded   int        `json:"folded"` // of them, those that "(other)" stands for
	Total    usageSum   `json:"total"`
	Data     []usageSum `json:"data"`
}

func (c *call) usageQuery() (q usageQuery, err error) {
	if q.Since, q.Until, err = c.period(usualUsage); err != nil {
		return q, err
	}
	q.Since = q.Since.Truncate(time.Hour)
	q.Until = q.Until.Add(time.Hour - 1).Truncate(time.Hour)
	q.Org, q.Team, q.User, q.Key = c.query("org"), c.query("team"), c.query("user"), c.query("key")
	q.Model, q.Target, q.upstream = c.query("model"), c.query("target"), c.query("upstream")
	q.AllOrgs = q.Org == ""
	if err := q.readGroups(c.query("group_by"), c.query("interval")); err != nil {
		return q, err
	}
	if q.top = usualTop; c.query("top") != "" {
		if q.top, err = c.number("top", mostTop); err != nil {
			return q, err
		}
	}
	if q.sort = cmp.Or(c.query("sort"), "cost"); usageSorts[q.sort] == nil {
		return q, badField("sort", "sort must be cost, tokens, input, output or requests.")
	}
	switch long := q.Until.Sub(q.Since); {
	case q.interval == "hour" && long > mostHours+time.Hour:
		return q, badField("start", "By hours up to 31 days can be asked for at once.")
	case long > mostDays+time.Hour:
		return q, badField("start", "Up to 366 days can be asked for at once.")
	}
	return q, nil
}

func (q *usageQuery) readGroups(names, interval string) error {
	for name := range strings.SplitSeq(names, ",") {
		switch {
		case names == "":
		case !slices.Contains(usageNames, name):
			return badField("group_by", "group_by lists up to three of %s, such as key,model.", strings.Join(usageNames, ", "))
		case slices.Contains(q.by, name):
			return badField("group_by", "%s stands twice in group_by.", name)
		default:
			q.by = append(q.by, name)
		}
	}
	if len(q.by) > maxGroups {
		return badField("group_by", "Group by up to three names.")
	}
	for _, name := range q.by {
		if name == "upstream" {
			name = "target"
		}
		g, err := ledger.ParseGroup(name)
		if err != nil {
			return err
		}
		q.By = append(q.By, g)
	}
	if q.upstream != "" {
		q.By = append(q.By, ledger.ByTarget)
	}
	switch q.interval = interval; interval {
	case "":
	case "hour":
		q.By = append(q.By, ledger.ByHour)
	case "day":
		q.By = append(q.By, ledger.ByDay)
	default:
		return badField("interval", "interval must be hour or day.")
	}
	return nil
}

// number reads a parameter between 1 and most.
func (c *call) number(name string, most int) (int, error) {
	n := 0
	for _, d := range c.query(name) {
		if d < '0' || d > '9' || n > most {
			n = -1
			break
		}
		n = n*10 + int(d-'0')
	}
	if n < 1 || n > most {
		return 0, badField(name, "%s must be a number from 1 to %d.", name, most)
	}
	return n, nil
}

func (s *server) usage(c *call) error {
	if s.opt.Ledger == nil {
		return notFound("This gateway keeps no usage records.")
	}
	q, err := c.usageQuery()
	if err != nil {
		return err
	}
	asCSV, err := c.wantsCSV()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), ledgerTime)
	defer cancel()
	sums, err := s.opt.Ledger.Usage(ctx, q.Query)
	if err != nil {
		return ledgerFault(err)
	}
	out := usageOf(&q, sums)
	if len(out.Data) > mostUsage {
		return badField("interval", "The answer would have more than %d rows. Ask for a shorter time, for days instead of hours, or for a smaller top.", mostUsage)
	}
	for i := range out.Data {
		if u := &out.Data[i]; u.Key != nil {
			u.KeyName = s.keyName(*u.Key)
		}
	}
	if asCSV {
		return c.usageCSV(&out)
	}
	return c.reply(http.StatusOK, out)
}

// keyName is what people call an issued key.
func (s *server) keyName(key string) string {
	if s.opt.KeyName == nil {
		return ""
	}
	return s.opt.KeyName(key)
}

func ledgerFault(err error) error {
	if errors.Is(err, ledger.ErrQuery) {
		return badField("", "The usage records cannot answer this: %s.", strings.TrimPrefix(err.Error(), ledger.ErrQuery.Error()+": "))
	}
	return unavailable("The usage records cannot be read now: try again in a moment.")
}

// upstreamOf is the first part of a target's name.
func upstreamOf(target string) string {
	name, _, _ := strings.Cut(target, "/")
	return name
}

// group is what a sum is told by; names stand in the order of group_by.
type group [maxGroups]string

func (q *usageQuery) groupOf(s *ledger.Sum) (g group) {
	for i, name := range q.by {
		switch name {
		case "org":
			g[i] = s.Org
		case "team":
			g[i] = s.Team
		case "user":
			g[i] = s.User
		case "key":
			g[i] = s.Key
		case "model":
			g[i] = s.Model
		case "target":
			g[i] = s.Target
		case "upstream":
			g[i] = upstreamOf(s.Target)
		}
	}
	return g
}

func (q *usageQuery) named(g group, u usageSum) usageSum {
	for i, name := range q.by {
		v := &g[i]
		switch name {
		case "org":
			u.Org = v
		case "team":
			u.Team = v
		case "user":
			u.User = v
		case "key":
			u.Key = v
		case "model":
			u.Model = v
		case "target":
			u.Target = v
		case "upstream":
			u.Upstream = v
		}
	}
	return u
}

// usageOf ranks the groups over the whole time, and folds those beyond the top into one.
func usageOf(q *usageQuery, sums []ledger.Sum) usageAnswer {
	out := usageAnswer{Start: q.Since, End: q.Until, GroupBy: append([]string{}, q.by...), Interval: q.interval, Data: []usageSum{}}
	ranks := map[group]*usageSum{}
	sums = slices.DeleteFunc(sums, func(s ledger.Sum) bool { return q.upstream != "" && upstreamOf(s.Target) != q.upstream })
	for i := range sums {
		out.Total.add(&sums[i])
		g := q.groupOf(&sums[i])
		if ranks[g] == nil {
			ranks[g] = new(usageSum)
		}
		ranks[g].add(&sums[i])
	}
	place := q.places(ranks)
	out.Groups, out.Folded = len(ranks), max(0, len(ranks)-q.top)
	var other group
	for i := range q.by {
		other[i] = otherGroups
	}
	type at struct {
		time int64
		group
	}
	rows := map[at]*usageSum{}
	for i := range sums {
		g := q.groupOf(&sums[i])
		if place[g] >= q.top {
			g = other
		}
		k := at{sums[i].From.Unix(), g}
		if rows[k] == nil {
			rows[k] = new(usageSum)
			if q.interval != "" {
				rows[k].Start = &sums[i].From
			}
		}
		rows[k].add(&sums[i])
	}
	order := make([]at, 0, len(rows))
	for k := range rows {
		order = append(order, k)
	}
	place[other] = len(ranks) // behind all others
	slices.SortFunc(order, func(a, b at) int {
		return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(place[a.group], place[b.group]), slices.Compare(a.group[:], b.group[:]))
	})
	for _, k := range order {
		out.Data = append(out.Data, q.named(k.group, *rows[k]))
	}
	return out
}

// places are the ranks of the groups, from 0.
func (q *usageQuery) places(sums map[group]*usageSum) map[group]int {
	order := make([]group, 0, len(sums))
	for g := range sums {
		order = append(order, g)
	}
	by := usageSorts[q.sort]
	slices.SortFunc(order, func(a, b group) int {
		x, y := sums[a], sums[b]
		return cmp.Or(cmp.Compare(by(y), by(x)), cmp.Compare(y.Input+y.Output, x.Input+x.Output), cmp.Compare(y.Calls, x.Calls), slices.Compare(a[:], b[:]))
	})
	out := make(map[group]int, len(order)+1)
	for i, g := range order {
		out[g] = i
	}
	return out
}

func (c *call) usageCSV(out *usageAnswer) error {
	columns := append([]string{"start"}, out.GroupBy...)
	t := c.csv("usage", append(columns, "key_name", "calls", "requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "frames", "cost_usd", "estimated_calls", "took_ms")...)
	for i := range out.Data {
		u := &out.Data[i]
		if u.Start == nil {
			t.time(out.Start)
		} else {
			t.time(*u.Start)
		}
		for _, name := range out.GroupBy {
			t.text(*map[string]*string{"org": u.Org, "team": u.Team, "user": u.User, "key": u.Key, "model": u.Model, "target": u.Target, "upstream": u.Upstream}[name])
		}
		t.text(u.KeyName).number(u.Calls).number(u.Requests).number(u.Input).number(u.Cached).number(u.Output).number(u.Reasoning).number(u.Frames).
			exact(u.Cost.String()).number(u.Estimated).exact(u.Took.String())
		if err := t.next(); err != nil {
			return err
		}
	}
	return t.done()
}
