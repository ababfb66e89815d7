package main

import (
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/providers/demo"
	"sluice/providers/upstream"
)

// link is the way to one upstream: its adapter, with its connections and what it has
// learned. Generations whose configurations say the same of the upstream share it.
type link struct {
	adapter
	from linkConfig
	uses atomic.Int64 // by generations

	mu      sync.Mutex
	clients []*upstream.Client
}

// linkConfig is all that adapters are made from: a factory looks at nothing else.
type linkConfig struct {
	upstream      Upstream
	connect, tls  Duration
	event, answer Size
	images        []KServe // the bounds that all decoders of images share
}

func newLinkConfig(c *Config, u *Upstream) linkConfig {
	l := linkConfig{upstream: *u, connect: c.Timeouts.Connect, tls: c.Timeouts.TLS, event: c.Sizes.UpstreamEvent, answer: c.Sizes.Answer}
	// The router's business:
	l.upstream.Models, l.upstream.ListModels, l.upstream.Capabilities, l.upstream.Reasoning = nil, false, nil, ""
	l.upstream.Local, l.upstream.Drained, l.upstream.MaxRunning = false, false, 0
	l.upstream.HeadersTimeout, l.upstream.FirstTokenTimeout, l.upstream.BetweenTokensTimeout = nil, nil, nil
	l.upstream.Discovery = Discovery{}
	l.upstream.KServe.images = nil // made by the first adapter that needs it
	if u.Kind == "kserve" {
		for i := range c.Upstreams {
			if k := c.Upstreams[i].KServe; c.Upstreams[i].Kind == "kserve" {
				k.images = nil
				l.images = append(l.images, k)
			}
		}
	}
	return l
}

// links are the ways to the upstreams of one generation, in the order of its
// configuration, and the embedded one.
type links struct {
	all  []*link
	demo *demo.Provider // nil: not offered
}

// newLinks takes over what is the same in old, which may be nil, and makes the rest.
func newLinks(c *Config, version string, old *generation) *links {
	out := &links{}
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		from := newLinkConfig(c, u)
		l := old.link(&from)
		if l == nil {
			l = &link{from: from}
			l.adapter = factories[u.Kind](c, u, maker{version, l.made})
		}
		l.uses.Add(1)
		out.all = append(out.all, l)
	}
	if c.Demo.Enabled {
		out.demo = demo.New(demo.Options{TokenDelay: c.Demo.TokenDelay.Std()})
	}
	return out
}

// link finds a way that was made from the same.
func (g *generation) link(from *linkConfig) *link {
	if g == nil {
		return nil
	}
	for _, l := range g.links.all {
		if reflect.DeepEqual(&l.from, from) {
			return l
		}
	}
	return nil
}

// to is the way to an upstream by its name; nil to the embedded one.
func (g *generation) to(upstream string) *link {
	for i := range g.full.Upstreams {
		if g.full.Upstreams[i].Name == upstream {
			return g.links.all[i]
		}
	}
	return nil
}

// made collects the clients over HTTP that an adapter makes.
func (l *link) made(c *upstream.Client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clients = append(l.clients, c)
}

func (l *link) closeIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.clients {
		c.CloseIdle()
	}
}

// retire closes the connections that nobody uses of the ways that next does not take. Those
// in use are closed when they are idle.
func (ls *links) retire(next *links) {
	for _, l := range ls.all {
		if next == nil || !slices.Contains(next.all, l) {
			l.closeIdle()
		}
	}
}

// release ends the use of all ways. One that no generation uses is closed.
func (ls *links) release() {
	for _, l := range ls.all {
		if l.uses.Add(-1) > 0 {
			continue
		}
		l.closeIdle()
		if c, ok := l.adapter.(interface{ Close() }); ok {
			c.Close()
		}
	}
}
