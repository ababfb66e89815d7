package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sluice/providers"
	"sluice/providers/router"
	"sluice/providers/upstream"
)

func newBreaker(c *Config) router.Breaker {
	b := &c.Breaker
	return router.Breaker{
		InRow: b.Consecutive, Window: b.Window.Std(), AtLeast: b.Minimum,
		Partial: b.PartialPercent / 100, Least: b.LeastPercent / 100, Open: b.OpenPercent / 100,
		Pause: b.Pause.Std(), PauseMax: b.PauseMax.Std(), Successes: b.Probes, Ramp: b.Ramp.Std(),
	}
}

// newPool builds the pool of a model for one name, which is another than the model's own
// where that is a pattern.
func newPool(c *Config, m *Model, name string, ups []router.Upstream) *router.Pool {
	p := &router.Pool{Model: name, PresentAs: m.PresentAs, Aliases: m.Aliases, Fallback: m.Fallback, FallbackContext: m.FallbackContext, Shadow: m.Shadow.shadow(), Continue: m.Continue}
	p.Balance, _ = router.BalanceOf(m.Balance) // checked with the configuration
	p.Affinity = map[string]router.Affinity{"session": router.AffinitySession, "user": router.AffinityUser, "prompt": router.AffinityPrompt}[m.HashBy]
	if m.HedgePercent > 0 {
		p.Hedge = router.Hedge{Quantile: m.HedgeQuantile / 100, AtLeast: m.HedgeSamples, Share: m.HedgePercent / 100}
	}
	p.Eject = router.Eject{Every: m.EjectInterval.Std(), AtLeast: c.Breaker.Minimum, Pause: m.EjectPause.Std(), Cap: m.EjectMaxPercent / 100}
	if m.FirstTokenFailover != nil {
		p.FailoverAfter = m.FirstTokenFailover.Std()
	}
	for _, t := range m.Targets {
		target := newTarget(t, name, override(m.Capabilities).Under(override(t.Capabilities)), ups)
		target.Provider = presented(target.Provider, m.Reasoning)
		target.Drained = target.Drained || t.Drained || m.Drained
		routed(target, &t)
		p.Targets = append(p.Targets, target)
	}
	if name == m.Name && strings.Contains(name, "*") {
		p.Make = func(model string) *router.Pool { return newPool(c, m, model, ups) }
	}
	return p
}

// routed gives a target what is its own.
func routed(target *router.Target, t *Target) {
	target.Priority, target.Version, target.MaxRunning = t.Priority, t.Version, t.MaxRunning
	for _, own := range []struct {
		set *Duration
		at  *time.Duration
	}{
		{t.HeadersTimeout, &target.Phases.Headers}, {t.FirstTokenTimeout, &target.Phases.FirstToken},
		{t.BetweenTokensTimeout, &target.Phases.Between},
	} {
		if own.set != nil {
			*own.at = own.set.Std()
		}
	}
}

// newChecks are the checks of all upstreams that have one. models lists the models of an
// upstream, by its place.
func newChecks(c *Config, models func(i int) providers.Lister, pools []*router.Pool) []router.Check {
	h := router.Health{Every: c.Health.Interval.Std(), Timeout: c.Health.Timeout.Std(), Sick: c.Health.Failures, Well: c.Health.Successes}
	var checks []router.Check
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		switch {
		case u.Health == "":
		case u.Health == "models":
			checks = append(checks, router.Check{Upstream: u.Name, Health: h, Ask: func(ctx context.Context) error {
				_, err := models(i).Models(ctx)
				return err
			}})
		case u.Health == "token":
			checks = append(checks, tokenChecks(u.Name, h, pools)...)
		default:
			checks = append(checks, router.Check{Upstream: u.Name, Health: h, Ask: pathCheck(c, u)})
		}
	}
	return checks
}

// tokenChecks ask each target of an upstream once, whatever pools it is in.
func tokenChecks(upstream string, h router.Health, pools []*router.Pool) (checks []router.Check) {
	seen := map[string]bool{}
	for _, p := range pools {
		for _, t := range p.Targets {
			if t.Upstream == upstream && !seen[t.Name] && !strings.Contains(p.Model, "*") {
				seen[t.Name] = true
				checks = append(checks, router.Check{Upstream: upstream, Target: t.Name, Health: h, Ask: t.Probe, Serves: true})
			}
		}
	}
	return checks
}

// pathCheck gets a path at the host of an upstream, with its credentials and way there.
func pathCheck(c *Config, u *Upstream) func(context.Context) error {
	o := withKey(newUpstream(c, u, maker{version: "health"}), u)
	if base, err := url.Parse(o.BaseURL); err == nil {
		o.BaseURL = base.Scheme + "://" + base.Host
	}
	o.MaxConns, o.IdleConns = 1, 1
	client := upstream.New(o)
	return func(ctx context.Context) error {
		a, err := client.Do(ctx, &upstream.Request{Method: http.MethodGet, Path: u.Health})
		if err != nil {
			return err
		}
		defer a.Close(true)
		if a.Status < 200 || a.Status > 299 {
			return fmt.Errorf("%s: status %d", u.Health, a.Status)
		}
		return nil
	}
}
