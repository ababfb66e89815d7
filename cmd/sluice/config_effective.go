package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// EffectiveText writes the configuration in force as TOML, each value with its
// source beside it and every secret as ***.
func (c *Config) EffectiveText() string {
	var b strings.Builder
	all := reflect.ValueOf(c).Elem()
	for _, section := range fieldsOf(all.Type()) {
		v := all.FieldByIndex(section.index)
		if shapeOf(section.typ) != shapeTables {
			fmt.Fprintf(&b, "%s\n", tableHeader(section))
			c.writeEffective(&b, v, section.name)
			b.WriteByte('\n')
			continue
		}
		for i := range v.Len() {
			fmt.Fprintf(&b, "%s\n", tableHeader(section))
			c.writeEffective(&b, v.Index(i), fmt.Sprintf("%s[%d]", section.name, i))
			b.WriteByte('\n')
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (c *Config) writeEffective(b *strings.Builder, table reflect.Value, path string) {
	for f, v := range c.settings(table, path) {
		fmt.Fprintf(b, "%s = %s # %s\n", f.name, tomlValue(v), c.sourceBelow(join(path, f.name)))
	}
}

// sourceBelow names the source of a value; one that is made of parts, such as
// a table, is named by its strongest part.
func (c *Config) sourceBelow(path string) Source {
	best := c.sources[path]
	for _, at := range slices.Sorted(maps.Keys(c.sources)) {
		rest, below := strings.CutPrefix(at, path)
		if below && rest != "" && (rest[0] == '.' || rest[0] == '[') && c.sources[at].Origin > best.Origin {
			best = c.sources[at]
		}
	}
	return best
}

// settings yields the keys of a table that are in force: not the unset
// optional ones, and of keys that exclude each other the one that was given.
func (c *Config) settings(table reflect.Value, path string) func(yield func(field, reflect.Value) bool) {
	return func(yield func(field, reflect.Value) bool) {
		for _, f := range fieldsOf(table.Type()) {
			v := table.FieldByIndex(f.index)
			if isUnset(v) {
				continue
			}
			if shapeOf(f.typ) == shapeTable && c.sourceBelow(join(path, f.name)).Origin == FromDefault {
				continue // what it sets is of another kind of upstream
			}
			if _, given := c.sources[join(path, f.name)]; f.group != "" && !given {
				continue
			}
			if !yield(f, v) {
				return
			}
		}
	}
}

// sourced is one value of the JSON form.
type sourced struct {
	Value  any    `json:"value"`
	Source string `json:"source"`
}

// EffectiveJSON writes the same as EffectiveText with {value, source} for
// each key.
func (c *Config) EffectiveJSON() ([]byte, error) {
	out := map[string]any{}
	all := reflect.ValueOf(c).Elem()
	for _, section := range fieldsOf(all.Type()) {
		v := all.FieldByIndex(section.index)
		if shapeOf(section.typ) != shapeTables {
			out[section.name] = c.jsonTable(v, section.name)
			continue
		}
		list := make([]any, v.Len())
		for i := range list {
			list[i] = c.jsonTable(v.Index(i), fmt.Sprintf("%s[%d]", section.name, i))
		}
		out[section.name] = list
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(out)
	return b.Bytes(), err
}

func (c *Config) jsonTable(table reflect.Value, path string) map[string]any {
	out := map[string]any{}
	for f, v := range c.settings(table, path) {
		out[f.name] = sourced{jsonValue(v), c.sourceBelow(join(path, f.name)).String()}
	}
	return out
}

// jsonValue gives lists and tables the keys and the emptiness of TOML.
func jsonValue(v reflect.Value) any {
	switch shapeOf(v.Type()) {
	case shapeList, shapeTables:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = jsonValue(v.Index(i))
		}
		return list
	case shapeMap:
		out := map[string]any{}
		for _, name := range sortedKeys(v) {
			out[name] = jsonValue(v.MapIndex(reflect.ValueOf(name)))
		}
		return out
	case shapeTable:
		out := map[string]any{}
		for _, f := range fieldsOf(v.Type()) {
			if v := v.FieldByIndex(f.index); !isUnset(v) {
				out[f.name] = jsonValue(v)
			}
		}
		return out
	default:
		return v.Interface()
	}
}
