package router

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/providers"
)

// Upstream is one server as the catalog sees it.
type Upstream struct {
	Name   string
	Target func(model string) providers.Provider
	Lister providers.Lister // nil: it is not asked
	Models []string         // declared names and globs (path.Match)
	// Override is what the configuration says of all its models.
	Override Override
	Phases   Phases
	Local    bool
	Drained  bool // its targets are asked nothing more
}

// Catalog knows which models there are: declared pools first, then what the
// upstreams declare, then what they list. It is safe for concurrent use.
type Catalog struct {
	pools     []*Pool
	names     map[string]*Pool // also by alias and version
	wild      []*Pool          // whose names are patterns, in order
	upstreams []*listed
	states    *states
	checks    []Check
	breaker   *Breaker

	resolved sync.Map // model -> resolution, for what upstreams declare and list

	mu      sync.Mutex
	dynamic map[string]*Pool
	refresh time.Duration
}

// resolution is an answer of Resolve that holds for a while.
type resolution struct {
	pool  *Pool
	until time.Time
}

// NewCatalog returns a catalog. An upstream's list is asked for again when it is
// older than refresh, and never waited for longer than timeout. An upstream that
// failed is asked again beside its callers.
func NewCatalog(pools []*Pool, upstreams []Upstream, timeout, refresh time.Duration) *Catalog {
	c := &Catalog{pools: pools, dynamic: map[string]*Pool{}, refresh: refresh, states: newStates()}
	for _, u := range upstreams {
		c.upstreams = append(c.upstreams, &listed{Upstream: u, timeout: timeout, refresh: refresh})
	}
	for _, p := range pools {
		for _, t := range p.Targets {
			t.list = c.upstream(t.Upstream)
			c.states.share(t)
		}
	}
	c.name()
	return c
}

func (c *Catalog) upstream(name string) *listed {
	for _, u := range c.upstreams {
		if u.Name == name {
			return u
		}
	}
	return nil
}

// Resolve implements Resolver.
func (c *Catalog) Resolve(ctx context.Context, model string) (*Pool, error) {
	if p := c.declared(model); p != nil {
		return p, nil
	}
	now := time.Now()
	if r, ok := c.resolved.Load(model); ok && now.Before(r.(resolution).until) {
		return r.(resolution).pool, nil
	}
	serving := c.serving(ctx, model)
	if len(serving) == 0 {
		c.resolved.Delete(model)
		if at := strings.LastIndex(model, versionMark); at > 0 && c.names[model[:at]] != nil {
			return nil, c.noVersion(model[:at], model[at+1:])
		}
		return nil, c.unknown(model)
	}
	p := c.pool(model, serving)
	c.resolved.Store(model, resolution{p, now.Add(c.refresh)})
	return p, nil
}

// serving finds the upstreams that declare a model, else those that list it.
func (c *Catalog) serving(ctx context.Context, model string) []*listed {
	out := c.declaring(model)
	if len(out) > 0 {
		return out
	}
	if out = c.listing(c.lists(ctx, false), model); len(out) > 0 {
		return out
	}
	return c.listing(c.lists(ctx, true), model)
}

func (c *Catalog) declaring(model string) (out []*listed) {
	for _, u := range c.upstreams {
		if u.declares(model) {
			out = append(out, u)
		}
	}
	return out
}

// listing finds the upstreams that have the model in their list and declare none.
func (c *Catalog) listing(lists [][]providers.Model, model string) (out []*listed) {
	for i, models := range lists {
		if len(c.upstreams[i].Models) == 0 && slices.ContainsFunc(models, func(m providers.Model) bool { return m.ID == model }) {
			out = append(out, c.upstreams[i])
		}
	}
	return out
}

