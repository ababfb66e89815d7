package demo

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"sluice/providers"
	"sluice/streaming/jsonscan"
)

// schema is the part of JSON Schema (2020-12) that tools are described with.
type schema struct {
	Type             types              `json:"type"`
	Properties       map[string]*schema `json:"properties"`
	Required         []string           `json:"required"`
	Items            *schema            `json:"items"`
	MinItems         int                `json:"minItems"`
	MinLength        int                `json:"minLength"`
	MaxLength        *int               `json:"maxLength"`
	Minimum          *float64           `json:"minimum"`
	Maximum          *float64           `json:"maximum"`
	ExclusiveMinimum json.RawMessage    `json:"exclusiveMinimum"`
	MultipleOf       float64            `json:"multipleOf"`
	Enum             []json.RawMessage  `json:"enum"`
	Const            json.RawMessage    `json:"const"`
	Default          json.RawMessage    `json:"default"`
	Examples         []json.RawMessage  `json:"examples"`
	AnyOf            []*schema          `json:"anyOf"`
	OneOf            []*schema          `json:"oneOf"`
	AllOf            []*schema          `json:"allOf"`
	Ref              string             `json:"$ref"`
	Defs             map[string]*schema `json:"$defs"`
	Definitions      map[string]*schema `json:"definitions"`
}

// types is one type or several.
type types []string

func (t *types) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		*t = types{""}
		return json.Unmarshal(b, &(*t)[0])
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// UnmarshalJSON also takes the schemas true and false.
func (s *schema) UnmarshalJSON(b []byte) error {
	if b[0] == 't' || b[0] == 'f' {
		return nil
	}
	type plain schema
	return json.Unmarshal(b, (*plain)(s))
}

// Bounds of what is filled in for one schema.
const (
	maxSchemaDepth = 8
	maxArguments   = 8 << 10 // bytes
	maxFiller      = 256     // of one string or array
)

// arguments makes arguments that a function's schema allows.
func arguments(f function) ([]byte, error) {
	if absent(f.Parameters) {
		return []byte("{}"), nil
	}
	var s schema
	if json.Unmarshal(f.Parameters, &s) != nil {
		return nil, providers.Invalid("tools", fmt.Sprintf("The parameters of %s are not a JSON Schema.", f.Name))
	}
	if len(s.Type) == 0 {
		s.Type = types{"object"}
	}
	b := (&filler{root: &s}).value(nil, &s, 0)
	if len(b) > maxArguments {
		return nil, providers.Invalid("tools", fmt.Sprintf("The parameters of %s ask for more arguments than the demo gives.", f.Name))
	}
	return b, nil
}

// filler writes one value per schema.
type filler struct{ root *schema }

// resolve follows references and alternatives; the first one is good enough.
func (f *filler) resolve(s *schema) *schema {
	for range maxSchemaDepth {
		switch {
		case s == nil:
			return &schema{}
		case s.Ref != "":
			name := s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
			if s = f.root.Defs[name]; s == nil {
				s = f.root.Definitions[name]
			}
		case len(s.Type) > 0:
			return s
		case len(s.AnyOf) > 0:
			s = s.AnyOf[0]
		case len(s.OneOf) > 0:
			s = s.OneOf[0]
		case len(s.AllOf) > 0:
			s = s.AllOf[0]
		default:
			return s
		}
	}
	return &schema{}
}

func (f *filler) value(dst []byte, s *schema, depth int) []byte {
	s = f.resolve(s)
	if depth > maxSchemaDepth || len(dst) > maxArguments {
		return append(dst, "null"...)
	}
	for _, given := range [][]json.RawMessage{{s.Const}, s.Enum, {s.Default}, s.Examples} {
		if len(given) > 0 && len(given[0]) > 0 {
			return append(dst, given[0]...)
		}
	}
	switch s.kind() {
	case "object":
		return f.object(dst, s, depth)
	case "array":
		return f.array(dst, s, depth)
	case "number", "integer":
		return strconv.AppendFloat(dst, s.number(), 'f', -1, 64)
	case "boolean":
		return append(dst, "true"...)
	case "null":
		return append(dst, "null"...)
	default:
		return jsonscan.AppendQuote(dst, s.text())
	}
}

// kind is the first type that is not null.
func (s *schema) kind() string {
	for _, t := range s.Type {
		if t != "null" {
			return t
		}
	}
	switch {
	case len(s.Type) > 0:
		return "null"
	case s.Properties != nil:
		return "object"
	default:
		return "string"
	}
}

func (f *filler) object(dst []byte, s *schema, depth int) []byte {
	dst = append(dst, '{')
	seen := map[string]bool{}
	for _, name := range s.Required {
		if seen[name] {
			continue
		}
		if len(seen) > 0 {
			dst = append(dst, ',')
		}
		seen[name] = true
		dst = jsonscan.AppendQuote(dst, name)
		dst = append(dst, ':')
		dst = f.value(dst, s.Properties[name], depth+1)
	}
	return append(dst, '}')
}

func (f *filler) array(dst []byte, s *schema, depth int) []byte {
	dst = append(dst, '[')
	for i := range min(max(s.MinItems, 1), maxFiller) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = f.value(dst, s.Items, depth+1)
	}
	return append(dst, ']')
}

// number is 1, moved into the bounds.
func (s *schema) number() float64 {
	n := 1.0
	if s.MultipleOf > 0 {
		n = s.MultipleOf
	}
	if s.Minimum != nil && n < *s.Minimum {
		n = *s.Minimum
	}
	var above float64
	if json.Unmarshal(s.ExclusiveMinimum, &above) == nil && n <= above {
		n = math.Floor(above) + 1
	}
	if s.MultipleOf > 0 {
		n = math.Ceil(n/s.MultipleOf) * s.MultipleOf
	}
	if s.kind() == "integer" {
		n = math.Ceil(n)
	}
	if s.Maximum != nil && n > *s.Maximum {
		n = *s.Maximum
	}
	return n
}

func (s *schema) text() string {
	const word = "demo"
	text := word
	for len(text) < min(s.MinLength, maxFiller) {
		text += " " + word
	}
	if s.MaxLength != nil && len(text) > *s.MaxLength {
		text = text[:max(*s.MaxLength, 0)]
	}
	return text
}
