package admin

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// Fleet is what answers come from, at one moment.
type Fleet struct {
	Upstreams []Upstream
	Models    []Model
}

// Upstream is one server.
type Upstream struct {
	Name, Kind string
	URL        string // without credentials
	Local      bool
	Drained    bool
	Running    int64     // attempts
	MaxRunning int64     // 0: no bound
	Declared   []string  // names and patterns of models, by the configuration
	Listed     []string  // models that it lists
	ListedAt   time.Time // zero: it never gave a list
	ListError  string    // of the last try; "" when it was good
}

// Model is a name that callers ask for, with the targets behind it.
type Model struct {
	Name, Balance string
	Declared      bool     // by the configuration, not by an upstream's list
	Capabilities  []string // that its targets have together
	Targets       []Target
}

// Target is one place where a model is asked. Calls and ErrorRate are of the last minutes.
type Target struct {
	Name, Upstream, Model, Version string
	Weight, Priority, MaxRunning   int
	State                          string
	Share                          float64       // of the calls that would be its own, 0 to 1
	Wait                           time.Duration // until it may be asked again
	Running                        int64
	Calls, Samples                 int
	ErrorRate                      float64
	Peak, P50, P95                 time.Duration // to the first content; 0: not known
	LastError                      string
	LastErrorAt                    time.Time
	Check                          *Check // nil: it is not checked
}

// Check is what the active checks of a target have told.
type Check struct {
	At            time.Time
	Took          time.Duration
	Error         string
	Count, Failed int64
}

type upstreamJSON struct {
	Name       string     `json:"name"`
	Kind       string     `json:"kind"`
	URL        string     `json:"url,omitempty"`
	Local      bool       `json:"local"`
	Drained    bool       `json:"drained"`
	Running    int64      `json:"running"`
	MaxRunning *int64     `json:"max_running"`
	Declared   []string   `json:"declared_models"`
	Listed     []string   `json:"listed_models"`
	ListedAt   *time.Time `json:"listed_at"`
	ListError  string     `json:"list_error,omitempty"`
}

type modelJSON struct {
	Name         string       `json:"name"`
	Balance      string       `json:"balance,omitempty"`
	Declared     bool         `json:"declared"`
	Capabilities []string     `json:"capabilities"`
	Targets      []targetJSON `json:"targets"`
}

type targetJSON struct {
	Name        string     `json:"name"`
	Upstream    string     `json:"upstream"`
	Model       string     `json:"model"`
	Version     string     `json:"version,omitempty"`
	Weight      int        `json:"weight"`
	Priority    int        `json:"priority"`
	State       string     `json:"state"`
	Share       float64    `json:"share"`
	Wait        *millis    `json:"wait_ms"`
	Running     int64      `json:"running"`
	MaxRunning  *int64     `json:"max_running"`
	Calls       int        `json:"calls"`
	ErrorRate   *float64   `json:"error_rate"` // null without calls
	Peak        *millis    `json:"ttft_expected_ms"`
	P50         *millis    `json:"ttft_p50_ms"`
	P95         *millis    `json:"ttft_p95_ms"`
	Samples     int        `json:"ttft_samples"`
	LastUsed    *time.Time `json:"last_used"` // as far as the remembered requests go back
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at"`
	Errors      []oops     `json:"recent_errors"` // newest first
	Check       *checkJSON `json:"check"`
}

// oops is an attempt that failed.
type oops struct {
	At      time.Time `json:"at"`
	Request string    `json:"request_id"`
	Outcome string    `json:"outcome"`
	Status  int       `json:"status"`
	Message string    `json:"message"`
}

type checkJSON struct {
	At     time.Time `json:"at"`
	Took   millis    `json:"took_ms"`
	Error  string    `json:"error,omitempty"`
	Count  int64     `json:"count"`
	Failed int64     `json:"failed"`
}

type fleetJSON struct {
	Node      string         `json:"node"`
	Upstreams []upstreamJSON `json:"upstreams"`
	Models    []modelJSON    `json:"models"`
}

func (s *server) targetRoutes() []route {
	return []route{{method: http.MethodGet, path: "/targets", role: viewer, query: []string{"model", "upstream"}, handle: s.targets}}
}

// fleetTime bounds the asking of upstreams that have not told their models yet.
const fleetTime = 2 * time.Second

