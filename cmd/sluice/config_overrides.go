package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sluice/handlers/auth/store"
)

// Overrides are values that are set over the configuration while the gateway runs, above the
// file, the environment and flags. They name their subject by what it is called, not by its
// index: models.assistant.targets."openai/gpt-4o".weight. What has dots in its name stands
// in quotes, as in TOML.

// overridable is the closed list of what may be set so: numbers and switches that an
// operator turns while answers run. "*" is a name.
var overridable = slices.Concat([]string{
	"log.level", "demo.enabled", "retry.tries", "retry.budget_percent", "retry.budget_per_second",
	"upstreams.*.drained", "upstreams.*.max_concurrent",
	"models.*.drained", "models.*.max_concurrent", "models.*.queue",
	"models.*.targets.*.drained", "models.*.targets.*.weight",
	"limits.*.burst",
}, limitPaths())

func limitPaths() (paths []string) {
	for _, f := range fieldsOf(reflect.TypeFor[rates]()) {
		paths = append(paths, "limits.*."+f.name)
	}
	return paths
}

// errNoOverridable means a path that nothing can be set over.
var errNoOverridable = errors.New("this cannot be overridden")

// overridePath is a path in its parts.
type overridePath []string

// String is the canonical form.
func (p overridePath) String() string {
	text := ""
	for _, part := range p {
		text = join(text, part)
	}
	return text
}

// key is the path with "*" for names, as in overridable.
func (p overridePath) key() string {
	parts := slices.Clone(p)
	for i := 1; i < len(parts)-1; i += 2 {
		parts[i] = "*"
	}
	return strings.Join(parts, ".")
}

// parseOverridePath reads a path. Names may go without quotes where that is not ambiguous: a
// name ends at the last dot, or at ".targets." in a model.
func parseOverridePath(text string) (overridePath, error) {
	p, err := splitPath(text)
	if err != nil {
		return nil, err
	}
	if slices.Contains(overridable, p.key()) {
		return p, nil
	}
	return nil, fmt.Errorf("%w; what can be: %s", errNoOverridable, meantPath(p))
}

// meantPath names what can be overridden in the section of a path, or the sections.
func meantPath(p overridePath) string {
	var near, sections []string
	for _, key := range overridable {
		section, _, _ := strings.Cut(key, ".")
		if len(p) > 0 && section == p[0] {
			near = append(near, key)
		}
		sections = append(sections, section)
	}
	if len(near) == 0 {
		return "keys of " + strings.Join(slices.Compact(sections), ", ")
	}
	return strings.ReplaceAll(strings.Join(near, ", "), "*", "NAME")
}

func splitPath(text string) (overridePath, error) {
	if strings.Contains(text, `"`) {
		return splitQuoted(text)
	}
	section, rest, _ := strings.Cut(text, ".")
	f, ok := fieldOf(reflect.TypeFor[Config](), section)
	if !ok || shapeOf(f.typ) != shapeTables {
		return strings.Split(text, "."), nil
	}
	if name, target, ok := strings.Cut(rest, ".targets."); ok && section == "models" {
		target, key := cutLast(target)
		return overridePath{section, name, "targets", target, key}, nil
	}
	name, key := cutLast(rest)
	return overridePath{section, name, key}, nil
}

func cutLast(text string) (before, after string) {
	i := strings.LastIndexByte(text, '.')
	return text[:max(i, 0)], text[i+1:]
}

func splitQuoted(text string) (p overridePath, err error) {
	for {
		var part string
		if quoted, err := strconv.QuotedPrefix(text); err == nil && text[0] == '"' {
			if part, err = strconv.Unquote(quoted); err != nil {
				return nil, fmt.Errorf("%w: %q cannot be read", errNoOverridable, text)
			}
			text = text[len(quoted):]
		} else if i := strings.IndexByte(text, '.'); i >= 0 {
			part, text = text[:i], text[i:]
		} else {
			part, text = text, ""
		}
		p = append(p, part)
		switch {
		case text == "":
			return p, nil
		case text[0] != '.':
			return nil, fmt.Errorf("%w: want a dot after %q", errNoOverridable, part)
		}
		text = text[1:]
	}
}

// errStale means an override whose subject is not in the configuration.
type errStale struct{ what string }

func (e *errStale) Error() string { return e.what }

