package admin

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// schema is one node of the description.
type schema = map[string]any

// known are the words that validator understands; another one in a schema is an error, so that
// none passes unseen.
var known = []string{
	"type", "properties", "required", "additionalProperties", "items", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "format", "minimum", "maximum",
	"minLength", "maxLength", "pattern", "description", "default", "examples", "title", "minItems", "maxItems", "readOnly", "deprecated", "exclusiveMinimum",
}

// validator holds values against schemas of a description (JSON Schema 2020-12, as far as known).
type validator struct {
	doc   *openapiDoc
	wrong []string
}

func (v *validator) fail(at, format string, args ...any) {
	v.wrong = append(v.wrong, at+": "+fmt.Sprintf(format, args...))
}

func (v *validator) resolve(at string, s schema) schema {
	for range 10 {
		ref, ok := s["$ref"].(string)
		if !ok {
			return s
		}
		name, _ := strings.CutPrefix(ref, "#/components/schemas/")
		next, ok := v.doc.Components["schemas"][name].(schema)
		if !ok {
			v.fail(at, "%s leads nowhere", ref)
			return schema{}
		}
		s = next
	}
	v.fail(at, "references go round")
	return schema{}
}

func typeOf(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case float64:
		if value == math.Trunc(value) {
			return "integer"
		}
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	default:
		return "object"
	}
}

func (v *validator) check(at string, s schema, value any) {
	s = v.resolve(at, s)
	for word := range s {
		if !slices.Contains(known, word) {
			v.fail(at, "the test does not know %q", word)
		}
	}
	if types := oneOrMany(s["type"]); len(types) > 0 {
		is := typeOf(value)
		if !slices.Contains(types, any(is)) && !(is == "integer" && slices.Contains(types, any("number"))) {
			v.fail(at, "it is of type %s, not %v", is, types)
			return
		}
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, value) {
		v.fail(at, "%v is none of %v", value, enum)
	}
	if want, ok := s["const"]; ok && want != value {
		v.fail(at, "%v is not %v", value, want)
	}
	v.combined(at, s, value)
	switch value := value.(type) {
	case string:
		v.text(at, s, value)
	case float64:
		if low, ok := s["minimum"].(float64); ok && value < low {
			v.fail(at, "%v is less than %v", value, low)
		}
		if high, ok := s["maximum"].(float64); ok && value > high {
			v.fail(at, "%v is more than %v", value, high)
		}
	case []any:
		if items, ok := s["items"].(schema); ok {
			for i, e := range value {
				v.check(fmt.Sprintf("%s[%d]", at, i), items, e)
			}
		}
	case map[string]any:
		v.object(at, s, value)
	}
}

// oneOrMany reads a word that may have one value or a list.
func oneOrMany(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	default:
		return []any{v}
	}
}

func (v *validator) combined(at string, s schema, value any) {
	for _, all := range oneOrMany(s["allOf"]) {
		v.check(at, all.(schema), value)
	}
	for _, word := range []string{"anyOf", "oneOf"} {
		options := oneOrMany(s[word])
		fits := 0
		var why []string
		for _, option := range options {
			one := &validator{doc: v.doc}
			if one.check(at, option.(schema), value); len(one.wrong) == 0 {
				fits++
			}
			why = append(why, one.wrong...)
		}
		if len(options) > 0 && (fits == 0 || word == "oneOf" && fits > 1) {
			v.fail(at, "%d of %s fit: %v", fits, word, why)
		}
	}
}

func (v *validator) text(at string, s schema, value string) {
	if s["format"] == "date-time" {
		if when, err := time.Parse(time.RFC3339Nano, value); err != nil || !strings.HasSuffix(value, "Z") {
			v.fail(at, "%q is no time in UTC: %v, %v", value, when, err)
		}
	}
	if pattern, ok := s["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(value) {
		v.fail(at, "%q does not match %s", value, pattern)
	}
	if low, ok := s["minLength"].(float64); ok && float64(len(value)) < low {
		v.fail(at, "%q is shorter than %v", value, low)
	}
	if high, ok := s["maxLength"].(float64); ok && float64(len(value)) > high {
		v.fail(at, "%q is longer than %v", value, high)
	}
}

func (v *validator) object(at string, s schema, value map[string]any) {
	properties, _ := s["properties"].(schema)
	for _, name := range oneOrMany(s["required"]) {
		if _, ok := value[name.(string)]; !ok {
			v.fail(at, "%s is missing", name)
		}
	}
	for name, member := range value {
		if p, ok := properties[name].(schema); ok {
			v.check(at+"."+name, p, member)
			continue
		}
		switch more := s["additionalProperties"].(type) {
		case bool:
			if !more {
				v.fail(at, "%s is not described", name)
			}
		case schema:
			v.check(at+"."+name, more, member)
		}
	}
}

var description = sync.OnceValues(readOpenAPI)

// described holds one answer against the description.
func described(t *testing.T, table []route, method, path string, w *httptest.ResponseRecorder) {
	t.Helper()
	doc, err := description()
	if err != nil {
		t.Fatal(err)
	}
	v := &validator{doc: doc}
	kind, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
	path, _, _ = strings.Cut(path, "?")
	schemaOf := func(response any) schema {
		r, _ := response.(schema)
		if ref, ok := r["$ref"].(string); ok {
			r, _ = doc.Components["responses"][ref[strings.LastIndexByte(ref, '/')+1:]].(schema)
		}
		content, _ := r["content"].(schema)
		if w.Body.Len() == 0 {
			return nil
		}
		media, ok := content[kind].(schema)
		if !ok {
			t.Errorf("%s %s: %d %s is not described", method, path, w.Code, kind)
			return nil
		}
		s, _ := media["schema"].(schema)
		return s
	}
	var s schema
	if w.Code >= 400 {
		s = schema{"$ref": "#/components/schemas/Error"}
	}
	if r := routeOf(table, method, path); r != nil {
		operation := doc.Paths[documented(r.path)][strings.ToLower(r.method)]
		responses, _ := operation["responses"].(schema)
		response, ok := responses[fmt.Sprint(w.Code)]
		if !ok && w.Code >= 400 {
			response, ok = responses["default"]
		}
		if !ok {
			t.Errorf("%s %s: the status %d is not described", method, r.path, w.Code)
			return
		}
		s = schemaOf(response)
	}
	if s == nil || kind != "application/json" && w.Code < 400 {
		return
	}
	var value any
	if err := json.Unmarshal(w.Body.Bytes(), &value); err != nil {
		t.Errorf("%s %s: %v: %s", method, path, err, w.Body)
		return
	}
	if v.check("$", s, value); len(v.wrong) > 0 {
		t.Errorf("%s %s: the answer is not as described: %s\n%s", method, path, strings.Join(v.wrong, "; "), w.Body)
	}
}

// routeOf finds the row that serves a request: the one with the fewest wildcards.
func routeOf(table []route, method, path string) (found *route) {
	parts := strings.Split(path, "/")
	fewest := len(parts) + 1
	for i := range table {
		r := &table[i]
		want := strings.Split(r.path, "/")
		if r.method != method && !(method == "HEAD" && r.method == "GET") || len(want) != len(parts) && !strings.HasSuffix(r.path, "...}") {
			continue
		}
		wild, fits := 0, len(parts) >= len(want)
		for j := 0; fits && j < len(want); j++ {
			if strings.HasPrefix(want[j], "{") {
				wild++
			} else {
				fits = want[j] == parts[j]
			}
		}
		if fits && wild < fewest {
			found, fewest = r, wild
		}
	}
	return found
}