func (s *server) targets(c *call) error {
	if s.opt.Fleet == nil {
		return notFound("This gateway does not tell of its targets.")
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), fleetTime)
	defer cancel()
	fleet, past := s.opt.Fleet(ctx), s.pastOfTargets()
	model, upstream := c.query("model"), c.query("upstream")
	out := fleetJSON{Node: s.opt.System.Node, Upstreams: []upstreamJSON{}, Models: []modelJSON{}}
	for i := range fleet.Upstreams {
		if u := &fleet.Upstreams[i]; upstream == "" || u.Name == upstream {
			out.Upstreams = append(out.Upstreams, upstreamOut(u))
		}
	}
	for i := range fleet.Models {
		m := &fleet.Models[i]
		if model != "" && m.Name != model || upstream != "" && !slices.ContainsFunc(m.Targets, func(t Target) bool { return t.Upstream == upstream }) {
			continue
		}
		j := modelJSON{Name: m.Name, Balance: m.Balance, Declared: m.Declared, Capabilities: listed(m.Capabilities), Targets: []targetJSON{}}
		for k := range m.Targets {
			if t := &m.Targets[k]; upstream == "" || t.Upstream == upstream {
				j.Targets = append(j.Targets, targetOut(t, past[t.Name]))
			}
		}
		out.Models = append(out.Models, j)
	}
	return c.reply(http.StatusOK, out)
}

// listed is never null in JSON.
func listed(s []string) []string { return append([]string{}, s...) }

// bounded is nil for 0, which means no bound.
func bounded(n int64) *int64 {
	if n <= 0 {
		return nil
	}
	return &n
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func upstreamOut(u *Upstream) upstreamJSON {
	return upstreamJSON{
		Name: u.Name, Kind: u.Kind, URL: u.URL, Local: u.Local, Drained: u.Drained, Running: u.Running, MaxRunning: bounded(u.MaxRunning),
		Declared: listed(u.Declared), Listed: listed(u.Listed), ListedAt: instant(u.ListedAt), ListError: u.ListError,
	}
}

func targetOut(t *Target, past targetPast) targetJSON {
	out := targetJSON{
		Name: t.Name, Upstream: t.Upstream, Model: t.Model, Version: t.Version, Weight: t.Weight, Priority: t.Priority, State: t.State, Share: t.Share,
		Wait: some(t.Wait), Running: t.Running, MaxRunning: bounded(int64(t.MaxRunning)), Calls: t.Calls, Peak: some(t.Peak), P50: some(t.P50), P95: some(t.P95),
		Samples: t.Samples, LastUsed: instant(past.used), LastError: t.LastError, LastErrorAt: instant(t.LastErrorAt), Errors: append([]oops{}, past.errors...),
	}
	if t.Calls > 0 {
		out.ErrorRate = &t.ErrorRate
	}
	if k := t.Check; k != nil {
		out.Check = &checkJSON{At: k.At.UTC(), Took: millis(k.Took), Error: k.Error, Count: k.Count, Failed: k.Failed}
	}
	return out
}

// targetPast is what the remembered requests tell of a target.
type targetPast struct {
	used   time.Time
	errors []oops
}

const recentErrors = 5

func (s *server) pastOfTargets() map[string]targetPast {
	out := map[string]targetPast{}
	if s.opt.Requests == nil {
		return out
	}
	s.opt.Requests.Requests(false, 0, func(x *Request) bool {
		for i := len(x.Tries) - 1; i >= 0; i-- {
			t := &x.Tries[i]
			p := out[t.Target]
			if at := x.Start.Add(t.End); at.After(p.used) {
				p.used = at
			}
			if upstreamsFault(t.Outcome) && len(p.errors) < recentErrors {
				p.errors = append(p.errors, oops{x.Start.Add(t.End).UTC(), x.ID, t.Outcome, t.Status, t.Message})
			}
			out[t.Target] = p
		}
		return true
	})
	return out
}

// upstreamsFault tells the ends of attempts that a target is to blame for.
func upstreamsFault(outcome string) bool {
	const prefix = "upstream_"
	return outcome == "rate_limited" || len(outcome) > len(prefix) && outcome[:len(prefix)] == prefix && outcome != "upstream_refused"
}
