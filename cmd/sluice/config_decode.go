package main

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// decoder turns the tree of nodes into a Config and collects every problem on
// the way instead of stopping at the first.
type decoder struct {
	doc      *document // nil without a file
	lookup   func(string) (string, bool)
	problems []Problem
	nodes    map[string]*node // by path, to find the place of a value again
	bad      map[string]bool  // paths that already have a problem
	sources  map[string]Source
	used     map[string]bool // environment variables named in ${...}
	reads    marks           // files that were read

	// closed is for text from elsewhere: no file and no variable is looked at, so that
	// nobody learns what is in them.
	closed    bool
	unchecked []string // paths whose values depend on a file or a variable
}

// fail adds a problem at a node: at its key, or at its value.
func (d *decoder) fail(n *node, atKey bool, path, format string, args ...any) {
	d.bad[path] = true
	p := Problem{Source: n.src, Path: path, Msg: fmt.Sprintf(format, args...)}
	if n.src.Origin == FromFile {
		p.at = n.val
		if atKey {
			p.at = n.key
		}
		p.Source = d.doc.source(p.at.start)
	}
	d.problems = append(d.problems, p)
}

func (d *decoder) mismatch(n *node, path, want string) {
	d.fail(n, false, path, "want %s, got %s", want, n.kind)
}

// table decodes a table with known keys into a struct.
func (d *decoder) table(n *node, v reflect.Value, path string) {
	for _, name := range n.order {
		if _, ok := fieldOf(v.Type(), name); !ok {
			child := n.keys[name]
			d.fail(child, true, join(path, name), "unknown key%s", didYouMean(name, fieldNames(v.Type())))
		}
	}
	for _, f := range fieldsOf(v.Type()) {
		if child := n.keys[f.name]; child != nil {
			d.value(child, v.FieldByIndex(f.index), join(path, f.name), f)
		}
	}
}

// value decodes one node into a value of any shape.
func (d *decoder) value(n *node, v reflect.Value, path string, f field) {
	d.nodes[path] = n
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch s := shapeOf(v.Type()); s {
	case shapeTable:
		if n.kind != nodeTable {
			d.wrongTable(n, path, f.name)
			return
		}
		d.table(n, v, path)
	case shapeTables:
		d.tables(n, v, path, f)
	case shapeList:
		d.list(n, v, path, f)
	case shapeMap:
		d.freeTable(n, v, path, f)
	default:
		d.sources[path] = n.src
		n.shown = !isSecret(v.Type())
		if d.closed && n.kind == nodeString && dependsOnEnv(n.text) {
			switch { // so that what refers to it still finds it
			case s == shapeString:
				v.SetString(n.text)
			case v.Type() == secretType:
				v.Set(reflect.ValueOf(newSecret(n.text)))
			}
			d.skip(path)
			return
		}
		if err := d.scalar(n, v, s); err != nil {
			d.fail(n, false, path, "%s", d.quote(n, err))
			return
		}
		if err := f.check(v); err != nil {
			d.fail(n, false, path, "%s", d.quote(n, err))
		}
	}
}

// quote puts the value, as it was written, before what is wrong with it.
func (d *decoder) quote(n *node, err error) string {
	if !n.shown || (n.kind != nodeString && n.kind != nodeText) {
		return err.Error()
	}
	text := []rune(n.text)
	if len(text) > 60 {
		text = append(text[:60:60], '…')
	}
	return strconv.Quote(string(text)) + ": " + err.Error()
}

func (d *decoder) wrongTable(n *node, path, name string) {
	if n.kind == nodeArray {
		d.fail(n, true, path, "this is one table: write [%s], not [[%s]]", name, name)
		return
	}
	d.mismatch(n, path, "a table")
}

// tables decodes an array of tables, each element over its own defaults.
func (d *decoder) tables(n *node, v reflect.Value, path string, f field) {
	if n.kind == nodeTable {
		d.fail(n, true, path, "this is a list of tables: write [[%s]], not [%s]", f.name, f.name)
		return
	}
	if n.kind != nodeArray {
		d.mismatch(n, path, shapeTables.want())
		return
	}
	d.sources[path] = n.src
	out := reflect.MakeSlice(v.Type(), len(n.elems), len(n.elems))
	for i, elem := range n.elems {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.nodes[at] = elem
		if def, ok := out.Index(i).Addr().Interface().(defaulter); ok {
			def.setDefaults()
		}
		if elem.kind != nodeTable {
			d.mismatch(elem, at, "a table")
			continue
		}
		d.table(elem, out.Index(i), at)
	}
	v.Set(out)
}

// list decodes an array of scalars.
func (d *decoder) list(n *node, v reflect.Value, path string, f field) {
	if n.kind != nodeArray {
		n.shown = !isSecret(v.Type().Elem())
		d.mismatch(n, path, `an array such as ["a", "b"]`)
		return
	}
	d.sources[path] = n.src
	out := reflect.MakeSlice(v.Type(), len(n.elems), len(n.elems))
	for i, elem := range n.elems {
		d.value(elem, out.Index(i), fmt.Sprintf("%s[%d]", path, i), field{name: f.name})
	}
	v.Set(out)
}

