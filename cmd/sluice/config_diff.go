package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// leaves visits every value of a configuration by its path. Elements of arrays of tables
// are named by what they call themselves, so that one that moved is the same:
// upstreams.openai.base_url, models.assistant.targets."openai/gpt-4o".weight.
func (c *Config) leaves(visit func(path string, v reflect.Value)) {
	eachLeaf(reflect.ValueOf(c).Elem(), "", "", visit)
}

func eachLeaf(table reflect.Value, path, owner string, visit func(string, reflect.Value)) {
	for _, f := range fieldsOf(table.Type()) {
		v, at := table.FieldByIndex(f.index), join(path, f.name)
		switch shapeOf(f.typ) {
		case shapeTable:
			eachLeaf(v, at, owner, visit)
		case shapeTables:
			for i := range v.Len() {
				name := nameOf(v.Index(i), owner)
				if name == "" {
					name = fmt.Sprint(i)
				}
				eachLeaf(v.Index(i), join(at, name), name, visit)
			}
		default:
			visit(at, v)
		}
	}
}

// nameOf is what an element of an array of tables calls itself; "" when it has no name.
// owner is the name of the table that it stands in.
func nameOf(elem reflect.Value, owner string) string {
	if t, ok := elem.Interface().(Target); ok {
		return t.name(owner)
	}
	for _, key := range []string{"name", "id"} {
		if f, ok := fieldOf(elem.Type(), key); ok {
			return elem.FieldByIndex(f.index).String()
		}
	}
	return ""
}

// name is how a target of a model is called, as x-sluice-target tells it.
func (t *Target) name(model string) string {
	if t.Model != "" {
		model = t.Model
	}
	return t.Upstream + "/" + model
}

// changedFrom lists the paths whose values are not those of old, in order.
func (c *Config) changedFrom(old *Config) []string {
	was := map[string]reflect.Value{}
	old.leaves(func(path string, v reflect.Value) { was[path] = v })
	changed := map[string]bool{}
	c.leaves(func(path string, v reflect.Value) {
		if before, ok := was[path]; !ok || !same(before, v) {
			changed[path] = true
		}
		delete(was, path)
	})
	for path := range was {
		changed[path] = true
	}
	return slices.Sorted(maps.Keys(changed))
}

func same(a, b reflect.Value) bool { return reflect.DeepEqual(a.Interface(), b.Interface()) }

// keepRunning puts the values of running, which is in force, over those of c that only a
// restart can change, and lists which ones differed. c is not in use yet.
func (c *Config) keepRunning(running *Config) (restart []string) {
	into, from := reflect.ValueOf(c).Elem(), reflect.ValueOf(running).Elem()
	keep := func(f field, into, from reflect.Value, path string) {
		differs := false
		if shapeOf(f.typ) == shapeTable {
			for _, k := range fieldsOf(f.typ) {
				if !same(into.FieldByIndex(f.index).FieldByIndex(k.index), from.FieldByIndex(f.index).FieldByIndex(k.index)) {
					restart, differs = append(restart, join(path, k.name)), true
				}
			}
		} else if !same(into.FieldByIndex(f.index), from.FieldByIndex(f.index)) {
			restart, differs = append(restart, path), true
		}
		if differs {
			into.FieldByIndex(f.index).Set(from.FieldByIndex(f.index))
			c.takeSources(running, path)
		}
	}
	for _, section := range fieldsOf(into.Type()) {
		switch {
		case shapeOf(section.typ) != shapeTable:
		case section.restart:
			keep(section, into, from, section.name)
		default:
			for _, f := range fieldsOf(section.typ) {
				if f.restart {
					keep(f, into.FieldByIndex(section.index), from.FieldByIndex(section.index), join(section.name, f.name))
				}
			}
		}
	}
	if now, was := &c.Server, &running.Server; (now.TLSCert == "") != (was.TLSCert == "") {
		now.TLSCert, now.TLSKey = was.TLSCert, was.TLSKey
		c.takeSources(running, "server.tls_cert")
		c.takeSources(running, "server.tls_key")
		restart = append(restart, "server.tls_cert")
	}
	return restart
}

// takeSources has the value at a path, and those below it, come from where they came from in
// other.
func (c *Config) takeSources(other *Config, path string) {
	below := func(at string) bool { return at == path || strings.HasPrefix(at, path+".") }
	maps.DeleteFunc(c.sources, func(at string, _ Source) bool { return below(at) })
	for at, src := range other.sources {
		if below(at) {
			c.sources[at] = src
		}
	}
}
