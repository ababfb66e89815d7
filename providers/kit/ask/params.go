// Package ask knows what a caller of OpenAI's API may ask for. It reads the bodies of
// chat, completions and embeddings requests for adapters that translate them, and
// refuses what an upstream cannot do, always in the same words: which parameter, which
// model, and why.
package ask

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sluice/providers"
	"sluice/streaming/jsonscan"
)

// Params are the members of one request's body. An adapter takes those that it
// translates and then lets Rest judge what nobody took. Values are parts of the
// request's body and must not be changed. Members that are null count as absent.
type Params struct {
	req     *providers.Request
	kind    string
	drop    bool
	names   []string // in the order of the body
	values  map[string][]byte
	dropped []string
	media   bool
}

// Read reads the body of a request that Parse has accepted. kind is how refusals name
// the upstream. With drop set, what the upstream cannot do is left out instead of
// refused, unless the request is strict.
func Read(req *providers.Request, kind string, drop bool) *Params {
	q := &Params{req: req, kind: kind, drop: drop && !req.Strict, values: map[string][]byte{}}
	c := jsonscan.Cursor{B: req.Body, Limit: bodyDepth}
	for c.Object(); c.Key(); {
		name, _ := jsonscan.Unquote([]byte(`"` + string(c.Name) + `"`))
		v := c.Skip().Of(req.Body)
		if string(v) == "null" {
			continue
		}
		if _, twice := q.values[name]; !twice {
			q.names = append(q.names, name)
		}
		q.values[name] = v
	}
	return q
}

// bodyDepth is no bound: Parse has bounded the nesting.
const bodyDepth = 1 << 20

// Model is the model as the caller named it.
func (q *Params) Model() string { return q.req.Model }

// Take returns a member's JSON text and counts it as dealt with; nil: it is absent.
func (q *Params) Take(name string) []byte {
	v := q.values[name]
	delete(q.values, name)
	return v
}

// Has reports whether a member is there that nobody has taken.
func (q *Params) Has(name string) bool { return q.values[name] != nil }

// Cannot refuses a parameter, or notes that it is dropped. why continues the sentence
// "its upstream is of kind X, which …".
func (q *Params) Cannot(param, why string) error {
	top, _, _ := strings.Cut(param, "[")
	top, _, _ = strings.Cut(top, ".")
	delete(q.values, top)
	if q.drop {
		if !slices.Contains(q.dropped, param) {
			q.dropped = append(q.dropped, param)
		}
		return nil
	}
	return providers.Invalid(param, fmt.Sprintf("%s cannot be used with the model %q: its upstream is of kind %s, which %s.", param, q.req.Model, q.kind, why))
}

// Wrong refuses a parameter whose value is of no use to any upstream.
func (q *Params) Wrong(param, want string) error {
	return providers.Invalid(param, param+" must be "+want+".")
}

// Bounded notes that the upstream is asked for less than a parameter says.
func (q *Params) Bounded(param string) {
	if !slices.Contains(q.dropped, param) {
		q.dropped = append(q.dropped, param)
	}
}

// droppedHeader names the parameters that the upstream was not sent as they were.
const droppedHeader = "X-Sluice-Dropped-Params"

// Header is what the answer's Meta tells of dropped parameters; nil when there are none.
func (q *Params) Header() http.Header {
	if len(q.dropped) == 0 {
		return nil
	}
	return http.Header{droppedHeader: {strings.Join(q.dropped, ", ")}}
}

// Number takes a number of at least low and at most high, as it stands in the body;
// nil: it is absent.
func (q *Params) Number(name string, low, high float64) ([]byte, error) {
	v := q.Take(name)
	if v == nil {
		return nil, nil
	}
	if f, err := strconv.ParseFloat(string(v), 64); err != nil || f < low || f > high {
		return nil, q.Wrong(name, fmt.Sprintf("a number from %g to %g", low, high))
	}
	return v, nil
}

// Integer takes an integer of at least low; ok is false when it is absent.
func (q *Params) Integer(name string, low int64) (n int64, ok bool, err error) {
	v := q.Take(name)
	if v == nil {
		return 0, false, nil
	}
	n, err = strconv.ParseInt(string(v), 10, 64)
	if err != nil || n < low {
		return 0, false, q.Wrong(name, fmt.Sprintf("an integer of at least %d", low))
	}
	return n, true, nil
}

