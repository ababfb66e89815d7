package router

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/providers"
)

// versionMark stands between the name of a model and a version of it.
const versionMark = "@"

// isPattern reports whether the name of a pool lets several names through.
func isPattern(name string) bool { return strings.Contains(name, "*") }

// Matches reports whether a name is let through by a pattern, in which * stands for any
// characters, also none.
func Matches(pattern, name string) bool {
	star, mark := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0: // the last * takes one character more
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// name finds the names that pools answer to: their own, their aliases, and those with a version.
func (c *Catalog) name() {
	c.names = map[string]*Pool{}
	for _, p := range c.pools {
		if isPattern(p.Model) {
			c.wild = append(c.wild, p)
			continue
		}
		versions := map[string]*Pool{}
		for _, v := range p.versions() {
			versions[v] = p.only(v)
		}
		for _, name := range append([]string{p.Model}, p.Aliases...) {
			c.names[name] = p
			for v, some := range versions {
				c.names[name+versionMark+v] = some
			}
		}
	}
}

// Base is the name of the [[models]] table that a name leads to: an alias and a version are
// of one. Any other name is its own.
func (c *Catalog) Base(name string) string {
	switch p := c.names[name]; {
	case p == nil:
		return name
	case p.base != "":
		return p.base
	default:
		return p.Model
	}
}

// Versioned reports whether a name names a version of a model.
func (c *Catalog) Versioned(name string) bool {
	p := c.names[name]
	return p != nil && p.base != ""
}

// every is each pool once.
func (c *Catalog) every() []*Pool {
	out := slices.Clone(c.pools)
	for _, p := range c.names {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// versions are those that the pool's targets have, in order.
func (p *Pool) versions() (out []string) {
	for _, t := range p.Targets {
		if t.Version != "" && !slices.Contains(out, t.Version) {
			out = append(out, t.Version)
		}
	}
	return out
}

// only is the pool of the targets that have a version.
func (p *Pool) only(version string) *Pool {
	out := &Pool{Model: p.Model + versionMark + version, base: p.Model, PresentAs: p.PresentAs, FailoverAfter: p.FailoverAfter,
		Balance: p.Balance, Affinity: p.Affinity, Hedge: p.Hedge, Eject: p.Eject, Shadow: p.Shadow, Continue: p.Continue}
	for _, t := range p.Targets {
		if t.Version == version {
			out.Targets = append(out.Targets, t)
		}
	}
	return out
}

// declared finds the pool that is configured for a name; nil when there is none.
func (c *Catalog) declared(model string) *Pool {
	if p := c.names[model]; p != nil {
		return p
	}
	for _, w := range c.wild {
		if Matches(w.Model, model) {
			return c.made(model, w)
		}
	}
	return nil
}

// made is the pool of one name that a pattern lets through.
func (c *Catalog) made(model string, pattern *Pool) *Pool {
	key := model + "\x00*" + pattern.Model
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.dynamic[key]; p != nil {
		return p
	}
	p := pattern.Make(model)
	for _, t := range p.Targets {
		t.list = c.upstream(t.Upstream)
	}
	c.keep(key, p)
	return p
}

// ResolveVersion finds the targets of a model that have a version. A caller that names
// another one already is refused.
func (c *Catalog) ResolveVersion(ctx context.Context, model, version string) (*Pool, error) {
	if p := c.names[model+versionMark+version]; p != nil {
		return p, nil
	}
	if strings.HasSuffix(model, versionMark+version) {
		return c.Resolve(ctx, model)
	}
	if _, err := c.Resolve(ctx, model); err != nil {
		return nil, err
	}
	return nil, c.noVersion(model, version)
}

// noVersion tells which versions of a model there are.
func (c *Catalog) noVersion(model, version string) error {
	msg := fmt.Sprintf("The model %q has no version %q.", model, version)
	if p := c.names[model]; p != nil && len(p.versions()) > 0 {
		msg += " Its versions are " + strings.Join(p.versions(), ", ") + "."
	}
	return &providers.Error{Kind: providers.ModelNotFound, Param: "model", Message: msg}
}
