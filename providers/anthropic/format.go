package anthropic

import (
	"encoding/json"
	"slices"

	"sluice/providers"
	"sluice/streaming/jsonscan"
)

// answerTool is the tool whose input is the answer where a schema is enforced by a
// forced call.
const answerTool = "answer"

// shape translates response_format.
func (a *request) shape() error {
	var f struct {
		Type   string `json:"type"`
		Schema struct {
			Description string          `json:"description"`
			Schema      json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	}
	if err := a.take("response_format", &f, "an object with a type"); err != nil {
		return err
	}
	switch f.Type {
	case "", "text":
		return nil
	case "json_object":
		return a.unsupported("response_format", "promises JSON only by a schema (json_schema)")
	case "json_schema":
	default:
		return providers.Invalid("response_format", `The type of response_format must be "text", "json_object" or "json_schema".`)
	}
	schema, ok := objectSchema(f.Schema.Schema)
	if !ok {
		return providers.Invalid("response_format", "json_schema.schema must be a JSON schema of an object.")
	}
	switch {
	case a.native:
		if schema, ok = narrow(schema); !ok {
			return providers.Invalid("response_format", "json_schema.schema is nested too deeply or no JSON schema.")
		}
		a.out.Output = &output{Format: &format{Type: "json_schema", Schema: schema}}
		return nil
	case a.byTool && a.forced && len(a.out.Tools) == 0:
		a.out.Tools = []tool{{Name: answerTool, Description: f.Schema.Description, InputSchema: schema}}
		a.out.ToolChoice = &toolChoice{Type: "tool", Name: answerTool, NoParallel: true}
		a.forces, a.inTool = true, true
		return nil
	default:
		return a.unsupported("response_format", "cannot hold this model to a schema, at least not beside tools")
	}
}

// What this API's schemas know (a subset of JSON Schema); the rest is told to the model
// in words.
var (
	schemaWords = []string{"type", "title", "enum", "const", "default", "required", "$ref", "examples", "nullable"}
	schemaNotes = []string{"additionalProperties", "$schema", "$id", "$comment"}
	schemaMaps  = []string{"properties", "$defs", "definitions"}
	schemaLists = []string{"anyOf", "allOf"}
	formats     = []string{"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)

// narrower rewrites a schema in one pass; member order is kept, for it is the order in
// which the model answers.
type narrower struct {
	c   jsonscan.Cursor
	out []byte
}

// narrow makes a schema that the API takes: every object is closed, oneOf is anyOf, and
// limits that it does not enforce become part of the description.
func narrow(schema []byte) ([]byte, bool) {
	n := narrower{c: jsonscan.Cursor{B: schema, Limit: maxSchemaDepth}}
	n.schema()
	return n.out, n.c.End()
}

const maxSchemaDepth = 64

func (n *narrower) schema() {
	if n.c.Peek() != '{' {
		n.out = append(n.out, n.c.Skip().Of(n.c.B)...) // true, false
		return
	}
	object, description, limits := false, "", ""
	first := true
	n.out = append(n.out, '{')
	for n.c.Object(); n.c.Key(); {
		name := string(n.c.Name)
		switch {
		case name == "description":
			description, _ = jsonscan.Unquote(n.c.Skip().Of(n.c.B))
		case slices.Contains(schemaNotes, name):
			n.c.Skip()
		case n.keeps(name):
			n.name(&first, name)
			object = n.member(name) || object
		default:
			limits += ", " + name + ": " + string(n.c.Skip().Of(n.c.B))
		}
	}
	if object {
		n.name(&first, "additionalProperties")
		n.out = append(n.out, "false"...)
	}
	if text := joined(description, limits); text != "" {
		n.name(&first, "description")
		n.out = jsonscan.AppendQuote(n.out, text)
	}
	n.out = append(n.out, '}')
}

func joined(description, limits string) string {
	if limits == "" {
		return description
	}
	limits = "{" + limits[len(", "):] + "}"
	if description == "" {
		return limits
	}
	return description + " " + limits
}

// name writes a key, under the name that the API has for it.
func (n *narrower) name(first *bool, name string) {
	if !*first {
		n.out = append(n.out, ',')
	}
	*first = false
	if name == "oneOf" {
		name = "anyOf"
	}
	n.out = append(jsonscan.AppendQuote(n.out, name), ':')
}

// keeps looks at the value of format and minItems, which are known in part.
func (n *narrower) keeps(name string) bool {
	switch name {
	case "items", "oneOf":
		return true
	case "format", "minItems":
		ahead := n.c
		v := string(ahead.Skip().Of(n.c.B))
		text, _ := jsonscan.Unquote([]byte(v))
		return slices.Contains(formats, text) || v == "0" || v == "1"
	}
	return slices.Contains(schemaWords, name) || slices.Contains(schemaMaps, name) || slices.Contains(schemaLists, name)
}

// member writes a value and reports whether it makes its schema one of an object.
func (n *narrower) member(name string) (object bool) {
	switch {
	case name == "items":
		n.schema()
	case name == "oneOf" || slices.Contains(schemaLists, name):
		n.list()
	case slices.Contains(schemaMaps, name):
		n.named()
		return name == "properties"
	default:
		v := n.c.Skip().Of(n.c.B)
		n.out = append(n.out, v...)
		return name == "type" && string(v) == `"object"`
	}
	return false
}

func (n *narrower) list() {
	n.out = append(n.out, '[')
	first := true
	for n.c.Array(); n.c.Elem(); first = false {
		if !first {
			n.out = append(n.out, ',')
		}
		n.schema()
	}
	n.out = append(n.out, ']')
}

func (n *narrower) named() {
	n.out = append(n.out, '{')
	first := true
	for n.c.Object(); n.c.Key(); {
		name := n.c.B[n.c.KeyAt : n.c.KeyAt+len(n.c.Name)+2]
		if !first {
			n.out = append(n.out, ',')
		}
		first = false
		n.out = append(append(n.out, name...), ':')
		n.schema()
	}
	n.out = append(n.out, '}')
}