// locate finds what a path is about in a configuration, for a setting. The error is an
// *errStale when it is not there.
func (p overridePath) locate(c *Config) ([]string, error) {
	v, t, at := reflect.ValueOf(c).Elem(), reflect.TypeFor[Config](), []string{}
	owner := ""
	for i := 0; i < len(p); i++ {
		f, ok := fieldOf(t, p[i])
		if !ok {
			return nil, &errStale{fmt.Sprintf("there is no key %s", p)}
		}
		v, at = v.FieldByIndex(f.index), append(at, p[i])
		if shapeOf(f.typ) != shapeTables {
			t = f.typ
			continue
		}
		i++
		n := slices.IndexFunc(indices(v), func(n int) bool { return nameOf(v.Index(n), owner) == p[i] })
		if n < 0 {
			return nil, &errStale{fmt.Sprintf("there is no %q in %s", p[i], overridePath(p[:i]))}
		}
		v, t, owner, at = v.Index(n), f.typ.Elem(), p[i], append(at, strconv.Itoa(n))
	}
	if p[0] == "limits" && v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, &errStale{fmt.Sprintf("the limit %q has no %s", p[1], p[2])}
	}
	return at, nil
}

func indices(v reflect.Value) []int {
	out := make([]int, v.Len())
	for i := range out {
		out[i] = i
	}
	return out
}

// overrideText is the value of an override as TOML writes it, from JSON.
func overrideText(value json.RawMessage) (string, error) {
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		return "", errors.New("the value cannot be read")
	}
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v), nil
	case string:
		return tomlString(v), nil
	case float64:
		text := strings.TrimSpace(string(value))
		if strings.ContainsAny(text, ".eE") {
			text = strconv.FormatFloat(v, 'f', -1, 64)
		}
		return text, nil
	default:
		return "", errors.New("want a number, a string, true or false")
	}
}

// overrideState is what became of an override.
type overrideState struct {
	store.Override
	Why   string // it is ignored; "": it is in force
	Stale bool   // its subject is not in the configuration
}

// ignored tells about an override that changes nothing.
func (s *overrideState) ignored() string {
	return fmt.Sprintf("the override %s = %s of %s is ignored: %s", s.Path, s.Value, s.By, s.Why)
}

// setting is the override as a layer of the configuration.
func (s *overrideState) setting(c *Config) (out setting, err error) {
	p, err := parseOverridePath(s.Path)
	if err != nil {
		return out, err
	}
	if out.path, err = p.locate(c); err != nil {
		return out, err
	}
	out.src = Source{Origin: FromOverride, Name: fmt.Sprintf("by %s at %s", s.By, s.At.UTC().Format("2006-01-02T15:04:05Z07:00"))}
	out.node, err = parseValue(s.Value, out.src)
	return out, err
}

// loadOverridden is loadDocument with overrides above all other layers. Those that cannot be
// in force are ignored, and say so: a configuration is never refused for their sake.
func loadOverridden(doc *document, o loadOptions, items []store.Override) (c *Config, states []overrideState, warnings []string, err error) {
	c, warnings, err = loadDocument(doc.again(), o)
	if err != nil || len(items) == 0 {
		return c, nil, warnings, err
	}
	states = make([]overrideState, len(items))
	var layer []setting
	for i := range items {
		states[i].Override = items[i]
		s, err := states[i].setting(c)
		if err != nil {
			states[i].Why, states[i].Stale = err.Error(), errors.As(err, new(*errStale))
			continue
		}
		layer = append(layer, s)
	}
	if over, _, err := loadDocument(doc.again(), o.over(layer)); err == nil {
		return over, states, warnings, nil
	}
	return loadOneByOne(c, doc, o, states, warnings)
}

// loadOneByOne finds out which overrides make the configuration invalid, and leaves them out.
func loadOneByOne(c *Config, doc *document, o loadOptions, states []overrideState, warnings []string) (*Config, []overrideState, []string, error) {
	var layer []setting
	for i := range states {
		if states[i].Why != "" {
			continue
		}
		s, err := states[i].setting(c)
		if err == nil {
			var over *Config
			if over, _, err = loadDocument(doc.again(), o.over(append(layer[:len(layer):len(layer)], s))); err == nil {
				c, layer = over, append(layer, s)
				continue
			}
		}
		states[i].Why = firstProblem(err)
	}
	return c, states, warnings, nil
}

// firstProblem is what is wrong, without where: that is the override.
func firstProblem(err error) string {
	if all := new(ConfigError); errors.As(err, &all) {
		p := all.Problems[0]
		if p.Source.Origin == FromOverride {
			return p.Msg
		}
		return p.Path + ": " + p.Msg
	}
	return err.Error()
}

// over is the same with a further layer.
func (o loadOptions) over(layer []setting) loadOptions {
	o.Flags = append(o.Flags[:len(o.Flags):len(o.Flags)], layer...)
	return o
}

// again is the document before it was parsed; nil stays nil.
func (doc *document) again() *document {
	if doc == nil {
		return nil
	}
	return &document{name: doc.name, data: doc.data}
}

// document is the file that the configuration was read from, nil for none.
func (c *Config) document() *document {
	if c.file == "" {
		return nil
	}
	return &document{name: c.file, data: c.text}
}
