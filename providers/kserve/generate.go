package kserve

import (
	"bytes"
	"errors"

	"sluice/streaming/jsonscan"
)

// generateBody writes the inputs of a call as the generate extension takes them: each
// as a member of its own name, a scalar where it has one element.
func generateBody(c *call) ([]byte, error) {
	body := []byte{'{'}
	for i := range c.inputs {
		in := &c.inputs[i]
		t := tensor{name: in.name, datatype: in.datatype, shape: in.shape, data: make([]byte, in.size)}
		if err := in.fill(t.data); err != nil {
			return nil, err
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = jsonscan.AppendQuote(body, in.name)
		body = append(body, ':')
		at := len(body)
		body = appendData(body, &t)
		if n, err := elements(in.shape); err == nil && n == 1 {
			body = append(body[:at], body[at+1:len(body)-1]...)
		}
	}
	return append(body, '}'), nil
}

// generatedReader reads the events of one stream. An answer is valid until the next.
type generatedReader struct {
	wanted []output
	answer answer
	data   [][]byte // of the tensors, used again
	own    bool     // an event of the model's has come
	odd    bool     // one has come that has nothing of it
}

// oneElement is the shape of a scalar.
var oneElement = []int64{1}

// read takes the outputs that are wanted from an event, where they are members: scalars
// or flat arrays. Null is an output that did not come.
func (g *generatedReader) read(text []byte) (*answer, error) {
	c := jsonscan.Cursor{B: text, Limit: maxNesting}
	g.answer.tensors = g.answer.tensors[:0]
	reported, own := false, false
	for c.Object(); c.Key(); {
		name := g.name(c.Name)
		own = own || name != "" || string(c.Name) == "model_name"
		isError := string(c.Name) == "error"
		v := c.Skip().Of(text)
		switch {
		case c.Bad:
		case isError && string(v) != "null":
			reported = true
		case name != "" && string(v) != "null":
			g.add(name, v)
		}
	}
	switch {
	case !c.End():
		return nil, errors.New("it is not a JSON object")
	case reported:
		return nil, errReported
	default:
		g.own, g.odd = g.own || own, g.odd || !own
		return &g.answer, nil
	}
}

// name is the name of a wanted output, "" for others.
func (g *generatedReader) name(key []byte) string {
	for i := range g.wanted {
		if g.wanted[i].name == string(key) {
			return g.wanted[i].name
		}
	}
	return ""
}

// add reads one output. What is neither text nor numbers is left out.
func (g *generatedReader) add(name string, v []byte) {
	n := len(g.answer.tensors)
	if n == len(g.data) {
		g.data = append(g.data, nil)
	}
	t := tensor{name: name, datatype: "FP64", shape: oneElement}
	if isText(v) {
		t.datatype = bytesType
	}
	if v[0] == '"' && bytes.IndexByte(v, '\\') < 0 {
		g.data[n] = appendString(g.data[n][:0], v[1:len(v)-1])
	} else {
		data, err := readData(t.datatype, v)
		if err != nil {
			return
		}
		g.data[n] = data
	}
	t.data = g.data[n]
	g.answer.tensors = append(g.answer.tensors, t)
}

// isText reports whether a value is a string or an array of strings.
func isText(v []byte) bool {
	if v[0] != '[' {
		return v[0] == '"'
	}
	c := jsonscan.Cursor{B: v, Limit: maxNesting}
	return c.Array() && c.Peek() == '"'
}