// pool returns the one pool for a model and the upstreams that serve it now.
func (c *Catalog) pool(model string, serving []*listed) *Pool {
	key := model
	for _, u := range serving {
		key += "\x00" + u.Name
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.dynamic[key]; p != nil {
		return p
	}
	p := &Pool{Model: model}
	for _, u := range serving {
		p.Targets = append(p.Targets, u.target(model))
	}
	c.keep(key, p)
	return p
}

// keep remembers a pool that was made, under c.mu.
func (c *Catalog) keep(key string, p *Pool) {
	if len(c.dynamic) >= maxDynamic {
		clear(c.dynamic)
		c.resolved.Clear()
	}
	for _, t := range p.Targets {
		c.states.share(t)
	}
	c.dynamic[key] = p
}

// maxDynamic bounds the pools made for models that globs let through.
const maxDynamic = 4096

// lists asks all upstreams side by side; patient is listed.list's.
func (c *Catalog) lists(ctx context.Context, patient bool) [][]providers.Model {
	out := make([][]providers.Model, len(c.upstreams))
	var wg sync.WaitGroup
	for i, u := range c.upstreams {
		if u.Lister == nil {
			continue
		}
		wg.Go(func() { out[i] = u.list(ctx, patient) })
	}
	wg.Wait()
	return out
}

// Models is the union over pools, declared names and lists, each name once, in order,
// with what is known of each without asking for it.
func (c *Catalog) Models(ctx context.Context) []providers.Model {
	var out []providers.Model
	at := map[string]int{}
	for m, from := range c.all(c.lists(ctx, false)) {
		i, seen := at[m.ID]
		switch {
		case !seen:
			at[m.ID] = len(out)
			m.Capabilities = from.capabilities(ctx, m.ID)
			out = append(out, m)
		case out[i].OwnedBy != poolOwner:
			out[i].Capabilities = out[i].Capabilities.Or(from.capabilities(ctx, m.ID))
		}
	}
	return out
}

// Capabilities are what is known of a model without asking for it: what one of its
// targets can do, and what none can.
func (c *Catalog) Capabilities(ctx context.Context, model string) (can providers.Capabilities) {
	if p := c.declared(model); p != nil {
		return p.capabilities(ctx, model)
	}
	for i, u := range c.servingNow(model) {
		if one := u.capabilities(ctx, model); i == 0 {
			can = one
		} else {
			can = can.Or(one)
		}
	}
	return can
}

// servingNow finds the upstreams that serve a model by what is known without waiting.
func (c *Catalog) servingNow(model string) []*listed {
	if out := c.declaring(model); len(out) > 0 {
		return out
	}
	lists := make([][]providers.Model, len(c.upstreams))
	for i, u := range c.upstreams {
		lists[i] = u.newest()
	}
	return c.listing(lists, model)
}

func (c *Catalog) union(lists [][]providers.Model) []providers.Model {
	var out []providers.Model
	seen := map[string]bool{}
	for m := range c.all(lists) {
		if !seen[m.ID] {
			seen[m.ID] = true
			out = append(out, m)
		}
	}
	return out
}

// source is where a model's name comes from.
type source interface {
	capabilities(ctx context.Context, model string) providers.Capabilities
}

// poolOwner owns the pools.
const poolOwner = "sluice"

// all yields every name from every source: pools, declared names and lists.
func (c *Catalog) all(lists [][]providers.Model) iter.Seq2[providers.Model, source] {
	return func(yield func(providers.Model, source) bool) {
		for _, p := range c.pools {
			for _, name := range append([]string{p.Model}, p.Aliases...) {
				if !isPattern(name) && !yield(providers.Model{ID: name, OwnedBy: poolOwner}, p) {
					return
				}
			}
		}
		for i, u := range c.upstreams {
			for _, name := range u.Models {
				if !isGlob(name) && !yield(providers.Model{ID: name, OwnedBy: u.Name}, u) {
					return
				}
			}
			for _, m := range lists[i] {
				if (len(u.Models) == 0 || u.declares(m.ID)) && !yield(m, u) {
					return
				}
			}
		}
	}
}

func isGlob(name string) bool { return strings.ContainsAny(name, "*?[") }

// Has reports whether a model can be asked for, listed or let through by a pattern.
func (c *Catalog) Has(ctx context.Context, model string) bool {
	_, err := c.Resolve(ctx, model)
	return err == nil
}

// Total picks the limit for a whole answer: local servers get the longer one.
func (c *Catalog) Total(ctx context.Context, model string, hosted, local time.Duration) time.Duration {
	if p, err := c.Resolve(ctx, model); err == nil && p.Local() {
		return local
	}
	return hosted
}

// unknown tells which models come near, or that an upstream could not be asked. It
// goes by what is known: who comes here has waited already.
func (c *Catalog) unknown(model string) error {
	lists := make([][]providers.Model, len(c.upstreams))
	for i, u := range c.upstreams {
		if err := u.failure(); err != nil {
			return &providers.Error{Kind: providers.Unreachable, Target: u.Name, Param: "model", Err: err,
				Message: fmt.Sprintf("The model %q is not known, and the upstream %q could not be asked for its models", model, u.Name)}
		}
		lists[i] = u.newest()
	}
	msg := fmt.Sprintf("The model %q does not exist.", model)
	if near := nearest(model, c.union(lists)); len(near) > 0 {
		msg += " Did you mean " + strings.Join(near, ", ") + "?"
	}
	return &providers.Error{Kind: providers.ModelNotFound, Param: "model", Message: msg + " GET /v1/models lists the models that can be used."}
}
