package router

import (
	"testing"
	"time"

	"sluice/providers"
)

func explainPool(weights ...int) *Catalog {
	p := &Pool{Model: "m", Fallback: []string{"n"}}
	for i, w := range weights {
		p.Targets = append(p.Targets, &Target{Name: string(rune('a' + i)), Weight: w, Priority: i / 2, Provider: instant{}, Phases: phasesForTest})
	}
	return NewCatalog([]*Pool{p, {Model: "n", Targets: []*Target{{Name: "z", Weight: 1, Provider: instant{}}}}}, nil, time.Second, time.Second)
}

func TestExplain(t *testing.T) {
	c := explainPool(1, 3, 1, 1, 0)
	targets := c.pools[0].Targets
	targets[0].Drained = true
	targets[3].MaxRunning = 1
	targets[3].state().running.Add(1)
	cfg := defaultBreaker()
	opt := options()
	opt.Breaker = cfg
	for _, rules := range []*Rules{nil, NewRules(c, []Rule{{"tier", When{Groups: []string{"vip"}}, Then{Tier: ptr(1)}}, {"other", When{}, Then{Model: "n"}}})} {
		req := parsed(t, "m", "")
		req.Hints.Groups = []string{"vip"}
		e := New(c, opt).Explain(t.Context(), rules, req)
		want := []string{"b1", "c2", "e3", "a0", "d0"}
		if rules != nil {
			want = []string{"c1", "b2", "e3", "a0", "d0"}
		}
		for i, x := range e.Candidates {
			if got := x.Name + string(rune('0'+x.Place)); got != want[i] {
				t.Errorf("candidate %d is %s, want %s", i, got, want[i])
			}
		}
		if e.Pool != "m" || len(e.Fallback) != 1 || e.Err != nil || e.Candidates[3].Why != "it is drained" || e.Candidates[4].Why != "it is full" {
			t.Errorf("%+v", e)
		}
		if rules != nil && (e.Rule != "tier" || !e.Rules[0].Decides || !e.Rules[1].Skipped || e.Rules[1].Then != "ask n") {
			t.Errorf("%+v", e.Rules)
		}
		if req.Route != (providers.Route{}) {
			t.Error("the request has changed")
		}
	}
}

// TestExplainTells agrees with what the router does: the first candidate is asked.
func TestExplainTells(t *testing.T) {
	for i := range balances {
		c := explainPool(1, 1, 5, 1)
		p := c.pools[0]
		p.Balance = Balance(i)
		for user := range 20 {
			req := parsed(t, "m", "")
			req.Hints.Session, req.Hints.User = string(rune('a'+user)), "u"
			e := New(c, options()).Explain(t.Context(), nil, req)
			cfg := defaultBreaker()
			got := p.pick(&query{tried: new(set), shut: new(set), now: uptime(), cfg: &cfg, req: req}).target
			place := 0
			for _, x := range e.Candidates {
				if x.Name == got.Name {
					place = x.Place
				}
			}
			if place != 1 {
				t.Errorf("%s: %s is asked, which stands at %d", p.Balance, got.Name, place)
			}
		}
	}
}

func TestExplainRefusal(t *testing.T) {
	c := explainPool(1)
	rules := NewRules(c, []Rule{{"stop", When{}, Then{Refuse: "no"}}})
	if e := New(c, options()).Explain(t.Context(), rules, parsed(t, "m", "")); e.Rule != "stop" || providers.AsError(e.Err) == nil || e.Pool != "" {
		t.Errorf("%+v", e)
	}
	if e := New(c, options()).Explain(t.Context(), nil, parsed(t, "unknown", "")); providers.AsError(e.Err) == nil {
		t.Errorf("%+v", e)
	}
}

// TestTier asks the targets that a rule prefers first, and the others when those fail.
func TestTier(t *testing.T) {
	c := explainPool(1, 1, 1, 1)
	p, cfg := c.pools[0], defaultBreaker()
	var tried, shut set
	order := ""
	for range 4 {
		got := p.pick(&query{tried: &tried, shut: &shut, now: uptime(), cfg: &cfg, tier: 2})
		tried.add(got.at)
		order += string(rune('0' + got.target.Priority))
	}
	if order != "1100" {
		t.Error(order)
	}
}

// TestRuleFallsBack lets a rule's pool fall back to the model that was asked for.
func TestRuleFallsBack(t *testing.T) {
	asked, _ := named("assistant", done)
	vip, _ := named("vip", fails(upstream(providers.Unreachable)))
	vip.Fallback = []string{"assistant"}
	req := &providers.Request{Model: "assistant", Stream: true, Route: providers.Route{Model: "vip"}}
	opt := options()
	opt.Tries = 1
	if _, p, err := askPools(t, opt, pools(asked, vip), req); err != nil || p.Report().Target != "assistant/a" {
		t.Errorf("%v from %s", err, p.Report().Target)
	}
}
