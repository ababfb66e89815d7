package main

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

const fileHeader = `# The configuration of sluice. Every key stands here at its default, so an empty
# file, or none, means the same. Lines that begin with # and no space are
# examples: take the # away to use them.
#
# Check a change with:       sluice check-config
# See what is in force with: sluice config print
#
# Durations carry a unit ("500ms", "30s", "1h30m"), sizes may ("64KiB", "10MiB").
# In strings ${VAR}, ${VAR:-default} and ${VAR:?message} bring in environment
# variables; $$ is a dollar sign. The environment overrides any key, for example
# SLUICE_SERVER__LISTEN=:8080 or SLUICE_UPSTREAMS__0__API_KEY=..., and flags
# override the environment: --set server.listen=:8080. Paths in this file are
# relative to it.
#
# SIGHUP puts a changed file in force while answers run; what is marked "(restart)"
# waits for one (docs/operations.md).
`

// examples follow the reference block of an array of tables, by section. Each
// stands alone and is checked by a test as if its # were taken away.
var examples = map[string][]string{
	"keys": {
		`# A key that is kept in a file.
#[[keys]]
#name = "camera"
#key_file = "secrets/camera.key"`,
		`# A key of which only the SHA-256 is known here.
#[[keys]]
#name = "dashboard"
#hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"`,
	},
	"upstreams": {
		`# Azure OpenAI.
#[[upstreams]]
#name = "azure"
#base_url = "https://example.openai.azure.com/openai/v1"
#api_key_file = "secrets/azure.key"
#auth = "api-key"
#query = { api-version = "preview" }`,
		`# Ollama on this machine.
#[[upstreams]]
#name = "ollama"
#base_url = "http://127.0.0.1:11434/v1"
#local = true`,
		`# vLLM, SGLang, llama.cpp, LM Studio or LocalAI in the same network.
#[[upstreams]]
#name = "vllm"
#base_url = "http://vllm.example:8000/v1"
#local = true
#models = ["meta-llama/*"]`,
	},
	"models": {
		`# A pool: three of four calls go to the first target, the others to the second,
# and each stands in for the other when it fails.
#[[models]]
#name = "llama"
#present_as = "llama"
#first_token_failover = "10s"
#[[models.targets]]
#upstream = "vllm"
#model = "meta-llama/Llama-3.1-8B-Instruct"
#weight = 3
#[[models.targets]]
#upstream = "ollama"
#model = "llama3.1"`,
	},
}

// defaultFileText writes the documented default file from the tags of Config.
func defaultFileText() string {
	var b strings.Builder
	b.WriteString(fileHeader)
	defaults := reflect.ValueOf(defaultConfig()).Elem()
	for _, section := range fieldsOf(defaults.Type()) {
		b.WriteString("\n")
		if section.restart {
			section.doc += restartNote
		}
		writeComment(&b, section.doc)
		if shapeOf(section.typ) != shapeTables {
			b.WriteString(tableHeader(section) + "\n")
			writeKeys(&b, defaults.FieldByIndex(section.index), "", section.name)
			continue
		}
		elem := reflect.New(section.typ.Elem())
		if d, ok := elem.Interface().(defaulter); ok {
			d.setDefaults()
		}
		b.WriteString("#" + tableHeader(section) + "\n")
		writeKeys(&b, elem.Elem(), "#", section.name)
		for _, e := range examples[section.name] {
			b.WriteString("\n" + e + "\n")
		}
	}
	return b.String()
}

// restartNote marks what a reload does not change.
const restartNote = " (restart)"

// writeKeys writes the keys of one table with their comments, then the tables in
// it; prefix "#" makes it an example. Of keys that exclude each other only the
// first is an example line, the others are part of the comments.
func writeKeys(b *strings.Builder, table reflect.Value, prefix, path string) {
	defer writeTables(b, table, prefix, path)
	groups := map[string]bool{}
	for _, f := range fieldsOf(table.Type()) {
		if f.standsApart() {
			continue
		}
		doc := f.doc
		if len(f.oneof) > 0 {
			doc = strings.TrimSuffix(doc, ".") + ": " + oneOf(f.oneof) + "."
		}
		if f.restart {
			doc += restartNote
		}
		writeComment(b, doc)
		value := f.example
		if value == "" {
			value = tomlValue(table.FieldByIndex(f.index))
		}
		if f.group != "" && groups[f.group] {
			fmt.Fprintf(b, "#   %s = %s\n", f.name, value)
			continue
		}
		groups[f.group] = true
		fmt.Fprintf(b, "%s%s = %s\n", prefix, f.name, value)
	}
}

// standsApart tells whether a key is a table with a header of its own, or an array of
// such tables; one with an example is written in one line.
func (f field) standsApart() bool {
	s := shapeOf(f.typ)
	return s == shapeTable || s == shapeTables && f.example == ""
}

// writeTables writes the tables in a table. Each stands at its defaults.
func writeTables(b *strings.Builder, table reflect.Value, prefix, path string) {
	for _, f := range fieldsOf(table.Type()) {
		if !f.standsApart() {
			continue
		}
		writeComment(b, f.doc)
		at, value, header, prefix := join(path, f.name), table.FieldByIndex(f.index), "%s[%s]\n", prefix
		if shapeOf(f.typ) == shapeTables {
			elem := reflect.New(f.typ.Elem())
			if d, ok := elem.Interface().(defaulter); ok {
				d.setDefaults()
			}
			value, header, prefix = elem.Elem(), "%s[[%s]]\n", "#" // none of them is a default
		}
		fmt.Fprintf(b, header, prefix, at)
		writeKeys(b, value, prefix, at)
	}
}

// writeComment breaks a comment into lines of at most 100 characters.
func writeComment(b *strings.Builder, doc string) {
	line := "#"
	for word := range strings.FieldsSeq(doc) {
		if len(line)+1+len(word) > 100 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

// tomlValue writes a value as TOML that loads to the same value. Secrets are
// masked by their own text form.
func tomlValue(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch shapeOf(v.Type()) {
	case shapeText:
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			text = []byte(masked)
		}
		return tomlString(string(text))
	case shapeString:
		return tomlString(v.String())
	case shapeFloat:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64)
	case shapeList, shapeTables:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = tomlValue(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case shapeMap, shapeTable:
		return inlineTable(v)
	default:
		return fmt.Sprint(v.Interface())
	}
}

func inlineTable(v reflect.Value) string {
	var parts []string
	if v.Kind() == reflect.Map {
		for _, name := range sortedKeys(v) {
			parts = append(parts, tomlKey(name)+" = "+tomlValue(v.MapIndex(reflect.ValueOf(name))))
		}
	} else {
		for _, f := range fieldsOf(v.Type()) {
			if v := v.FieldByIndex(f.index); !isUnset(v) {
				parts = append(parts, f.name+" = "+tomlValue(v))
			}
		}
	}
	if len(parts) == 0 {
		return "{}"
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}

// isUnset tells whether an optional value is not there.
func isUnset(v reflect.Value) bool { return v.Kind() == reflect.Pointer && v.IsNil() }

func sortedKeys(m reflect.Value) []string {
	var names []string
	for _, k := range m.MapKeys() {
		names = append(names, k.String())
	}
	slices.Sort(names)
	return names
}

func tomlKey(name string) string {
	if bareKey.MatchString(name) {
		return name
	}
	return tomlString(name)
}

// tomlString writes a basic string in which no dollar is expanded.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '$':
			b.WriteString("$$")
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
