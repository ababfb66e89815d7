package main

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"sluice/handlers"
	"sluice/providers"
	"sluice/providers/router"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// factory makes the adapter for one [[upstreams]] table. Beside it, it looks at nothing of the
// configuration that newLinkConfig leaves out.
type factory func(c *Config, u *Upstream, m maker) adapter

// maker is who has an adapter made.
type maker struct {
	version string                 // of the gateway
	made    func(*upstream.Client) // is told of the adapter's connections over HTTP
}

// adapter is what the catalog needs of an upstream.
type adapter interface {
	providers.Lister
	Target(model string) providers.Provider
}

// factories is the explicit table of wire protocols. A new adapter is one folder
// under providers and one row here.
var factories = map[string]factory{
	"openai":    newOpenAI,
	"mii":       newMII,
	"ollama":    newOllama,
	"tgi":       newTGI,
	"anthropic": newAnthropic,
	"kserve":    newKServe,
	"gemini":    newGemini,
}

// knownKinds lists the kinds of upstreams that there are adapters for.
func knownKinds() []string { return slices.Sorted(maps.Keys(factories)) }

// newUpstream says how an upstream is reached, whatever protocol it speaks.
func newUpstream(c *Config, u *Upstream, m maker) upstream.Options {
	h := http.Header{"User-Agent": {"sluice/" + m.version}}
	for k, v := range u.Headers {
		h.Set(k, v.Reveal())
	}
	return upstream.Options{
		Name: u.Name, BaseURL: u.BaseURL, Query: reveal(u.Query), Header: h,
		Connect: c.Timeouts.Connect.Std(), TLS: c.Timeouts.TLS.Std(), MaxConns: u.MaxConns, IdleConns: u.IdleConns,
		IdleTimeout: u.IdleTimeout.Std(), Lifetime: u.ConnLifetime.Std(), HTTP2: u.HTTP2, Proxy: u.Proxy.URL(), Made: m.made,
	}
}

func reveal(m map[string]Secret) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v.Reveal()
	}
	return out
}

// phases are the time limits of an upstream: its own, else those of its class.
func phases(c *Config, u *Upstream) router.Phases {
	t := &c.Timeouts
	p := router.Phases{Headers: t.Headers.Std(), FirstToken: t.FirstToken.Std(), Between: t.BetweenTokens.Std(), Silence: t.Silence.Std()}
	if u.Local {
		p.Headers, p.FirstToken = t.HeadersLocal.Std(), t.FirstTokenLocal.Std()
	}
	for _, own := range []struct {
		set *Duration
		at  *time.Duration
	}{{u.HeadersTimeout, &p.Headers}, {u.FirstTokenTimeout, &p.FirstToken}, {u.BetweenTokensTimeout, &p.Between}} {
		if own.set != nil {
			*own.at = own.set.Std()
		}
	}
	return p
}

// newCatalog builds the pools over the upstreams.
func newCatalog(c *Config, to *links) *router.Catalog {
	var ups []router.Upstream
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		a := to.all[i]
		up := router.Upstream{Name: u.Name, Target: presenting(a.Target, u.Reasoning), Models: u.Models, Override: override(u.Capabilities), Phases: phases(c, u), Local: u.Local, Drained: u.Drained}
		if u.ListModels {
			up.Lister = a
		}
		ups = append(ups, up)
	}
	if d := to.demo; d != nil {
		ups = append(ups, router.Upstream{Name: demoUpstream, Target: d.Target, Lister: d, Phases: phases(c, &Upstream{Local: true}), Local: true})
	}
	pools, breaker := newPools(c, ups), newBreaker(c)
	catalog := router.NewCatalog(pools, ups, c.ModelsListing.Timeout.Std(), c.ModelsListing.Refresh.Std())
	catalog.Watch(&breaker, newChecks(c, func(i int) providers.Lister { return to.all[i] }, pools))
	return catalog
}

func newPools(c *Config, ups []router.Upstream) []*router.Pool {
	var pools []*router.Pool
	for i := range c.Models {
		pools = append(pools, newPool(c, &c.Models[i], c.Models[i].Name, ups))
	}
	return pools
}

// newTarget finds the upstream by name; the configuration has been checked.
func newTarget(t Target, public string, own router.Override, ups []router.Upstream) *router.Target {
	model := t.Model
	if model == "" {
		model = public
	}
	out := &router.Target{Name: t.Upstream + "/" + model, Upstream: t.Upstream, Model: model, Weight: t.Weight}
	for _, u := range ups {
		if u.Name == t.Upstream {
			out.Provider, out.Override, out.Phases, out.Local, out.Drained = u.Target(model), u.Override.Under(own), u.Phases, u.Local, u.Drained
		}
	}
	return out
}

func newRouter(l *lasting, g *generation) *router.Router {
	c := g.cfg
	return router.New(g.catalog, router.Options{
		Tries: c.Retry.Tries, BackoffMin: c.Retry.BackoffMin.Std(), BackoffMax: c.Retry.BackoffMax.Std(), RetryAfterMax: c.Retry.RetryAfterMax.Std(),
		Budget:     router.Budget{Share: c.Retry.BudgetPercent / 100, PerSecond: c.Retry.BudgetPerSecond},
		HoldEvents: c.Sizes.PreambleEvents, HoldBytes: int(c.Sizes.Preamble),
		FirstFailover: c.Timeouts.FirstTokenFailover.Std(), FailoverPer1K: c.Timeouts.FirstTokenFailoverPer1K.Std(),
		Gate: newGate(c, &g.quota, l.places), Breaker: newBreaker(c), Shadows: l.shadows, Lost: l.hedged,
	})
}

// newHandlers wires the API of a generation.
func newHandlers(l *lasting, g *generation) *handlers.Server {
	c, k, catalog := g.cfg, l.keys, g.catalog
	return handlers.New(handlers.Options{
		Newest:   l.current,
		Provider: g.router, Routing: g.routing(), Prefixes: prefixes(c), Catalog: catalog, Auth: k.callers, Current: k.callers.Current, Standing: k.callers.Good, WrongKeys: k.wrong,
		Relay: streaming.Relay{Heartbeat: c.Heartbeat.Interval.Std(), CommitAfter: c.Timeouts.CommitAfter.Std()},
		Total: func(ctx context.Context, model string) time.Duration {
			return catalog.Total(ctx, model, c.Timeouts.Total.Std(), c.Timeouts.TotalLocal.Std())
		},
		WriteLimit: c.Timeouts.Write.Std(), BodyTime: c.Timeouts.RequestBody.Std(),
		Body: int64(c.Sizes.Body), BodyVision: int64(c.Sizes.BodyVision), Depth: c.Sizes.JSONDepth,
		CORS:      handlers.CORS{Origins: c.CORS.Origins, MaxAge: c.CORS.MaxAge.Std()},
		WebSocket: newWebSocket(&c.WebSocket), Tickets: k.tickets, Live: k.live,
		Proxies: proxies(c), Quota: &g.quota, Line: g.line(), Observer: l.observer, Drain: l.drain, Log: l.log,
	})
}

func newWebSocket(w *WebSocket) handlers.WebSocket {
	return handlers.WebSocket{
		Origins: w.Origins, Ping: w.PingInterval.Std(), Pong: w.PongTimeout.Std(), Lanes: w.MaxLanes, Queued: w.MaxQueued,
		SendQueue: int(w.SendQueue), Lifetime: w.Lifetime.Std(), Control: int64(w.ControlFrame),
	}
}

func proxies(c *Config) []*net.IPNet {
	var out []*net.IPNet
	for _, p := range c.Server.TrustedProxies {
		out = append(out, &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return out
}
