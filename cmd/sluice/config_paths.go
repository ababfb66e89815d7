package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sluice/handlers"
	"sluice/ratelimit"
)

// PathForm is one [[paths]] table.
type PathForm struct {
	Prefix string `toml:"prefix" example:"\"/api/model/{name}\"" doc:"Where the operations begin: /chat/completions, /completions, /embeddings, /moderations and /responses follow, with /v1 before them or without. {name} is the model; a slash in it is written as %2F."`
	Model  string `toml:"model" doc:"The model, for a prefix without {name}."`
}

var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*$`)

// taken are the beginnings of paths that are served already.
var taken = []string{
	"v1", "admin", "livez", "readyz", "static", "chat", "completions", "tickets", "embeddings", "moderations", "responses", "models",
	"usage", "key", "audio", "images", "rerank",
}

// prefix is the handlers' form of the table.
func (p *PathForm) prefix() handlers.Prefix {
	before, after, _ := strings.Cut(p.Prefix, "{name}")
	return handlers.Prefix{Before: strings.TrimSuffix(before, "/") + "/", After: after, Model: p.Model}
}

func (d *decoder) validatePaths(cfg *Config) {
	seen := map[string]string{}
	for i := range cfg.Paths {
		p, at := &cfg.Paths[i], fmt.Sprintf("paths[%d]", i)
		path := at + ".prefix"
		before, after, named := strings.Cut(p.Prefix, "{name}")
		static := strings.TrimSuffix(before, "/")
		switch {
		case static == "" || named && static == before || !plainPath.MatchString(static) || !plainPath.MatchString(after):
			d.failAt(path, `want a path such as "/api/model/{name}", with {name} between slashes and not at its beginning`)
			continue
		case slices.Contains(taken, strings.SplitN(static, "/", 3)[1]):
			d.failAt(path, "paths below /%s are the gateway's own", strings.SplitN(static, "/", 3)[1])
		case named == (p.Model != ""):
			d.failAt(at+".model", "name the model by {name} in the prefix or by model, and not by both")
		}
		d.unique(seen, static, path)
	}
}

// TargetPrice is the price of a model at one target.
type TargetPrice struct {
	Input  *Dollars `toml:"input" min:"0" max:"1000000"`
	Cached *Dollars `toml:"cached_input" min:"0" max:"1000000"`
	Output *Dollars `toml:"output" min:"0" max:"1000000"`
}

func (p *TargetPrice) price() (out ratelimit.Price, ok bool) {
	if p.Input == nil || p.Output == nil {
		return out, false
	}
	out = ratelimit.Price{Input: int64(*p.Input), Cached: int64(*p.Input), Output: int64(*p.Output)}
	if p.Cached != nil {
		out.Cached = int64(*p.Cached)
	}
	return out, true
}

// validateTargetPrices checks that a price is whole, and that a target has one.
func (d *decoder) validateTargetPrices(cfg *Config) {
	type declared struct {
		price ratelimit.Price
		path  string
	}
	seen := map[string]declared{}
	for i := range cfg.Models {
		for j := range cfg.Models[i].Targets {
			t, path := &cfg.Models[i].Targets[j], fmt.Sprintf("models[%d].targets[%d].price", i, j)
			price, whole := t.Price.price()
			switch {
			case t.Price == TargetPrice{}:
				continue
			case !whole:
				d.failAt(path, "give input and output; 0 is free")
				continue
			case strings.Contains(cfg.Models[i].Name, "*") && t.Model == "":
				d.failAt(path, "the target has many models: give their prices in [[prices]]")
				continue
			}
			name := t.name(cfg.Models[i].Name)
			if was, ok := seen[name]; ok && was.price != price {
				d.failAt(path, "the target %s has another price at %s", name, was.path)
			}
			seen[name] = declared{price, path}
		}
	}
}

// targetPrices finds the prices of targets that have their own. Servers that were discovered
// cost what the target does whose place they take.
func targetPrices(c *Config) func(target string) (ratelimit.Price, bool) {
	all := map[string]ratelimit.Price{}
	for i := range c.Models {
		for j := range c.Models[i].Targets {
			t := &c.Models[i].Targets[j]
			if p, ok := t.Price.price(); ok {
				all[t.name(c.Models[i].Name)] = p
			}
		}
	}
	return func(target string) (p ratelimit.Price, ok bool) {
		if len(all) == 0 {
			return p, false
		}
		if p, ok = all[target]; ok {
			return p, true
		}
		upstream, model, _ := strings.Cut(target, "/")
		if name, _, server := strings.Cut(upstream, "@"); server {
			p, ok = all[name+"/"+model]
		}
		return p, ok
	}
}
