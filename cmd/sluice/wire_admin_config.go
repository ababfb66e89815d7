package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"sluice/handlers/admin"
	"sluice/handlers/auth/store"
)

// adminConfig is the configuration for the admin API.
type adminConfig struct{ *reloader }

// Effective implements admin.Config.
func (a adminConfig) Effective() admin.ConfigView {
	g := a.newest.Load()
	last := a.last.Load()
	view := admin.ConfigView{
		File: g.cfg.file, Generation: g.number, TOML: g.cfg.EffectiveText(), Restart: some(last.Restart), LastReload: reloadView(last),
	}
	view.Overrides, _ = a.Overrides()
	text, err := g.cfg.EffectiveJSON()
	if err == nil {
		err = json.Unmarshal(text, &view.Config)
	}
	if err != nil {
		a.log.Error("the configuration cannot be shown", slog.Any("error", err))
	}
	return view
}

// some is never nil, so that it is [] in JSON.
func some(list []string) []string { return append([]string{}, list...) }

func reloadView(r *reloadReport) admin.ConfigReload {
	return admin.ConfigReload{
		At: r.At.UTC(), Reloaded: r.Err == nil, Why: r.Why, Generation: r.Generation, Changed: some(r.Changed), Restart: some(r.Restart),
		Warnings: append(some(r.Warnings), ignoredOf(r.Overrides)...), Errors: problemsOf(r.Err),
	}
}

func ignoredOf(states []overrideState) (out []string) {
	for i := range states {
		if states[i].Why != "" {
			out = append(out, states[i].ignored())
		}
	}
	return out
}

func problemsOf(err error) []admin.ConfigProblem {
	out := []admin.ConfigProblem{}
	if err == nil {
		return out
	}
	all := new(ConfigError)
	if !errors.As(err, &all) {
		return append(out, admin.ConfigProblem{Message: err.Error()})
	}
	for _, p := range all.Problems {
		out = append(out, admin.ConfigProblem{
			Source: p.Source.String(), Line: p.Source.Line, Column: p.Source.Column, Path: p.Path, Message: p.Msg, Excerpt: p.excerpt,
		})
	}
	return out
}

// sentName is what a configuration is called that came in a request.
const sentName = "config.toml"

// Validate implements admin.Config. The environment and flags of this gateway are left out.
func (a adminConfig) Validate(text []byte) admin.ConfigCheck {
	o := loadOptions{Kinds: knownKinds(), Closed: true}
	c, _, err := loadDocument(&document{name: sentName, data: bytes.Clone(text)}, o)
	check := admin.ConfigCheck{Valid: err == nil, Errors: problemsOf(err), Unchecked: []string{}, Stale: []string{}}
	if err != nil {
		return check
	}
	check.Unchecked = some(c.unchecked)
	for _, item := range a.overrides.All().Items {
		s := overrideState{Override: item}
		if _, err := s.setting(c); err != nil {
			check.Stale = append(check.Stale, item.Path)
		}
	}
	return check
}

// Reload implements admin.Config.
func (a adminConfig) Reload(by string) admin.ConfigReload {
	return reloadView(a.reload("asked for by " + by))
}

// Overrides implements admin.Overrides.
func (a adminConfig) Overrides() (all []admin.OverrideView, version uint64) {
	set := a.overrides.All()
	all = []admin.OverrideView{}
	for _, item := range set.Items {
		all = append(all, a.overrideView(item))
	}
	return all, set.Version
}

func (a adminConfig) overrideView(item store.Override) admin.OverrideView {
	view := admin.OverrideView{Path: item.Path, By: item.By, At: item.At, Note: item.Note, Version: item.Version, TOML: item.Value, Value: overrideValue(item.Value)}
	for _, s := range *a.states.Load() {
		if s.Path == item.Path && s.Version == item.Version {
			view.InForce, view.Stale, view.Ignored = s.Why == "", s.Stale, s.Why
		}
	}
	return view
}

// overrideValue is a value for JSON, from TOML.
func overrideValue(text string) any {
	n, err := parseValue(text, Source{})
	if err != nil {
		return text
	}
	switch n.kind {
	case nodeBool:
		return n.text == "true"
	case nodeInt, nodeFloat:
		return json.Number(strings.ReplaceAll(n.text, "_", ""))
	default:
		plain, _, _ := expand(n.text, func(string) (string, bool) { return "", false }) // $$ is a dollar
		return plain
	}
}

// Override implements admin.Overrides.
func (a adminConfig) Override(path string) (admin.OverrideView, error) {
	p, err := parseOverridePath(path)
	if err != nil {
		return admin.OverrideView{}, &admin.BadOverride{Field: "path", Message: sentence(err)}
	}
	item, ok := a.overrides.All().Get(p.String())
	if !ok {
		return admin.OverrideView{}, store.ErrNoOverride
	}
	return a.overrideView(item), nil
}

// SetOverride implements admin.Overrides. What would be ignored is refused.
func (a adminConfig) SetOverride(ctx context.Context, edit admin.OverrideEdit, version uint64) (was, is admin.OverrideView, err error) {
	p, err := parseOverridePath(edit.Path)
	if err != nil {
		return was, is, &admin.BadOverride{Field: "path", Message: sentence(err)}
	}
	value, err := overrideText(edit.Value)
	if err != nil {
		return was, is, &admin.BadOverride{Field: "value", Message: sentence(err)}
	}
	item := store.Override{Path: p.String(), Value: value, By: edit.By, Note: edit.Note}
	if err := a.tryOverride(item); err != nil {
		return was, is, err
	}
	before, after, err := a.overrides.Set(ctx, item, version)
	if err != nil {
		return was, is, err
	}
	was = a.overrideView(before)
	if report := a.apply("override of " + p.String()); report.Err != nil {
		return was, is, report.Err
	}
	return was, a.overrideView(after), nil
}

// tryOverride tells why an override would be ignored, or would have another one ignored that
// is in force.
func (a adminConfig) tryOverride(item store.Override) error {
	items, inForce := []store.Override{}, map[string]bool{item.Path: true}
	for _, o := range a.overrides.All().Items {
		if o.Path != item.Path {
			items = append(items, o)
		}
	}
	for _, s := range *a.states.Load() {
		inForce[s.Path] = inForce[s.Path] || s.Why == ""
	}
	doc := a.newest.Load().cfg.document()
	if a.load == nil {
		return errNoSource
	}
	_, states, _, err := loadOverridden(doc, *a.load, append(items, item))
	if err != nil {
		return err
	}
	for _, s := range slices.Backward(states) {
		switch {
		case s.Why == "" || !inForce[s.Path]:
		case s.Stale:
			return &admin.BadOverride{Field: "path", Message: sentence(errors.New(s.Why))}
		default:
			return &admin.BadOverride{Field: "value", Message: sentence(errors.New(s.Why))}
		}
	}
	return nil
}

// RemoveOverride implements admin.Overrides. One whose path means nothing any more can be
// removed too.
func (a adminConfig) RemoveOverride(ctx context.Context, path string, version uint64) (admin.OverrideView, error) {
	if p, err := parseOverridePath(path); err == nil {
		path = p.String()
	}
	item, _ := a.overrides.All().Get(path)
	view := a.overrideView(item)
	if _, err := a.overrides.Remove(ctx, path, version); err != nil {
		return admin.OverrideView{}, err
	}
	return view, a.apply("override of " + path).Err
}

// sentence makes an error one.
func sentence(err error) string {
	text := strings.TrimSuffix(err.Error(), ".")
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
