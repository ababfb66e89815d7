package gemini

import (
	"encoding/json"

	"sluice/providers/kit/ask"
)

type tools struct {
	Functions []function `json:"functionDeclarations"`
}

// function declares a function by a JSON schema; the older field for an OpenAPI schema
// refuses much of what callers send.
type function struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"parametersJsonSchema,omitempty"`
}

type toolConfig struct {
	Calling calling `json:"functionCallingConfig"`
}

type calling struct {
	Mode    string   `json:"mode"`
	Allowed []string `json:"allowedFunctionNames,omitempty"`
}

// callTools translates tools and what is said about calling them.
func (r *request) callTools() error {
	list, choice, err := r.asked.Tools()
	if err != nil || len(list) == 0 {
		return err
	}
	all, strict := tools{}, false
	for _, t := range list {
		strict = strict || t.Strict
		all.Functions = append(all.Functions, function{t.Name, t.Description, t.Parameters})
	}
	r.out.Tools, r.one = []tools{all}, choice.One
	switch choice.Mode {
	case ask.None:
		r.calling(calling{Mode: "NONE"})
	case ask.Required:
		r.calling(calling{Mode: "ANY"})
	case ask.Named:
		r.calling(calling{Mode: "ANY", Allowed: []string{choice.Name}})
	default:
		if strict {
			r.calling(calling{Mode: "VALIDATED"})
		}
	}
	return nil
}

func (r *request) calling(c calling) { r.out.ToolConfig = &toolConfig{c} }
