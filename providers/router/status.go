package router

import "time"

// PoolStatus is one model at one moment.
type PoolStatus struct {
	Model   string
	Balance string
	Targets []TargetStatus
}

// TargetStatus is one target of a pool at one moment. Rates and calls are of the
// breaker's window, times to the first content of the last five to ten minutes; both
// are of all pools together that have the target.
type TargetStatus struct {
	Name, Upstream, Model, Version string
	Weight, Priority, MaxRunning   int
	State                          string        // closed, recovering, partial, open, half_open, ejected, sick, cooling, drained
	Share                          float64       // of the calls that would be its own, 0 to 1
	Wait                           time.Duration // until it may be asked again, where State says that it is left alone
	Running                        int64         // attempts
	Calls                          int
	ErrorRate                      float64       // 0 to 1
	PeakTTFT, P50, P95             time.Duration // 0: not known
	Samples                        int           // of P50 and P95
	LastError                      string
	LastErrorAt                    time.Time
	Check                          *CheckStatus // nil: it is not checked
}

// CheckStatus is what the checks of a target have told.
type CheckStatus struct {
	At            time.Time // of the last one
	Took          time.Duration
	Error         string // "" when it was good
	Count, Failed int64
}

// Status is what is known of all configured pools, and of those that were made for
// models of upstreams since.
func (c *Catalog) Status() []PoolStatus {
	pools := append([]*Pool(nil), c.pools...)
	c.mu.Lock()
	for _, p := range c.dynamic {
		pools = append(pools, p)
	}
	c.mu.Unlock()
	cfg := c.breaker
	if cfg == nil {
		cfg = &Breaker{}
	}
	out := make([]PoolStatus, 0, len(pools))
	for _, p := range pools {
		ps := PoolStatus{Model: p.Model, Balance: p.Balance.String()}
		for _, t := range p.Targets {
			ps.Targets = append(ps.Targets, t.status(cfg))
		}
		out = append(out, ps)
	}
	return out
}

func (t *Target) status(cfg *Breaker) TargetStatus {
	s, now := t.state(), uptime()
	v := s.judge(cfg, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	calls, bad := s.breaker.window.totals(cfg, now)
	out := TargetStatus{
		Name: t.Name, Upstream: t.Upstream, Model: t.Model, Version: t.Version,
		Weight: t.Weight, Priority: t.Priority, MaxRunning: t.MaxRunning,
		Share: v.share, Wait: v.wait, Running: s.running.Load(), Calls: int(calls),
		LastError: s.failure, LastErrorAt: s.failed, PeakTTFT: time.Duration(s.expected(now)),
	}
	if calls > 0 {
		out.ErrorRate = float64(bad) / float64(calls)
	}
	out.P50, out.Samples = s.streams.quantile(0.5)
	out.P95, _ = s.streams.quantile(0.95)
	out.State, out.Wait = t.says(s, v, now)
	if h := &s.checked; h.count > 0 {
		out.Check = &CheckStatus{At: h.at, Took: h.took, Error: h.failure, Count: h.count, Failed: h.fail}
	}
	return out
}

// says names what holds a target back, the strongest reason first, and for how long.
func (t *Target) says(s *state, v verdict, now time.Duration) (string, time.Duration) {
	b := &s.breaker
	switch cooled := time.Duration(s.cooled.Load()); {
	case t.Drained:
		return "drained", 0
	case s.checked.sick:
		return "sick", 0
	case now < s.ejected.until:
		return "ejected", s.ejected.until - now
	case b.at == open && now < b.until:
		return "open", b.until - now
	case b.at != closed:
		return "half_open", 0
	case cooled > now:
		return "cooling", cooled - now
	case b.healed > 0 && v.share < 1:
		return "recovering", 0
	case v.share < 1:
		return "partial", 0
	default:
		return "closed", 0
	}
}
