package main

import (
	"fmt"
	"slices"
	"strings"

	"sluice/providers/router"
)

// Breaker is the [breaker] section.
type Breaker struct {
	Consecutive    int      `toml:"consecutive" min:"0" max:"10000" doc:"Failures in a row after which a target (an upstream and a model there) is left alone; 0 turns the breaker off. What the caller must change, limits (429) and callers who leave count for nothing."`
	Window         Duration `toml:"window" min:"1s" max:"10m" doc:"Time over which the share of failures is taken ..."`
	Minimum        int      `toml:"minimum" min:"1" max:"1000000" doc:"... of at least so many calls. A stream counts when it is sent, and has succeeded with its first token."`
	PartialPercent float64  `toml:"partial_percent" min:"0" max:"100" doc:"Above this share of failures a target is given fewer calls than its own, while others can take them ..."`
	LeastPercent   float64  `toml:"least_percent" min:"0" max:"100" doc:"... and a tenth of them from this share on."`
	OpenPercent    float64  `toml:"open_percent" min:"0" max:"100" doc:"From this share on it is left alone, unless half of the pool would be missing."`
	Pause          Duration `toml:"pause" min:"10ms" doc:"How long it is left alone, ± 20 %; twice as long each time that it fails again ..."`
	PauseMax       Duration `toml:"pause_max" min:"10ms" doc:"... up to this. While no other target can be asked, one call a second tries it; the others get 503."`
	Probes         int      `toml:"probes" min:"1" max:"100" doc:"Calls that must succeed then, one after the other, before it is one of the pool again ..."`
	Ramp           Duration `toml:"ramp" doc:"... with a tenth of its calls at first, and all of them after this time."`
}

func (b *Breaker) setDefaults() {
	*b = Breaker{Consecutive: 5, Window: 10 * second, Minimum: 20, PartialPercent: 10, LeastPercent: 30, OpenPercent: 50,
		Pause: 5 * second, PauseMax: minute, Probes: 3, Ramp: 30 * second}
}

// Health is the [health] section.
type Health struct {
	Interval  Duration `toml:"interval" min:"100ms" doc:"Pause between two checks of an upstream whose key health is set, ± 20 %. Checks are counted and billed nowhere."`
	Timeout   Duration `toml:"timeout" min:"1ms" doc:"A check that takes longer has failed."`
	Failures  int      `toml:"failures" min:"1" max:"1000" doc:"Failed checks in a row after which targets are asked nothing ..."`
	Successes int      `toml:"successes" min:"1" max:"1000" doc:"... and good ones after which they are again, with few calls at first."`
}

func (h *Health) setDefaults() {
	*h = Health{Interval: 10 * second, Timeout: 5 * second, Failures: 3, Successes: 2}
}

// upstreamRouting is what an upstream has for routing.
type upstreamRouting struct {
	Health string `toml:"health" doc:"How it is asked whether it is well, beside the calls of clients: \"\" not at all, \"/path\" a GET of that path at its host (2xx is well), \"models\" its list of models, \"token\" one token of each configured target."`
}

