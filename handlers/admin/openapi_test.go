package admin

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var wildcard = regexp.MustCompile(`\{([a-z_]+)(?:\.\.\.)?\}`)

// documented is how OpenAPI writes a path: its wildcards have no dots.
func documented(path string) string { return strings.ReplaceAll(path, "...}", "}") }

func tableOf(opt Options) []route { return New(opt).(*server).table }

// TestOpenAPIAgainstTable finds routes that nobody described, and descriptions of none.
func TestOpenAPIAgainstTable(t *testing.T) {
	doc, err := readOpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	inTable, ids := map[string]bool{}, map[string]string{}
	for _, r := range tableOf(Options{}) {
		name := r.method + " " + documented(r.path)
		if inTable[name] {
			t.Errorf("%s is there twice", name)
		}
		inTable[name] = true
		op := doc.Paths[documented(r.path)][strings.ToLower(r.method)]
		if op == nil {
			t.Errorf("%s is not described: add it to handlers/admin/openapi", name)
			continue
		}
		checkOperation(t, name, &r, op)
		id, _ := op["operationId"].(string)
		if other := ids[id]; id == "" || other != "" {
			t.Errorf("%s: the operationId %q is empty, or that of %s", name, id, other)
		}
		ids[id] = name
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			if name := strings.ToUpper(method) + " " + path; !inTable[name] {
				t.Errorf("%s is described and does not exist", name)
			}
		}
	}
}

func checkOperation(t *testing.T, name string, r *route, op map[string]any) {
	t.Helper()
	var inQuery, inPath, wantPath []string
	for _, p := range oneOrMany(op["parameters"]) {
		p := p.(schema)
		switch text, _ := p["name"].(string); p["in"] {
		case "query":
			inQuery = append(inQuery, text)
		case "path":
			inPath = append(inPath, text)
			if p["required"] != true {
				t.Errorf("%s: the parameter %s of the path is required", name, text)
			}
		}
	}
	for _, m := range wildcard.FindAllStringSubmatch(r.path, -1) {
		wantPath = append(wantPath, m[1])
	}
	slices.Sort(inQuery)
	if want := slices.Sorted(slices.Values(r.query)); !slices.Equal(inQuery, want) {
		t.Errorf("%s: the query has %v, the description %v", name, want, inQuery)
	}
	if !slices.Equal(inPath, wantPath) {
		t.Errorf("%s: the path has %v, the description %v", name, wantPath, inPath)
	}
	_, open := op["security"]
	if open != (r.role == anyone) {
		t.Errorf("%s: the description does not say who may use it", name)
	}
	if s, _ := op["summary"].(string); s == "" {
		t.Errorf("%s has no summary", name)
	}
	good := 0
	responses, _ := op["responses"].(schema)
	for status := range responses {
		if strings.HasPrefix(status, "2") {
			good++
		}
	}
	if good == 0 {
		t.Errorf("%s: no answer that means success is described", name)
	}
}

// TestOpenAPIReferences follows every reference of the description.
func TestOpenAPIReferences(t *testing.T) {
	w := ask(t, Options{}, aViewer, "GET", "/openapi.json", "")
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != http.StatusOK || doc["openapi"] != "3.1.0" {
		t.Fatal(w.Code, err, doc["openapi"])
	}
	used := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				at := any(doc)
				for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
					at, _ = at.(map[string]any)[part]
				}
				if at == nil {
					t.Errorf("%s leads nowhere", ref)
				}
				used[ref] = true
			}
			for _, member := range v {
				walk(member)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(doc)
	for name := range doc["components"].(map[string]any)["schemas"].(map[string]any) {
		if !used["#/components/schemas/"+name] {
			t.Errorf("nothing uses the schema %s", name)
		}
	}
}

// TestValidator holds the test's own validator against answers that are wrong.
func TestValidator(t *testing.T) {
	doc, err := readOpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	for text, good := range map[string]bool{
		`{"name":"a","role":"admin","via":"token","expires_at":null}`:                          true,
		`{"name":"a","role":"admin","via":"session","expires_at":"2026-01-02T03:04:05Z"}`:      true,
		`{"name":"a","role":"admin","via":"session","expires_at":"2026-01-02T03:04:05+01:00"}`: false,
		`{"name":"a","role":"admin","via":"token"}`:                                            false,
		`{"name":1,"role":"admin","via":"token","expires_at":null}`:                            false,
		`{"name":"a","role":"root","via":"token","expires_at":null}`:                           false,
		`{"name":"a","role":"admin","via":"token","expires_at":null,"more":1}`:                 false,
		`[]`: false,
	} {
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			t.Fatal(err)
		}
		v := &validator{doc: doc}
		if v.check("$", schema{"$ref": "#/components/schemas/Session"}, value); (len(v.wrong) == 0) != good {
			t.Errorf("%s: %v", text, v.wrong)
		}
	}
}
