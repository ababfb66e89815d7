package main

import (
	"encoding"
	"reflect"
	"strings"
)

// shape says how a Go type is written in TOML.
type shape int

const (
	shapeText   shape = iota // a string that the type reads itself
	shapeString              // any string
	shapeBool
	shapeInt
	shapeFloat
	shapeList   // array of scalars
	shapeMap    // table with free keys
	shapeTable  // table with known keys
	shapeTables // array of tables with known keys
)

var (
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	secretType   = reflect.TypeFor[Secret]()
	sizeType     = reflect.TypeFor[Size]()
	durationType = reflect.TypeFor[Duration]()
	proxyType    = reflect.TypeFor[ProxyURL]()
	dollarsType  = reflect.TypeFor[Dollars]()
)

// shapeOf classifies a type of Config; pointers are optional values.
func shapeOf(t reflect.Type) shape {
	if reflect.PointerTo(t).Implements(textType) {
		return shapeText
	}
	switch t.Kind() {
	case reflect.Pointer:
		return shapeOf(t.Elem())
	case reflect.Bool:
		return shapeBool
	case reflect.Int:
		return shapeInt
	case reflect.Float64:
		return shapeFloat
	case reflect.Map:
		return shapeMap
	case reflect.Struct:
		return shapeTable
	case reflect.Slice:
		if shapeOf(t.Elem()) == shapeTable {
			return shapeTables
		}
		return shapeList
	default:
		return shapeString
	}
}

// want describes a shape in an error message.
func (s shape) want() string {
	return [...]string{
		"a string", "a string", "true or false", "an integer", "a number",
		"an array", "a table", "a table", "an array of tables",
	}[s]
}

// isSecret tells whether values of a type must not be shown.
func isSecret(t reflect.Type) bool {
	switch t {
	case secretType, proxyType:
		return true
	}
	return t.Kind() == reflect.Map && isSecret(t.Elem())
}

// field is one key of a table, from the tags of its struct field.
type field struct {
	name, doc, example, group string
	min, max                  string
	oneof                     []string
	restart                   bool  // a reload keeps the value that runs
	index                     []int // as reflect.Value.FieldByIndex takes it
	typ                       reflect.Type
}

// fieldsOf lists the keys of a table in the order of the struct. Those of an embedded
// struct stand in its place.
func fieldsOf(t reflect.Type) []field {
	fields := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for _, in := range fieldsOf(f.Type) {
				in.index = append([]int{i}, in.index...)
				fields = append(fields, in)
			}
			continue
		}
		name, ok := f.Tag.Lookup("toml")
		if !ok {
			continue
		}
		out := field{
			name: name, doc: f.Tag.Get("doc"), example: f.Tag.Get("example"), group: f.Tag.Get("group"),
			min: f.Tag.Get("min"), max: f.Tag.Get("max"), index: f.Index, typ: f.Type, restart: f.Tag.Get("restart") == "true",
		}
		if values, ok := f.Tag.Lookup("oneof"); ok {
			out.oneof = strings.Split(values, ",")
		}
		fields = append(fields, out)
	}
	return fields
}

// fieldOf finds one key of a table.
func fieldOf(t reflect.Type, name string) (field, bool) {
	for _, f := range fieldsOf(t) {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

func fieldNames(t reflect.Type) []string {
	var names []string
	for _, f := range fieldsOf(t) {
		names = append(names, f.name)
	}
	return names
}

// keyPaths lists every scalar key of the configuration as --set takes it,
// with index 0 for the elements of arrays of tables.
func keyPaths() []string {
	var paths []string
	var walk func(t reflect.Type, prefix string)
	walk = func(t reflect.Type, prefix string) {
		for _, f := range fieldsOf(t) {
			switch shapeOf(f.typ) {
			case shapeTable:
				walk(f.typ, prefix+f.name+".")
			case shapeTables:
				walk(f.typ.Elem(), prefix+f.name+".0.")
			default:
				paths = append(paths, prefix+f.name)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
	return paths
}

// didYouMean ends an "unknown key" message: the nearest key of the same table,
// or else the section that has a key of this name.
func didYouMean(name string, known []string) string {
	if s := nearest(name, known); s != "" {
		return "; did you mean " + s + "?"
	}
	for _, section := range fieldsOf(reflect.TypeFor[Config]()) {
		t := section.typ
		if shapeOf(t) == shapeTables {
			t = t.Elem()
		}
		if _, ok := fieldOf(t, name); ok {
			return "; it belongs to " + tableHeader(section)
		}
	}
	return ""
}

// tableHeader writes [section] or [[section]].
func tableHeader(f field) string {
	if shapeOf(f.typ) == shapeTables {
		return "[[" + f.name + "]]"
	}
	return "[" + f.name + "]"
}

// nearest picks the known word within a small edit distance: 1, and one more
// for every four letters after the first. "" is none.
func nearest(word string, known []string) string {
	if word == "" || len(word) > 64 {
		return ""
	}
	best, bestDistance := "", 1+(len(word)-1)/4
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), k); d <= bestDistance && d < len(k) {
			if d < bestDistance || best == "" {
				best, bestDistance = k, d
			}
		}
	}
	return best
}

// editDistance counts insertions, deletions, replacements and swaps of
// neighbours between two words (optimal string alignment).
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