// modelRouting is what a model has for routing.
type modelRouting struct {
	Aliases         []string `toml:"aliases" doc:"Further names that it is asked by."`
	Balance         string   `toml:"balance" oneof:"weighted,round_robin,two_choices,least_running,peak_ewma,hash" doc:"How targets of one priority share the calls: by weight; one after the other; the less busy of two; the least busy; of two the one to expect the earlier first token from; by a hash, so that what belongs together meets the same cache"`
	HashBy          string   `toml:"hash_by" oneof:"session,user,prompt" doc:"For balance = \"hash\", what belongs together: the session (the header x-session-id), the user, or prompts that begin alike. What a request does not tell, the next one stands for"`
	Fallback        []string `toml:"fallback" doc:"Models that are asked, in order, when none of its targets can answer."`
	FallbackContext []string `toml:"fallback_context" doc:"Models that are asked when a request is too long for this one."`
	Continue        bool     `toml:"continuation" doc:"Whether another target goes on with an answer of plain text that breaks in the middle, once: a completion by its prompt and the text so far, a chat by targets with the capability prefill. The last chunk says so, and the usage is that of both calls. Otherwise, and where that is not possible, the client is told of the break."`
	HedgePercent    float64  `toml:"hedge_percent" min:"0" max:"20" doc:"Share of streams, at most, for which a second target is asked when the first is slow; who brings a token first answers. Both are paid for at their upstreams. 0 is never."`
	HedgeQuantile   float64  `toml:"hedge_quantile" min:"50" max:"99.9" doc:"Percentile of its times to the first token after which a target is slow ..."`
	HedgeSamples    int      `toml:"hedge_samples" min:"20" max:"60000" doc:"... once so many of them are known."`
	EjectInterval   Duration `toml:"eject_interval" doc:"How often a target is looked for that fails so much more often than the others; it is left alone for a while. \"0s\" is never."`
	EjectPause      Duration `toml:"eject_pause" min:"1s" doc:"How long; the same again longer each time in a row."`
	Shadow          Shadow   `toml:"shadow" example:"{ model = \"candidate\", percent = 5 }" doc:"Another model that gets copies of its calls; nobody sees the answers, which have their own records in the ledger, under the key \"shadow\"."`
	EjectMaxPercent float64  `toml:"eject_max_percent" min:"1" max:"100" doc:"Share of the targets that may be left alone, for whatever reason, when one more is ejected."`
}

func (m *modelRouting) setDefaults() {
	*m = modelRouting{Aliases: []string{}, Balance: "weighted", HashBy: "session", Fallback: []string{}, FallbackContext: []string{},
		HedgeQuantile: 95, HedgeSamples: 200, EjectPause: 30 * second, EjectMaxPercent: 50, Shadow: Shadow{Percent: 100}}
}

// targetRouting is what a target has for routing beside its weight. Its limits go before
// those of its upstream.
type targetRouting struct {
	Priority             int             `toml:"priority" min:"0" max:"1000"`
	Version              string          `toml:"version"`
	MaxRunning           int             `toml:"max_concurrent" min:"0" max:"1000000"`
	Capabilities         map[string]bool `toml:"capabilities"`
	Price                TargetPrice     `toml:"price"`
	HeadersTimeout       *Duration       `toml:"headers_timeout" min:"1ms"`
	FirstTokenTimeout    *Duration       `toml:"first_token_timeout" min:"1ms"`
	BetweenTokensTimeout *Duration       `toml:"between_tokens_timeout" min:"1ms"`
}

// validateRouting checks what belongs together in routing. Names and upstreams have
// been checked.
func (d *decoder) validateRouting(cfg *Config) {
	b := &cfg.Breaker
	if b.PauseMax < b.Pause {
		d.failAt("breaker.pause_max", "must be at least breaker.pause (%s)", b.Pause)
	}
	if b.LeastPercent < b.PartialPercent {
		d.failAt("breaker.least_percent", "must be at least breaker.partial_percent (%g)", b.PartialPercent)
	}
	if b.OpenPercent < b.LeastPercent {
		d.failAt("breaker.open_percent", "must be at least breaker.least_percent (%g)", b.LeastPercent)
	}
	for i := range cfg.Upstreams {
		if h := cfg.Upstreams[i].Health; h != "" && h != "models" && h != "token" && !strings.HasPrefix(h, "/") {
			d.failAt(fmt.Sprintf("upstreams[%d].health", i), `want "", "models", "token" or a path such as "/health"`)
		}
	}
	names := d.validateNames(cfg)
	for i := range cfg.Models {
		d.validateFallbacks(cfg, i, names)
	}
	d.validateRoutes(cfg, names)
	d.validatePaths(cfg)
	d.validateTargetPrices(cfg)
}

