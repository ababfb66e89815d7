package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones of rules, also where the system has none

	"sluice/providers"
	"sluice/providers/router"
)

// Shadow says which calls are copied where.
type Shadow struct {
	Model   string  `toml:"model" doc:"The [[models]] table that gets the copies; \"\" is none."`
	Percent float64 `toml:"percent" min:"0" max:"100" doc:"Share of the calls."`
}

// Shadowing is the [shadow] section.
type Shadowing struct {
	MaxRunning int      `toml:"max_concurrent" min:"0" max:"100000" doc:"Copies that run at once; beyond it none is made."`
	Bytes      Size     `toml:"bytes" doc:"Bytes of the requests that are copied, together; beyond it none is made."`
	Timeout    Duration `toml:"timeout" min:"1ms" doc:"How long a copy may run."`
}

func (s *Shadowing) setDefaults() {
	*s = Shadowing{MaxRunning: 16, Bytes: 64 * mib, Timeout: 5 * minute}
}

// Route is one [[routes]] table.
type Route struct {
	Name       string            `toml:"name" example:"\"vip\"" doc:"What it is called in explanations."`
	Models     []string          `toml:"models" doc:"Models as callers name them; a rule for a model also holds for its aliases and versions."`
	Keys       []string          `toml:"keys" doc:"Names of keys of this file, ids of issued ones."`
	Orgs       []string          `toml:"orgs" doc:"Organisations."`
	Teams      []string          `toml:"teams" doc:"Teams, as \"team\" or \"org/team\"."`
	Groups     []string          `toml:"groups" doc:"Groups of the key; one of them is enough."`
	Headers    map[string]string `toml:"headers" doc:"Headers that the request has, such as { x-experiment = \"b*\" }."`
	Needs      []string          `toml:"needs" doc:"What the request needs, all of it: vision, tools, json_schema and the others of docs/adapters.md."`
	Stream     *bool             `toml:"stream" example:"true" doc:"Whether the answer is streamed; unset: either."`
	PromptOver int               `toml:"prompt_over" min:"0" max:"1000000000" doc:"Tokens that the prompt has more of, as estimated; 0 is any prompt."`
	Days       []string          `toml:"days" doc:"Days of the week: mon, tue, wed, thu, fri, sat, sun."`
	From       string            `toml:"from" example:"\"22:00\"" doc:"Time of the day from which it holds ..."`
	Until      string            `toml:"until" example:"\"06:00\"" doc:"... and before which; one that is not after from is on the next day."`
	Zone       string            `toml:"zone" doc:"Time zone of these, such as \"Europe/Berlin\"."`
	Percent    float64           `toml:"percent" min:"0" max:"100" doc:"Share of the callers: always the same ones, and others for each rule ..."`
	PercentBy  string            `toml:"percent_by" oneof:"user,key,session" doc:"... taken by user (else key), key, or session (else user)."`
	Model      string            `toml:"model" doc:"What it does: ask this model instead ..."`
	Version    string            `toml:"version" doc:"... or this version of it; not for callers who have asked for one themselves ..."`
	Priority   *int              `toml:"priority" min:"0" max:"1000" example:"1" doc:"... or targets of this priority before the others ..."`
	Refuse     string            `toml:"refuse" doc:"... or refuse with this message ..."`
	Shadow     Shadow            `toml:"shadow" example:"{ model = \"candidate\", percent = 5 }" doc:"... or copy calls; a rule that does nothing else lets the next ones decide."`
}

