package anthropic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"sluice/providers"
	"sluice/streaming/jsonscan"
)

type tool struct {
	Name         string          `json:"name"`
	Description  string          `json:"description,omitempty"`
	InputSchema  json.RawMessage `json:"input_schema"`
	Strict       bool            `json:"strict,omitempty"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`
}

type toolChoice struct {
	Type       string `json:"type"`
	Name       string `json:"name,omitempty"`
	NoParallel bool   `json:"disable_parallel_tool_use,omitempty"`
}

// offered is a tool of OpenAI's.
type offered struct {
	Type     string `json:"type"`
	Function struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
		Strict      bool            `json:"strict"`
	} `json:"function"`
	CacheControl json.RawMessage `json:"cache_control"`
}

// callTools translates tools, tool_choice and parallel_tool_calls.
func (a *request) callTools() error {
	var list []offered
	if err := a.take("tools", &list, "an array of functions"); err != nil {
		return err
	}
	for i := range list {
		if err := a.offer(i, &list[i]); err != nil {
			return err
		}
	}
	if err := a.choose(); err != nil {
		return err
	}
	parallel := true
	if err := a.take("parallel_tool_calls", &parallel, "true or false"); err != nil {
		return err
	}
	if !parallel && len(a.out.Tools) > 0 {
		if a.out.ToolChoice == nil {
			a.out.ToolChoice = &toolChoice{Type: "auto"}
		}
		a.out.ToolChoice.NoParallel = a.out.ToolChoice.Type != "none"
	}
	return nil
}

func (a *request) offer(i int, o *offered) error {
	at := fmt.Sprintf("tools[%d]", i)
	if o.Type != "function" || o.Function.Name == "" {
		return a.unsupported(at, "takes only functions that have a name as tools")
	}
	schema, ok := objectSchema(o.Function.Parameters)
	if !ok {
		return providers.Invalid(at+".function.parameters", "The parameters of a function must be a JSON schema of an object.")
	}
	strict := o.Function.Strict && a.schemaful
	if o.Function.Strict && !strict {
		a.drop("tools.strict")
	}
	if strict {
		if schema, ok = narrow(schema); !ok {
			return providers.Invalid(at+".function.parameters", "The parameters of a function are nested too deeply or no JSON schema.")
		}
	}
	a.out.Tools = append(a.out.Tools, tool{Name: o.Function.Name, Description: o.Function.Description, InputSchema: schema, Strict: strict, CacheControl: o.CacheControl})
	return nil
}

// objectSchema gives a schema the type that the API wants it to have.
func objectSchema(b []byte) (json.RawMessage, bool) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || string(b) == "null" || string(b) == "{}" {
		return json.RawMessage(`{"type":"object","properties":{}}`), true
	}
	typed := false
	c := jsonscan.Cursor{B: b, Limit: 1 << 12}
	for c.Object(); c.Key(); {
		typed = typed || string(c.Name) == "type"
		c.Skip()
	}
	if !c.End() {
		return nil, false
	}
	if !typed {
		b = append([]byte(`{"type":"object",`), bytes.TrimLeft(b[1:], " \t\r\n")...)
	}
	return b, true
}

// choose translates tool_choice: a word, a function, or some of the tools.
func (a *request) choose() error {
	raw := a.fields["tool_choice"]
	if raw == nil {
		return nil
	}
	var object struct {
		Type     string
		Function struct{ Name string }
		Allowed  struct {
			Mode  string
			Tools []offered
		} `json:"allowed_tools"`
	}
	mode, _ := jsonscan.Unquote(raw)
	if mode == "" && json.Unmarshal(raw, &object) != nil {
		return badChoice()
	}
	switch object.Type {
	case "function":
		return a.demand(&toolChoice{Type: "tool", Name: object.Function.Name})
	case "allowed_tools":
		mode = object.Allowed.Mode
		a.out.Tools = slices.DeleteFunc(a.out.Tools, func(t tool) bool {
			return !slices.ContainsFunc(object.Allowed.Tools, func(o offered) bool { return o.Function.Name == t.Name })
		})
	}
	switch mode {
	case "required":
		return a.demand(&toolChoice{Type: "any"})
	case "auto", "none":
		if len(a.out.Tools) > 0 {
			a.out.ToolChoice = &toolChoice{Type: mode}
		}
		return nil
	}
	return badChoice()
}

func badChoice() error {
	return providers.Invalid("tool_choice", `tool_choice must be "none", "auto", "required", or an object that names a function or allowed_tools.`)
}

func (a *request) demand(c *toolChoice) error {
	offered := c.Name == "" && len(a.out.Tools) > 0 || slices.ContainsFunc(a.out.Tools, func(t tool) bool { return t.Name == c.Name })
	if !offered {
		return providers.Invalid("tool_choice", "tool_choice demands a tool that tools does not offer.")
	}
	if !a.forced {
		return a.unsupported("tool_choice", "leaves it to this model whether it calls a tool (\"auto\" or \"none\")")
	}
	a.out.ToolChoice, a.forces = c, true
	return nil
}

// declareCalled declares the tools that were called earlier in a conversation whose
// caller offers none now, for the API refuses calls of tools that it is not told of.
func (a *request) declareCalled() error {
	if len(a.out.Tools) > 0 {
		return nil
	}
	for _, m := range a.out.Messages {
		for _, b := range m.Content {
			known := slices.ContainsFunc(a.out.Tools, func(t tool) bool { return t.Name == b.Name })
			if b.Type == "tool_use" && !known {
				a.out.Tools = append(a.out.Tools, tool{Name: b.Name, InputSchema: json.RawMessage(`{"type":"object"}`)})
			}
		}
	}
	if len(a.out.Tools) > 0 {
		a.out.ToolChoice = &toolChoice{Type: "none"}
	}
	return nil
}