// freeTable decodes a table whose keys are the user's own.
func (d *decoder) freeTable(n *node, v reflect.Value, path string, f field) {
	if n.kind != nodeTable {
		d.mismatch(n, path, `a table such as { name = "value" }`)
		return
	}
	d.sources[path] = n.src
	out := reflect.MakeMapWithSize(v.Type(), len(n.keys))
	for _, name := range n.order {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(n.keys[name], elem, join(path, name), field{name: f.name})
		out.SetMapIndex(reflect.ValueOf(name), elem)
	}
	v.Set(out)
}

// scalar decodes one string, number or boolean. The text of an environment
// variable or a flag is read as the type wants it.
func (d *decoder) scalar(n *node, v reflect.Value, s shape) error {
	text := n.text
	if !n.fits(v.Type(), s) {
		return fmt.Errorf("want %s, got %s", wantOf(v.Type(), s), n.kind)
	}
	if n.kind == nodeString && n.src.Origin == FromFile {
		expanded, used, err := expand(text, d.lookup)
		for _, name := range used {
			d.used[name] = true
		}
		if err != nil {
			return err
		}
		text = expanded
	}
	if n.kind == nodeInt {
		i, err := strconv.ParseInt(text, 0, 64) // TOML's 1_000 and 0xff
		if err != nil {
			return errors.New("the number is too large")
		}
		text = strconv.FormatInt(i, 10)
	}
	return setText(v, s, text)
}

// setText reads a scalar from its text.
func setText(v reflect.Value, s shape, text string) error {
	switch s {
	case shapeText:
		return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	case shapeString:
		v.SetString(text)
	case shapeBool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("want true or false")
		}
		v.SetBool(b)
	case shapeInt:
		i, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("want an integer")
		}
		v.SetInt(int64(i))
	case shapeFloat:
		x, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return errors.New("want a finite number")
		}
		v.SetFloat(x)
	}
	return nil
}

// fits tells whether what was written may stand for the type of the key.
func (n *node) fits(t reflect.Type, s shape) bool {
	switch n.kind {
	case nodeText:
		return true
	case nodeString:
		return s == shapeText || s == shapeString
	case nodeBool:
		return s == shapeBool
	case nodeInt:
		zero := strings.Trim(n.text, "+-0_") == ""
		return s == shapeInt || s == shapeFloat || t == sizeType || t == dollarsType || t == durationType && zero
	case nodeFloat:
		return s == shapeFloat || t == dollarsType
	}
	return false
}

// wantOf describes what a key takes.
func wantOf(t reflect.Type, s shape) string {
	switch t {
	case durationType:
		return `a duration in quotes, such as "30s"`
	case sizeType:
		return `a size such as 4096 or "10MiB"`
	case dollarsType:
		return "an amount in US dollars, such as 0.15"
	}
	if s == shapeText || s == shapeString {
		return "a string in quotes"
	}
	return s.want()
}

// check holds a value against the range or the list of its key.
func (f field) check(v reflect.Value) error {
	if len(f.oneof) > 0 {
		return f.checkString(v.String())
	}
	if f.min != "" && compare(v, f.min) < 0 {
		return fmt.Errorf("must be at least %s", f.min)
	}
	if f.max != "" && compare(v, f.max) > 0 {
		return fmt.Errorf("must be at most %s", f.max)
	}
	return nil
}

// checkString holds a value against the list of its key.
func (f field) checkString(value string) error {
	if slices.Contains(f.oneof, value) {
		return nil
	}
	msg := "want " + oneOf(f.oneof)
	if s := nearest(value, f.oneof); s != "" && len(f.oneof) > 1 {
		msg += fmt.Sprintf("; did you mean %q?", s)
	}
	return errors.New(msg)
}

// compare orders a value and a limit from a tag.
func compare(v reflect.Value, limit string) int {
	other := reflect.New(v.Type()).Elem()
	if err := setText(other, shapeOf(v.Type()), limit); err != nil {
		panic("limit in a tag of Config: " + limit + ": " + err.Error())
	}
	if v.CanFloat() {
		return cmp.Compare(v.Float(), other.Float())
	}
	return cmp.Compare(v.Int(), other.Int())
}

// oneOf writes a choice: "a", "b" or "c".
func oneOf(values []string) string {
	quotedValues := make([]string, len(values))
	for i, v := range values {
		quotedValues[i] = strconv.Quote(v)
	}
	if len(values) == 1 {
		return quotedValues[0]
	}
	last := len(values) - 1
	return strings.Join(quotedValues[:last], ", ") + " or " + quotedValues[last]
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// join appends a key to a path; one that is no bare key comes in quotes.
func join(path, name string) string {
	if !bareKey.MatchString(name) {
		if runes := []rune(name); len(runes) > 64 {
			name = string(runes[:64]) + "…"
		}
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}
