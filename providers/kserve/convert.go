package kserve

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"sluice/providers"
	"sluice/providers/kserve/oip"
	"sluice/streaming/jsonscan"
)

// requestTensors reads the inputs of a caller's message, in either form.
func requestTensors(m *oip.ModelInferRequest) ([]tensor, error) {
	raw := m.GetRawInputContents()
	if len(raw) > 0 && len(raw) != len(m.GetInputs()) {
		return nil, providers.Invalid("raw_input_contents", fmt.Sprintf("raw_input_contents has %d entries for %d inputs; it must have one for each, or none.", len(raw), len(m.GetInputs())))
	}
	var all []tensor
	for i, in := range m.GetInputs() {
		t := tensor{name: in.GetName(), datatype: in.GetDatatype(), shape: in.GetShape()}
		if len(raw) > 0 {
			t.data = raw[i]
		} else {
			t.data = contents(t.datatype, in.GetContents())
		}
		if err := t.check(); err != nil {
			return nil, badTensor(i, &t, err)
		}
		all = append(all, t)
	}
	return all, nil
}

func badTensor(i int, t *tensor, err error) error {
	return providers.Invalid(fmt.Sprintf("inputs[%d]", i), fmt.Sprintf("The input %.60q cannot be read: %s.", t.name, err))
}

// messageOf makes a message of a caller's JSON and the bytes behind it.
func messageOf(p *passage) (m *oip.ModelInferRequest, binaryAnswer bool, err error) {
	head, rest := p.body, []byte(nil)
	if p.header >= 0 {
		head, rest = p.body[:p.header], p.body[p.header:]
	}
	var top struct {
		ID         string                     `json:"id"`
		Parameters map[string]json.RawMessage `json:"parameters"`
		Inputs     []jsonTensor               `json:"inputs"`
		Outputs    []jsonTensor               `json:"outputs"`
	}
	if err := json.Unmarshal(head, &top); err != nil {
		return nil, false, providers.Invalid("", "The request body is no inference request: "+typeFault(err)+".")
	}
	m = &oip.ModelInferRequest{ModelName: p.model, ModelVersion: p.version, Id: top.ID}
	binaryAnswer = string(top.Parameters["binary_data_output"]) == "true"
	m.Parameters = messageParameters(top.Parameters)
	for i := range top.Inputs {
		t, after, err := top.Inputs[i].read(rest)
		if err != nil {
			return nil, false, badTensor(i, &t, err)
		}
		rest = after
		m.Inputs = append(m.Inputs, &oip.ModelInferRequest_InferInputTensor{Name: t.name, Datatype: t.datatype, Shape: t.shape, Parameters: messageParameters(top.Inputs[i].Parameters)})
		m.RawInputContents = append(m.RawInputContents, t.data)
	}
	for _, o := range top.Outputs {
		binaryAnswer = binaryAnswer || string(o.Parameters["binary_data"]) == "true"
		m.Outputs = append(m.Outputs, &oip.ModelInferRequest_InferRequestedOutputTensor{Name: o.Name, Parameters: messageParameters(o.Parameters)})
	}
	if len(rest) > 0 {
		return nil, false, providers.Invalid("", fmt.Sprintf("The body has %d bytes behind the last tensor.", len(rest)))
	}
	return m, binaryAnswer, messageMayPass(m) // the decoder takes keys in any case, the walk before it does not
}

func typeFault(err error) string {
	if t, ok := err.(*json.UnmarshalTypeError); ok && t.Field != "" {
		return t.Field + " is of the wrong type"
	}
	return "a member is of the wrong type"
}

// binaryParameters belong to the form over HTTP.
var binaryParameters = []string{"binary_data", "binary_data_size", "binary_data_output"}

// messageParameters turns parameters in JSON into those of a message. Values that it
// has no form for are left out.
func messageParameters(from map[string]json.RawMessage) map[string]*oip.InferParameter {
	var to map[string]*oip.InferParameter
	for name, v := range from {
		p := messageParameter(v)
		if p == nil || slices.Contains(binaryParameters, name) {
			continue
		}
		if to == nil {
			to = map[string]*oip.InferParameter{}
		}
		to[name] = p
	}
	return to
}

func messageParameter(v []byte) *oip.InferParameter {
	text := string(v)
	if text == "true" || text == "false" {
		return boolParameter(text == "true")
	}
	if s, ok := jsonscan.Unquote(v); ok {
		return &oip.InferParameter{ParameterChoice: &oip.InferParameter_StringParam{StringParam: s}}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return intParameter(n)
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		return &oip.InferParameter{ParameterChoice: &oip.InferParameter_DoubleParam{DoubleParam: f}}
	}
	return nil
}

// appendParameters adds parameters of a message as a JSON object, and more beside them.
func appendParameters(dst []byte, from map[string]*oip.InferParameter, more map[string]bool) []byte {
	dst = append(dst, '{')
	sep := false
	for _, name := range slices.Sorted(maps.Keys(from)) {
		if slices.Contains(binaryParameters, name) {
			continue
		}
		if sep {
			dst = append(dst, ',')
		}
		sep = true
		dst = append(jsonscan.AppendQuote(dst, name), ':')
		dst = appendParameter(dst, from[name])
	}
	for name, v := range more {
		if sep {
			dst = append(dst, ',')
		}
		sep = true
		dst = append(jsonscan.AppendQuote(dst, name), ':')
		dst = strconv.AppendBool(dst, v)
	}
	return append(dst, '}')
}

func appendParameter(dst []byte, p *oip.InferParameter) []byte {
	switch v := p.GetParameterChoice().(type) {
	case *oip.InferParameter_BoolParam:
		return strconv.AppendBool(dst, v.BoolParam)
	case *oip.InferParameter_Int64Param:
		return strconv.AppendInt(dst, v.Int64Param, 10)
	case *oip.InferParameter_Uint64Param:
		return strconv.AppendUint(dst, v.Uint64Param, 10)
	case *oip.InferParameter_DoubleParam:
		return appendNumber(dst, v.DoubleParam, 64)
	case *oip.InferParameter_StringParam:
		return jsonscan.AppendQuote(dst, v.StringParam)
	default:
		return append(dst, "null"...)
	}
}
