package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"sluice/handlers"
	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/providers/demo"
	"sluice/providers/router"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// factory makes the adapter for one [[upstreams]] table.
type factory func(c *Config, u *Upstream, version string) adapter

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
func newUpstream(c *Config, u *Upstream, version string) upstream.Options {
	h := http.Header{"User-Agent": {"sluice/" + version}}
	for k, v := range u.Headers {
		h.Set(k, v.Reveal())
	}
	return upstream.Options{
		Name: u.Name, BaseURL: u.BaseURL, Query: reveal(u.Query), Header: h,
		Connect: c.Timeouts.Connect.Std(), TLS: c.Timeouts.TLS.Std(), MaxConns: u.MaxConns, IdleConns: u.IdleConns,
		IdleTimeout: u.IdleTimeout.Std(), Lifetime: u.ConnLifetime.Std(), HTTP2: u.HTTP2, Proxy: u.Proxy.URL(),
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

// newCatalog builds the upstreams and the pools over them.
func newCatalog(c *Config, version string) *router.Catalog {
	var ups []router.Upstream
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		a := factories[u.Kind](c, u, version)
		up := router.Upstream{Name: u.Name, Target: presenting(a.Target, u.Reasoning), Models: u.Models, Override: override(u.Capabilities), Phases: phases(c, u), Local: u.Local}
		if u.ListModels {
			up.Lister = a
		}
		ups = append(ups, up)
	}
	if c.Demo.Enabled {
		d := demo.New(demo.Options{TokenDelay: c.Demo.TokenDelay.Std()})
		ups = append(ups, router.Upstream{Name: demoUpstream, Target: d.Target, Lister: d, Phases: phases(c, &Upstream{Local: true}), Local: true})
	}
	return router.NewCatalog(newPools(c, ups), ups, c.ModelsListing.Timeout.Std(), c.ModelsListing.Refresh.Std())
}

func newPools(c *Config, ups []router.Upstream) []*router.Pool {
	var pools []*router.Pool
	for _, m := range c.Models {
		p := &router.Pool{Model: m.Name, PresentAs: m.PresentAs}
		if m.FirstTokenFailover != nil {
			p.FailoverAfter = m.FirstTokenFailover.Std()
		}
		for _, t := range m.Targets {
			target := newTarget(t, m.Name, override(m.Capabilities), ups)
			target.Provider = presented(target.Provider, m.Reasoning)
			p.Targets = append(p.Targets, target)
		}
		pools = append(pools, p)
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
			out.Provider, out.Override, out.Phases, out.Local = u.Target(model), u.Override.Under(own), u.Phases, u.Local
		}
	}
	return out
}

func newRouter(c *Config, q *quota, catalog *router.Catalog) *router.Router {
	return router.New(catalog, router.Options{
		Tries: c.Retry.Tries, BackoffMin: c.Retry.BackoffMin.Std(), BackoffMax: c.Retry.BackoffMax.Std(), RetryAfterMax: c.Retry.RetryAfterMax.Std(),
		Budget:     router.Budget{Share: c.Retry.BudgetPercent / 100, PerSecond: c.Retry.BudgetPerSecond},
		HoldEvents: c.Sizes.PreambleEvents, HoldBytes: int(c.Sizes.Preamble),
		FirstFailover: c.Timeouts.FirstTokenFailover.Std(), FailoverPer1K: c.Timeouts.FirstTokenFailoverPer1K.Std(),
		Gate: newGate(c, q),
	})
}

// newHandlers wires the API.
func newHandlers(c *Config, opts serveOptions, keys *auth.Keys, q *quota, o *handlers.Observer, d *handlers.Drain, log *slog.Logger) *handlers.Server {
	catalog := newCatalog(c, opts.Version)
	return handlers.New(handlers.Options{
		Provider: newRouter(c, q, catalog), Catalog: catalog, Auth: keys, Callers: keys.Named,
		Relay: streaming.Relay{Heartbeat: c.Heartbeat.Interval.Std(), CommitAfter: c.Timeouts.CommitAfter.Std()},
		Total: func(ctx context.Context, model string) time.Duration {
			return catalog.Total(ctx, model, c.Timeouts.Total.Std(), c.Timeouts.TotalLocal.Std())
		},
		WriteLimit: c.Timeouts.Write.Std(), BodyTime: c.Timeouts.RequestBody.Std(),
		Body: int64(c.Sizes.Body), BodyVision: int64(c.Sizes.BodyVision), Depth: c.Sizes.JSONDepth,
		CORS:      handlers.CORS{Origins: c.CORS.Origins, MaxAge: c.CORS.MaxAge.Std()},
		WebSocket: newWebSocket(&c.WebSocket), Tickets: newTickets(&c.WebSocket),
		Proxies: proxies(c), Quota: &q.handlers, Line: newLines(c, o), Observer: o, Drain: d, Log: log,
	})
}

func newWebSocket(w *WebSocket) handlers.WebSocket {
	return handlers.WebSocket{
		Origins: w.Origins, Ping: w.PingInterval.Std(), Pong: w.PongTimeout.Std(), Lanes: w.MaxLanes, Queued: w.MaxQueued,
		SendQueue: int(w.SendQueue), Lifetime: w.Lifetime.Std(), Control: int64(w.ControlFrame),
	}
}

// ticketsKept bounds what is remembered of spent tickets: some ten megabytes.
const ticketsKept = 100_000

func newTickets(w *WebSocket) *auth.Tickets {
	return auth.NewTickets([]byte(w.TicketSecret.Reveal()), w.TicketLifetime.Std(), auth.NewSpentHere(ticketsKept))
}

func proxies(c *Config) []*net.IPNet {
	var out []*net.IPNet
	for _, p := range c.Server.TrustedProxies {
		out = append(out, &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return out
}

// newKeys takes the configured keys. Without any it makes one up, which is returned
// to be shown.
func newKeys(c *Config) (keys *auth.Keys, generated string) {
	digests := map[[sha256.Size]byte]auth.Principal{}
	for i := range c.Keys {
		if sum, ok := c.Keys[i].Digest(); ok {
			digests[sum] = principal(&c.Keys[i])
		}
	}
	if len(digests) == 0 {
		var b [24]byte
		_, _ = rand.Read(b[:])
		generated = "sk-" + hex.EncodeToString(b[:])
		digests[sha256.Sum256([]byte(generated))] = auth.Principal{Key: "generated"}
	}
	return auth.NewKeys(digests), generated
}