// validateNames checks that each name leads to one model, and returns where it is.
func (d *decoder) validateNames(cfg *Config) map[string]int {
	names, paths := map[string]int{}, map[string]string{}
	for i := range cfg.Models {
		paths[cfg.Models[i].Name] = fmt.Sprintf("models[%d].name", i)
		names[cfg.Models[i].Name] = i
	}
	for i := range cfg.Models {
		m, at := &cfg.Models[i], fmt.Sprintf("models[%d]", i)
		wild := strings.Contains(m.Name, "*")
		if wild {
			d.validatePattern(cfg, i)
		}
		for j, alias := range m.Aliases {
			path := fmt.Sprintf("%s.aliases[%d]", at, j)
			switch {
			case alias == "" || len(alias) > 256 || strings.ContainsFunc(alias, notHeaderSafe):
				d.failAt(path, "want up to 256 visible ASCII characters")
			case strings.Contains(alias, "*"):
				d.failAt(path, "an alias is one name; a model may have a pattern as its name")
			case wild:
				d.failAt(path, "a model whose name is a pattern has no aliases")
			}
			d.unique(paths, alias, path)
			names[alias] = i
		}
		d.validateVersions(at, m, paths)
	}
	return names
}

func (d *decoder) validateVersions(at string, m *Model, paths map[string]string) {
	seen := map[string]bool{}
	for j, t := range m.Targets {
		path := fmt.Sprintf("%s.targets[%d]", at, j)
		d.validateCapabilities(path+".capabilities", t.Capabilities)
		if t.Version == "" || seen[t.Version] {
			continue
		}
		seen[t.Version] = true
		if strings.Contains(m.Name, "*") {
			d.failAt(path+".version", "a model whose name is a pattern has no versions")
		} else if d.validateName(path+".version", t.Version); !d.bad[path+".version"] {
			d.unique(paths, m.Name+"@"+t.Version, path+".version")
		}
	}
}

// validatePattern finds patterns that can never match: the first that does is taken.
func (d *decoder) validatePattern(cfg *Config, i int) {
	for j := range i {
		if before := cfg.Models[j].Name; strings.Contains(before, "*") && router.Matches(before, cfg.Models[i].Name) {
			d.failAt(fmt.Sprintf("models[%d].name", i), "it can never match: models[%d] (%s) comes before it and lets all its names through", j, before)
			return
		}
	}
}

// validateFallbacks checks that fallbacks lead to models, and never back.
func (d *decoder) validateFallbacks(cfg *Config, i int, names map[string]int) {
	for _, list := range []struct {
		key    string
		models []string
	}{{"fallback", cfg.Models[i].Fallback}, {"fallback_context", cfg.Models[i].FallbackContext}} {
		for k, name := range list.models {
			path := fmt.Sprintf("models[%d].%s[%d]", i, list.key, k)
			to, ok := names[name]
			if !ok {
				known := make([]string, 0, len(names))
				for n := range names {
					known = append(known, n)
				}
				slices.Sort(known)
				hint := ""
				if s := nearest(name, known); s != "" {
					hint = fmt.Sprintf("; did you mean %q?", s)
				}
				d.failAt(path, "there is no [[models]] table %q%s", name, hint)
				continue
			}
			if way := leads(cfg, names, to, i, nil); way != nil {
				d.failAt(path, "the fallbacks go in a circle: %s", strings.Join(append([]string{cfg.Models[i].Name}, way...), " -> "))
			}
		}
	}
}

// leads finds the way of fallbacks from one model to another; nil when there is none.
func leads(cfg *Config, names map[string]int, from, to int, seen []int) []string {
	if slices.Contains(seen, from) {
		return nil
	}
	m := &cfg.Models[from]
	if from == to {
		return []string{m.Name}
	}
	seen = append(seen, from)
	for _, next := range slices.Concat(m.Fallback, m.FallbackContext) {
		if i, ok := names[next]; ok {
			if way := leads(cfg, names, i, to, seen); way != nil {
				return append([]string{m.Name}, way...)
			}
		}
	}
	return nil
}