func (r *Route) setDefaults() {
	*r = Route{Models: []string{}, Keys: []string{}, Orgs: []string{}, Teams: []string{}, Groups: []string{}, Needs: []string{}, Days: []string{},
		Zone: "UTC", Percent: 100, PercentBy: "user", Shadow: Shadow{Percent: 100}}
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// minutes reads a time of the day.
func minutes(text string) (int, error) {
	at, err := time.Parse("15:04", text)
	return at.Hour()*60 + at.Minute(), err
}

// rule is the router's form of the table, which has been checked.
func (r *Route) rule() router.Rule {
	w := router.When{Models: r.Models, Keys: r.Keys, Orgs: r.Orgs, Teams: r.Teams, Groups: r.Groups, Stream: r.Stream, PromptOver: int64(r.PromptOver)}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		w.Header = append(w.Header, router.HeaderIs{Name: name, Any: []string{r.Headers[name]}})
	}
	for _, n := range r.Needs {
		w.Needs |= providers.FeatureOf(n)
	}
	for _, d := range r.Days {
		w.Hours.Days |= 1 << max(slices.Index(weekdays, d), 0)
	}
	w.Hours.From, _ = minutes(r.From)
	w.Hours.Until, _ = minutes(r.Until)
	if w.Hours != (router.Hours{}) && r.Zone != "UTC" {
		w.Hours.Zone, _ = time.LoadLocation(r.Zone)
	}
	if r.Percent < 100 {
		share := r.Percent / 100
		w.Share = &share
	}
	w.Per = map[string]router.Per{"user": router.PerUser, "key": router.PerKey, "session": router.PerSession}[r.PercentBy]
	t := router.Then{Model: r.Model, Version: r.Version, Tier: r.Priority, Refuse: r.Refuse, Shadow: r.Shadow.shadow()}
	return router.Rule{Name: r.Name, When: w, Then: t}
}

func (s *Shadow) shadow() router.Shadow { return router.Shadow{Model: s.Model, Percent: s.Percent} }

// validateRoutes checks the rules, and the copies of models. names says which table a name
// leads to.
func (d *decoder) validateRoutes(cfg *Config, names map[string]int) {
	seen := map[string]string{}
	for i := range cfg.Routes {
		r, at := &cfg.Routes[i], fmt.Sprintf("routes[%d]", i)
		d.validateName(at+".name", r.Name)
		d.unique(seen, r.Name, at+".name")
		d.validateWhen(at, r)
		d.validateThen(cfg, at, r, names)
	}
	base := func(name string) string { return baseOf(cfg, names, name) }
	for i := range cfg.Routes {
		later := cfg.Routes[i].rule()
		for j := range i {
			if before := cfg.Routes[j].rule(); before.Hides(&later, base) {
				d.failAt(fmt.Sprintf("routes[%d].name", i), "it can never match: routes[%d] (%s) comes before it and decides wherever it holds", j, before.Name)
				break
			}
		}
	}
	for i := range cfg.Models {
		path := fmt.Sprintf("models[%d].shadow.model", i)
		to := cfg.Models[i].Shadow.Model
		if to != "" && baseOf(cfg, names, to) == cfg.Models[i].Name {
			d.failAt(path, "a model cannot be its own shadow")
		} else {
			d.validateGoal(cfg, path, to, names)
		}
	}
}

func (d *decoder) validateWhen(at string, r *Route) {
	for _, list := range []struct {
		key   string
		names []string
	}{{"models", r.Models}, {"keys", r.Keys}, {"orgs", r.Orgs}, {"teams", r.Teams}, {"groups", r.Groups}} {
		for i, n := range list.names {
			if n == "" || len(n) > 256 || strings.ContainsFunc(n, notHeaderSafe) {
				d.failAt(fmt.Sprintf("%s.%s[%d]", at, list.key, i), "want up to 256 visible ASCII characters")
			}
		}
	}
	for name := range r.Headers {
		switch path := join(at+".headers", name); strings.ToLower(name) {
		case "authorization", "cookie", "x-api-key", "api-key", "proxy-authorization":
			d.failAt(path, "rules do not look at credentials: name the key, its team or a group of it")
		default:
			if name == "" || strings.ContainsFunc(name, notTokenRune) {
				d.failAt(path, "this is no name of a header")
			}
		}
	}
	for i, n := range r.Needs {
		if providers.FeatureOf(n) == 0 {
			d.unknownWord(fmt.Sprintf("%s.needs[%d]", at, i), n, providers.FeatureNames())
		}
	}
	for i, n := range r.Days {
		if !slices.Contains(weekdays, n) {
			d.unknownWord(fmt.Sprintf("%s.days[%d]", at, i), n, weekdays)
		}
	}
	d.validateHours(at, r)
}

