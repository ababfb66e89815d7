package ask

import (
	"fmt"

	"sluice/streaming/jsonscan"
)

// Tool is a function that the model may call. Raw is the whole entry as the caller
// sent it.
type Tool struct {
	Name, Description string
	Parameters        []byte // a JSON schema; nil: none
	Strict            bool
	Raw               []byte
}

// Mode says whether tools may or must be called.
type Mode uint8

const (
	// Auto leaves it to the model.
	Auto Mode = iota
	// None forbids calls.
	None
	// Required demands a call.
	Required
	// Named demands a call of one tool.
	Named
)

// Choice is what a caller says about calls.
type Choice struct {
	Mode Mode
	Name string // of the tool, when Named
	One  bool   // at most one call in an answer
}

// Tools takes the tools of a chat request and what is said about calling them. Without
// tools the choice is the zero value.
func (q *Params) Tools() ([]Tool, Choice, error) {
	list, choice, parallel := q.Take("tools"), q.Take("tool_choice"), q.Take("parallel_tool_calls")
	if list == nil {
		return nil, Choice{}, nil
	}
	c := jsonscan.Cursor{B: list, Limit: bodyDepth}
	if c.Peek() != '[' {
		return nil, Choice{}, q.Wrong("tools", "an array")
	}
	var tools []Tool
	at := 0
	for c.Array(); c.Elem(); at++ {
		t, err := q.tool(c.Skip().Of(list), fmt.Sprintf("tools[%d]", at))
		if err != nil {
			return nil, Choice{}, err
		}
		if t != nil {
			tools = append(tools, *t)
		}
	}
	if len(tools) == 0 {
		return nil, Choice{}, nil
	}
	how, err := q.choice(choice)
	how.One = string(parallel) == "false"
	return tools, how, err
}

func (q *Params) tool(v []byte, param string) (*Tool, error) {
	if kind, _ := jsonscan.Unquote(member(v, "type")); kind != "function" {
		return nil, q.Cannot(param, "takes tools of type function only")
	}
	f := member(v, "function")
	t := &Tool{Raw: v, Strict: string(member(f, "strict")) == "true"}
	t.Name, _ = jsonscan.Unquote(member(f, "name"))
	t.Description, _ = jsonscan.Unquote(member(f, "description"))
	if p := member(f, "parameters"); len(p) > 0 && string(p) != "null" {
		t.Parameters = p
	}
	switch {
	case t.Name == "":
		return nil, q.Wrong(param+".function.name", "the name of a function")
	case t.Parameters != nil && t.Parameters[0] != '{':
		return nil, q.Wrong(param+".function.parameters", "a JSON schema")
	}
	return t, nil
}

func (q *Params) choice(v []byte) (Choice, error) {
	if len(v) > 0 && v[0] == '{' {
		if kind, _ := jsonscan.Unquote(member(v, "type")); kind != "function" {
			return Choice{}, q.Cannot("tool_choice", "can be told to call a function, and nothing else")
		}
		name, ok := jsonscan.Unquote(member(member(v, "function"), "name"))
		if !ok || name == "" {
			return Choice{}, q.Wrong("tool_choice.function.name", "the name of a function")
		}
		return Choice{Mode: Named, Name: name}, nil
	}
	switch s, _ := jsonscan.Unquote(v); {
	case v == nil || s == "auto":
		return Choice{}, nil
	case s == "none":
		return Choice{Mode: None}, nil
	case s == "required":
		return Choice{Mode: Required}, nil
	default:
		return Choice{}, q.Wrong("tool_choice", `"auto", "none", "required" or an object that names a function`)
	}
}
