package main

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"sluice/handlers"
	"sluice/handlers/admin"
	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/providers/router"
	"sluice/ratelimit"
	"sluice/streaming"
)

// addTraffic gives the admin API what runs, what ran, what it cost and where it went.
func (l *lasting) addTraffic(o *admin.Options) {
	o.Streams, o.Requests = streams{l.keys.live}, requests{l.observer}
	o.Limits, o.Fleet, o.KeyName, o.Explain = limits{l}, l.fleet, l.keyName, l.explain
	o.Registry = registry{l.discovery}
	if book, ok := l.quota.handlers.Ledger.(admin.Ledger); ok {
		o.Ledger = book
	}
}

// keyName is what people call an issued key.
func (l *lasting) keyName(key string) string {
	id, err := auth.ParseKeyID(key)
	if err != nil || l.keys.why != "" {
		return ""
	}
	if k := l.keys.store.Lookup(id); k != nil {
		return k.Name
	}
	return ""
}

// streams are the answers that run in this process.
type streams struct{ live *handlers.Live }

// Streams implements admin.Streams.
func (s streams) Streams(keep func(*admin.Stream) bool) []admin.Stream {
	var out []admin.Stream
	var one admin.Stream
	s.live.Snapshot(func(a *handlers.LiveAnswer) bool {
		if one = streamOf(a); keep(&one) {
			out = append(out, one)
		}
		return false
	})
	return out
}

// Stream implements admin.Streams.
func (s streams) Stream(id string) (admin.Stream, bool) {
	a, tries, ok := s.live.Find(id)
	out := streamOf(&a)
	out.Tries = triesOf(tries)
	return out, ok
}

// Kill implements admin.Streams.
func (s streams) Kill(id string) bool { return s.live.Kill(id, handlers.ErrKilled) }

func streamOf(a *handlers.LiveAnswer) admin.Stream {
	out := admin.Stream{
		ID: a.ID, Op: a.Op, Model: a.Model, Target: a.Target, Transport: a.Transport, State: string(a.State), Client: a.Remote,
		Key: a.Key, KeyName: a.KeyName, Org: a.Org, Team: a.Team, User: a.User, Whole: !a.Stream,
		Start: a.Start, TTFT: a.TTFT, LastToken: a.LastToken, Blocked: a.Blocked, Place: a.Place, Attempts: a.Attempts, Heartbeats: a.Heartbeats,
		Reserved: a.Reserved, Money: a.Money,
	}
	setUsage(&out, &a.Usage)
	return out
}

func setUsage(s *admin.Stream, u *streaming.UsageData) {
	s.Input, s.Cached, s.Output, s.Reasoning, s.Estimated = u.Prompt, u.Cached, u.Completion, u.Reasoning, u.Estimated
}

func triesOf(tries []handlers.FinishedTry) (out []admin.Try) {
	for _, t := range tries {
		out = append(out, admin.Try{Target: t.Target, Begin: t.Begin, End: t.End, Outcome: t.Outcome, Status: t.Status, Message: t.Message})
	}
	return out
}

// requests are those that ended last.
type requests struct{ observer *handlers.Observer }

// Requests implements admin.Requests.
func (r requests) Requests(refused bool, before uint64, visit func(*admin.Request) bool) {
	from := r.observer.Recent()
	if refused {
		from = r.observer.Refused()
	}
	from.Rows(before, func(f *handlers.Finished) bool {
		x := requestOf(f)
		return visit(&x)
	})
}

// Request implements admin.Requests.
func (r requests) Request(id string) (admin.Request, bool) {
	f, ok := r.observer.Recent().Find(id)
	if !ok {
		f, ok = r.observer.Refused().Find(id)
	}
	return requestOf(&f), ok
}

func requestOf(f *handlers.Finished) admin.Request {
	out := admin.Request{
		Stream: admin.Stream{
			ID: f.ID, Op: f.Op, Model: f.Model, Target: f.Target, Transport: f.Transport, Client: f.Remote,
			Key: f.Key, KeyName: f.KeyName, Org: f.Org, Team: f.Team, User: f.User, Whole: !f.Stream,
			Start: f.Start, TTFT: f.TTFT, LastToken: f.LastToken, Attempts: f.Attempts, Heartbeats: f.Heartbeats,
			Reserved: f.Reserved, Money: f.Money, Tries: triesOf(f.Tries),
		},
		Number: f.Number, Took: f.Took, Outcome: f.End, Status: f.Status, Finish: f.Finish, Limit: f.Limit, Code: f.Code, Message: f.Message,
		Malformed: f.Malformed, Repaired: f.Repaired, Unstopped: f.Unstopped,
	}
	setUsage(&out.Stream, &f.Usage)
	return out
}