func (d *decoder) validateHours(at string, r *Route) {
	if (r.From == "") != (r.Until == "") {
		d.failAt(at+".from", "from and until belong together")
		return
	}
	for _, t := range []struct{ key, text string }{{"from", r.From}, {"until", r.Until}} {
		if _, err := minutes(t.text); err != nil && t.text != "" {
			d.failAt(at+"."+t.key, `want a time of the day such as "22:00"`)
		}
	}
	if r.From != "" && r.From == r.Until {
		d.failAt(at+".until", "it holds at no time: until is from; leave both out for the whole day")
	}
	if _, err := time.LoadLocation(r.Zone); err != nil || r.Zone == "" || r.Zone == "Local" {
		d.failAt(at+".zone", `there is no time zone %q: want a name such as "Europe/Berlin"`, r.Zone)
	}
}

func (d *decoder) unknownWord(path, word string, known []string) {
	hint := ""
	if s := nearest(word, known); s != "" {
		hint = fmt.Sprintf("; did you mean %q?", s)
	}
	d.failAt(path, "there is no %q%s", word, hint)
}

func (d *decoder) validateThen(cfg *Config, at string, r *Route, names map[string]int) {
	leads := r.Model != "" || r.Version != "" || r.Priority != nil
	switch {
	case !leads && r.Refuse == "" && r.Shadow.Model == "":
		d.failAt(at+".model", "it does nothing: give a model, version, priority, refuse or shadow")
	case leads && r.Refuse != "":
		d.failAt(at+".refuse", "a rule that refuses leads nowhere")
	}
	d.validateGoal(cfg, at+".model", r.Model, names)
	d.validateGoal(cfg, at+".shadow.model", r.Shadow.Model, names)
	if r.Model != "" && r.Version == "" && r.Priority == nil && len(r.Models) > 0 &&
		!slices.ContainsFunc(r.Models, func(m string) bool { return strings.Contains(m, "*") || baseOf(cfg, names, m) != r.Model }) {
		d.failAt(at+".model", "it leads where its models lead already")
	}
	if r.Version != "" && !d.bad[at+".model"] {
		d.validateGoalVersion(cfg, at, r, names)
	}
}

// validateGoal checks that a name leads to a [[models]] table.
func (d *decoder) validateGoal(cfg *Config, path, name string, names map[string]int) {
	if name == "" || known(cfg, names, name) {
		return
	}
	hint := ""
	if s := nearest(name, slices.Sorted(maps.Keys(names))); s != "" {
		hint = fmt.Sprintf("; did you mean %q?", s)
	}
	d.failAt(path, "there is no [[models]] table %q%s", name, hint)
}

func known(cfg *Config, names map[string]int, name string) bool {
	if strings.Contains(name, "*") {
		return false
	}
	if _, ok := names[baseOf(cfg, names, name)]; ok {
		return true
	}
	return slices.ContainsFunc(cfg.Models, func(m Model) bool { return strings.Contains(m.Name, "*") && router.Matches(m.Name, name) })
}

// validateGoalVersion checks that the model that a rule leads to has the version, or, where
// it leads to whatever was asked for, that each model that it names has.
func (d *decoder) validateGoalVersion(cfg *Config, at string, r *Route, names map[string]int) {
	to := r.Models
	if r.Model != "" {
		to = []string{r.Model}
	}
	if len(to) == 0 || slices.ContainsFunc(to, func(m string) bool { return strings.Contains(m, "*") }) {
		d.failAt(at+".version", "give the model that it is a version of, or name single models")
		return
	}
	for _, m := range to {
		i, ok := names[m]
		if !ok || !slices.ContainsFunc(cfg.Models[i].Targets, func(t Target) bool { return t.Version == r.Version }) {
			d.failAt(at+".version", "the model %q has no target of the version %q", m, r.Version)
			return
		}
	}
}

// baseOf is the name of the table that an alias or a version leads to; any other name is
// its own.
func baseOf(cfg *Config, names map[string]int, name string) string {
	head, version, ok := cutVersion(name)
	i, is := names[name]
	if !is && ok {
		if i, is = names[head]; is && !slices.ContainsFunc(cfg.Models[i].Targets, func(t Target) bool { return t.Version == version }) {
			is = false
		}
	}
	if !is {
		return name
	}
	return cfg.Models[i].Name
}

func cutVersion(name string) (model, version string, ok bool) {
	at := strings.LastIndexByte(name, '@')
	if at <= 0 {
		return name, "", false
	}
	return name[:at], name[at+1:], true
}