// Seed takes any integer; ok is false when it is absent.
func (q *Params) Seed() (n int64, ok bool, err error) {
	v := q.Take("seed")
	if v == nil {
		return 0, false, nil
	}
	if n, err = strconv.ParseInt(string(v), 10, 64); err != nil {
		return 0, false, q.Wrong("seed", "an integer")
	}
	return n, true, nil
}

// MaxTokens takes the bound on output tokens, under its new name before its old one;
// ok is false when there is none.
func (q *Params) MaxTokens() (n int64, ok bool, err error) {
	old, isOld, err := q.Integer("max_tokens", 1)
	if err != nil {
		return 0, false, err
	}
	if n, ok, err = q.Integer("max_completion_tokens", 1); ok || err != nil {
		return n, ok, err
	}
	return old, isOld, nil
}

// Bool takes a boolean; false when it is absent.
func (q *Params) Bool(name string) (bool, error) {
	switch v := q.Take(name); string(v) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, q.Wrong(name, "true or false")
	}
}

// String takes a string; "" when it is absent.
func (q *Params) String(name string) (string, error) {
	v := q.Take(name)
	if v == nil {
		return "", nil
	}
	s, ok := jsonscan.Unquote(v)
	if !ok {
		return "", q.Wrong(name, "a string")
	}
	return s, nil
}

// Strings takes a string or an array of strings. Nil: it is absent or empty.
func (q *Params) Strings(name string) ([]string, error) {
	v := q.Take(name)
	if v == nil {
		return nil, nil
	}
	if s, ok := jsonscan.Unquote(v); ok {
		return []string{s}, nil
	}
	var all []string
	if err := json.Unmarshal(v, &all); err != nil || hasNull(v) {
		return nil, q.Wrong(name, "a string or an array of strings")
	}
	return all, nil
}

// Stop takes the stop sequences; empty ones stop nothing and are left out.
func (q *Params) Stop() ([]string, error) {
	all, err := q.Strings("stop")
	return slices.DeleteFunc(all, func(s string) bool { return s == "" }), err
}

// Effort takes how much the model shall think, as reasoning_effort or in a reasoning
// object; "" when it is not said.
func (q *Params) Effort() (string, error) {
	param := "reasoning_effort"
	v := q.Take(param)
	if object := q.Take("reasoning"); v == nil && object != nil {
		param = "reasoning.effort"
		v = member(object, "effort")
	}
	if v == nil || string(v) == "null" {
		return "", nil
	}
	s, _ := jsonscan.Unquote(v)
	if !slices.Contains(efforts, s) {
		return "", q.Wrong(param, "one of "+strings.Join(efforts, ", "))
	}
	return s, nil
}

var efforts = []string{"none", "minimal", "low", "medium", "high", "xhigh", "max"}

// Format takes response_format. kind is "", "json_object" or "json_schema"; schema is
// the JSON schema of the last.
func (q *Params) Format() (kind string, schema []byte, err error) {
	v := q.Take("response_format")
	if v == nil {
		return "", nil, nil
	}
	kind, _ = jsonscan.Unquote(member(v, "type"))
	switch kind {
	case "text":
		return "", nil, nil
	case "json_object":
		return kind, nil, nil
	case "json_schema":
		if schema = member(member(v, "json_schema"), "schema"); len(schema) == 0 || schema[0] != '{' {
			return "", nil, q.Wrong("response_format.json_schema.schema", "a JSON schema")
		}
		return kind, schema, nil
	default:
		return "", nil, q.Wrong("response_format.type", "one of text, json_object, json_schema")
	}
}

// member returns the value of one member of an object, nil when there is none.
func member(object []byte, name string) (value []byte) {
	c := jsonscan.Cursor{B: object, Limit: bodyDepth}
	if c.Peek() != '{' {
		return nil
	}
	for c.Object(); c.Key(); {
		if is := string(c.Name) == name; is {
			value = c.Skip().Of(object)
		} else {
			c.Skip()
		}
	}
	return value
}

// hasNull reports whether an array has an element that is null, which json reads as "".
func hasNull(array []byte) bool {
	c := jsonscan.Cursor{B: array, Limit: bodyDepth}
	for c.Array(); c.Elem(); {
		if string(c.Skip().Of(array)) == "null" {
			return true
		}
	}
	return false
}

// isObject reports whether JSON text is an object.
func isObject(v []byte) bool {
	v = bytes.TrimSpace(v)
	return len(v) > 0 && v[0] == '{' && json.Valid(v)
}
