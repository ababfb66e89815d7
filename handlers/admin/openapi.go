package admin

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"sync"
)

// The description of the API: one fragment for each subject.
//
//go:embed openapi/*.json
var openapiFiles embed.FS

// openapiDoc is the part of OpenAPI 3.1 that fragments are merged by.
type openapiDoc struct {
	OpenAPI    string                               `json:"openapi"`
	Info       map[string]string                    `json:"info"`
	Servers    []map[string]string                  `json:"servers"`
	Security   []map[string][]string                `json:"security"`
	Paths      map[string]map[string]map[string]any `json:"paths"`
	Components map[string]map[string]any            `json:"components"`
}

func (s *server) openapiRoutes() []route {
	return []route{{method: http.MethodGet, path: "/openapi.json", role: viewer, handle: s.openapi}}
}

func (s *server) openapi(c *call) error {
	doc, err := openapiText()
	if err != nil {
		return err
	}
	c.status, c.kind, c.body = http.StatusOK, "application/json", doc
	return nil
}

var openapiText = sync.OnceValues(func() ([]byte, error) {
	doc, err := readOpenAPI()
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(doc, "", " ")
})

// readOpenAPI merges the fragments, and adds what holds for every route.
func readOpenAPI() (*openapiDoc, error) {
	files, err := fs.Glob(openapiFiles, "openapi/*.json")
	if err != nil {
		return nil, err
	}
	doc := &openapiDoc{Paths: map[string]map[string]map[string]any{}, Components: map[string]map[string]any{}}
	for _, name := range files {
		text, err := openapiFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var part openapiDoc
		if err := json.Unmarshal(text, &part); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := doc.add(&part); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, methods := range doc.Paths {
		for _, operation := range methods {
			if responses, ok := operation["responses"].(map[string]any); ok && responses["default"] == nil {
				responses["default"] = map[string]any{"$ref": "#/components/responses/Error"}
			}
		}
	}
	return doc, nil
}

// add takes a fragment in; what two fragments say is an error.
func (d *openapiDoc) add(part *openapiDoc) error {
	if part.OpenAPI != "" {
		d.OpenAPI, d.Info, d.Servers, d.Security = part.OpenAPI, part.Info, part.Servers, part.Security
	}
	for path, methods := range part.Paths {
		for method, operation := range methods {
			if d.Paths[path][method] != nil {
				return fmt.Errorf("%s %s is described twice", method, path)
			}
			if d.Paths[path] == nil {
				d.Paths[path] = map[string]map[string]any{}
			}
			d.Paths[path][method] = operation
		}
	}
	for kind, members := range part.Components {
		if d.Components[kind] == nil {
			d.Components[kind] = map[string]any{}
		}
		for name := range members {
			if d.Components[kind][name] != nil {
				return fmt.Errorf("the component %s is there twice", name)
			}
		}
		maps.Copy(d.Components[kind], members)
	}
	return nil
}