// limits are those in force.
type limits struct{ *lasting }

// Rules implements admin.Limits.
func (l limits) Rules() []*ratelimit.Rule { return l.quota.rules.All() }

// Peek implements admin.Limits.
func (l limits) Peek(ctx context.Context, who *ratelimit.Subject) ([]ratelimit.Level, error) {
	return l.quota.handlers.Limiter.Peek(ctx, who)
}

// Fullest implements admin.Limits.
func (l limits) Fullest(n int) ([]ratelimit.Level, bool) {
	if m, ok := l.quota.handlers.Limiter.(*ratelimit.Memory); ok {
		return m.Fullest(n), true
	}
	return nil, false
}

// Caller implements admin.Limits.
func (l limits) Caller(key string) (auth.Principal, bool) {
	if id, err := auth.ParseKeyID(key); err == nil && l.keys.why == "" {
		if who, err := l.keys.store.Named(id); err == nil {
			return who, true
		}
	}
	return l.newest.Load().keys.Named(key)
}

// fleet is what the configuration in force answers from, and how that stands.
func (l *lasting) fleet(ctx context.Context) admin.Fleet {
	g := l.take()
	defer g.leave()
	var out admin.Fleet
	running := map[string]int64{}
	seen := map[string]bool{}
	for _, p := range g.catalog.Status() {
		m := modelOf(&p)
		m.Declared = slices.ContainsFunc(g.cfg.Models, func(d Model) bool { return d.Name == p.Model })
		m.Capabilities = capabilityNames(g.catalog.Capabilities(ctx, p.Model))
		for _, t := range m.Targets {
			if !seen[t.Name] { // a target may be in several pools
				seen[t.Name] = true
				running[t.Upstream] += t.Running
			}
		}
		out.Models = append(out.Models, m)
	}
	for _, u := range g.catalog.Upstreams() {
		out.Upstreams = append(out.Upstreams, l.upstreamOf(g, &u, running[u.Name]))
	}
	return out
}

func (l *lasting) upstreamOf(g *generation, u *router.UpstreamStatus, running int64) admin.Upstream {
	out := admin.Upstream{
		Name: u.Name, Kind: demoUpstream, Local: u.Local, Drained: u.Drained, Running: running,
		Declared: u.Declared, Listed: u.Listed, ListedAt: u.ListedAt, ListError: u.ListError,
	}
	for i := range g.full.Upstreams {
		if c := &g.full.Upstreams[i]; c.Name == u.Name {
			out.Kind, out.URL, out.MaxRunning = c.Kind, withoutSecrets(c.BaseURL), int64(c.MaxRunning)
		}
	}
	return out
}

// withoutSecrets is what of a URL may be shown.
func withoutSecrets(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		host, _, _ := strings.Cut(text, "?")
		return host[strings.LastIndexByte(host, '@')+1:]
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func capabilityNames(c providers.Capabilities) (out []string) {
	for _, name := range providers.FeatureNames() {
		if c.Yes.Has(providers.FeatureOf(name)) {
			out = append(out, name)
		}
	}
	return out
}

func modelOf(p *router.PoolStatus) admin.Model {
	out := admin.Model{Name: p.Model, Balance: p.Balance}
	for _, t := range p.Targets {
		a := admin.Target{
			Name: t.Name, Upstream: t.Upstream, Model: t.Model, Version: t.Version, Weight: t.Weight, Priority: t.Priority, MaxRunning: t.MaxRunning,
			State: t.State, Share: t.Share, Wait: t.Wait, Running: t.Running, Calls: t.Calls, Samples: t.Samples, ErrorRate: t.ErrorRate,
			Peak: t.PeakTTFT, P50: t.P50, P95: t.P95, LastError: t.LastError, LastErrorAt: t.LastErrorAt,
		}
		if k := t.Check; k != nil {
			a.Check = &admin.Check{At: k.At, Took: k.Took, Error: k.Error, Count: k.Count, Failed: k.Failed}
		}
		out.Targets = append(out.Targets, a)
	}
	return out
}
