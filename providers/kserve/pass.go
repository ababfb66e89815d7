package kserve

import (
	"bytes"
	"context"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"sluice/providers"
	"sluice/providers/kit/pixels"
	"sluice/providers/kserve/oip"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// form is how a caller writes tensors, and how it gets them.
type form uint8

const (
	formJSON   form = iota // the protocol's JSON, with tensors as bytes behind it where the caller says so
	formSingle             // the bytes of the model's only input
	formProto              // a ModelInferRequest
)

// typeProto is the media type of a message of Protocol Buffers; it has never been
// registered, and this is the name in use.
const typeProto = "application/x-protobuf"

// passage is a request of a caller who speaks the protocol.
type passage struct {
	model, version string
	form           form
	body           []byte
	// header is how many bytes of the body are JSON; less than 0: all of it. Of formJSON.
	header int
	// message is what formProto holds.
	message *oip.ModelInferRequest
	schema  *Model // nil when none is declared
}

// isInfer recognises POST /v1/models/{model}/infer.
func isInfer(req *providers.Request) bool {
	return req.Op == providers.Passthrough && strings.HasPrefix(req.Path, "/models/") && strings.HasSuffix(req.Path, "/infer")
}

// passThrough serves the infer path: tensors go to the model as they are, and an image
// goes the way of the declared schema.
func (t target) passThrough(ctx context.Context, req *providers.Request, yield yielder) error {
	mediaType, params, err := mime.ParseMediaType(req.ContentType)
	if err != nil {
		return unsupported(req.ContentType)
	}
	if _, ok := pixels.FormatOf(mediaType); ok {
		return t.lookAtBody(ctx, req, mediaType, yield)
	}
	p := &passage{model: t.model, body: req.Body, header: -1, schema: t.models[t.model]}
	if p.schema != nil {
		p.version = p.schema.Version
		if p.schema.Decoupled {
			return p.schema.answersManyTimes(req)
		}
	}
	switch mediaType {
	case typeJSON:
		err = p.checkJSON(req.Body)
	case typeBinary:
		if err = p.takeBinary(params); err == nil && p.form == formSingle && p.schema != nil {
			err = p.schema.checkSingle(p.body)
		}
	case typeProto, "application/protobuf", "application/vnd.google.protobuf":
		err = p.takeProto()
	default:
		err = unsupported(req.ContentType)
	}
	if err != nil {
		return err
	}
	return t.via.pass(ctx, p, yield)
}

// answersManyTimes refuses a model that its schema calls decoupled: one answer cannot hold
// what it gives, and servers do not let it be asked for one.
func (m *Model) answersManyTimes(req *providers.Request) error {
	text := fmt.Sprintf("The model %q answers a call any number of times (decoupled = true in its schema), which POST /v1%s cannot tell.", req.Model, req.Path)
	if m.generates() {
		text += " Ask for its text at POST /v1/chat/completions or /v1/completions."
	}
	return providers.Invalid("model", text)
}

// checkSingle holds a body that is to be the only input against the schema.
func (m *Model) checkSingle(body []byte) error {
	if n := len(m.Inputs); n != 1 {
		return notTheOne(n)
	}
	in := &m.Inputs[0]
	if _, err := fitShape(in.Datatype, in.Shape, int64(len(body))); err != nil {
		return misfit(in.Name, err)
	}
	return nil
}

// notTheOne refuses a body that is to be the only one of so many inputs.
func notTheOne(inputs int) error {
	return providers.Invalid("", fmt.Sprintf("The model has %d inputs, so a body cannot be the one. Send %s, with JSON in front of the tensors.", inputs, headerLength))
}

func misfit(input string, err error) error {
	return providers.Invalid("", fmt.Sprintf("The body does not fit the model's input %q: %s.", input, err))
}

func unsupported(contentType string) error {
	return &providers.Error{Kind: providers.UnsupportedMedia, Message: fmt.Sprintf("The Content-Type %.80q is not supported here. "+
		"Send application/json, application/octet-stream, application/x-protobuf, image/jpeg, image/png or image/webp.", contentType)}
}

// lookAtBody answers with the results for the one image that is the body.
func (t target) lookAtBody(ctx context.Context, req *providers.Request, mediaType string, yield yielder) error {
	m, err := t.declared(req)
	if err != nil {
		return err
	}
	if !m.takesImages() || m.generates() {
		return &providers.Error{Kind: providers.UnsupportedMedia, Message: fmt.Sprintf("The model %q is not asked with an image alone, so its infer path does not take %s.", req.Model, mediaType)}
	}
	q := t.newQuestion(req, m)
	if err := q.addImage("", mediaType, req.Body); err != nil {
		return err
	}
	body, err := q.results(ctx)
	if err != nil {
		return err
	}
	events := []streaming.Event{t.meta(req, nil), {Kind: streaming.Whole, Dialect: streaming.Opaque, Raw: append(body, '\n')}}
	if !yield(events, nil) {
		return errLeft
	}
	return nil
}

// takeBinary reads where the JSON ends.
func (p *passage) takeBinary(params map[string]string) error {
	text, ok := params[strings.ToLower(headerLength)]
	n, err := strconv.Atoi(text)
	switch {
	case !ok || ok && err == nil && n == 0:
		p.form = formSingle
		return nil
	case err != nil || n < 0 || n > len(p.body):
		return providers.Invalid("", fmt.Sprintf("%s must be the number of bytes of JSON at the front of the body.", headerLength))
	}
	p.header = n
	return p.checkJSON(p.body[:n])
}

func (p *passage) takeProto() error {
	p.form, p.message = formProto, new(oip.ModelInferRequest)
	if err := proto.Unmarshal(p.body, p.message); err != nil || len(p.message.GetInputs()) == 0 {
		return providers.Invalid("", "The body is no inference.ModelInferRequest with inputs.")
	}
	if err := messageMayPass(p.message); err != nil {
		return err
	}
	if v := p.message.GetModelVersion(); v != "" {
		p.version = v
	}
	p.message.ModelName, p.message.ModelVersion = p.model, p.version
	return nil
}

// mayPass refuses parameters that name memory of the server's machine: other callers'
// tensors may be there.
func mayPass(parameter string) error {
	if strings.HasPrefix(parameter, "shared_memory_") {
		return providers.Invalid("parameters."+parameter, parameter+" names memory of the server's own machine and is not passed on.")
	}
	return nil
}

// messageMayPass is mayPass for all parameters of a message.
func messageMayPass(m *oip.ModelInferRequest) error {
	all := []map[string]*oip.InferParameter{m.GetParameters()}
	for _, in := range m.GetInputs() {
		all = append(all, in.GetParameters())
	}
	for _, out := range m.GetOutputs() {
		all = append(all, out.GetParameters())
	}
	for _, params := range all {
		for name := range params {
			if err := mayPass(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkJSON walks the JSON of a request once: it must be well-formed and have inputs,
// and no parameter may be one that is not passed on.
func (p *passage) checkJSON(text []byte) error {
	c := jsonscan.Cursor{B: text, Limit: 2 * maxNesting}
	inputs := false
	var refused error
	note := func(err error) {
		if refused == nil {
			refused = err
		}
	}
	if c.Peek() != '{' {
		return providers.Invalid("", "The request body must be a JSON object with inputs.")
	}
	for c.Object(); c.Key(); {
		switch unquoted(c.Name) {
		case "inputs":
			inputs = true
			note(tensorParameters(&c))
		case "outputs":
			note(tensorParameters(&c))
		case "parameters":
			note(parameters(&c))
		default:
			c.Skip()
		}
	}
	switch {
	case !c.End():
		return providers.Invalid("", fmt.Sprintf("The request body is not valid JSON: a fault at byte %d.", min(c.I, len(text))))
	case !inputs:
		return providers.Invalid("inputs", "inputs is missing: send at least one tensor, with name, shape, datatype and data.")
	}
	return refused
}

// unquoted is a key with its escapes undone.
func unquoted(name []byte) string {
	if bytes.IndexByte(name, '\\') < 0 {
		return string(name)
	}
	s, _ := jsonscan.Unquote([]byte(`"` + string(name) + `"`))
	return s
}

// tensorParameters walks the parameters of each element of an array of tensors.
func tensorParameters(c *jsonscan.Cursor) (err error) {
	if c.Peek() != '[' {
		c.Skip()
		return nil
	}
	for c.Array(); c.Elem(); {
		if c.Peek() != '{' {
			c.Skip()
			continue
		}
		for c.Object(); c.Key(); {
			if unquoted(c.Name) != "parameters" {
				c.Skip()
			} else if e := parameters(c); err == nil {
				err = e
			}
		}
	}
	return err
}

func parameters(c *jsonscan.Cursor) (err error) {
	if c.Peek() != '{' {
		c.Skip()
		return nil
	}
	for c.Object(); c.Key(); {
		if e := mayPass(unquoted(c.Name)); err == nil {
			err = e
		}
		c.Skip()
	}
	return err
}

// passed makes the head of an answer that is handed on.
func passed(contentType, length string) streaming.Event {
	h := http.Header{"Content-Type": {contentType}}
	if length != "" {
		h.Set(headerLength, length)
	}
	return streaming.Event{Kind: streaming.Meta, Meta: &streaming.MetaData{Status: http.StatusOK, Header: h}}
}

// passBody yields an answer that is at hand.
func passBody(yield yielder, contentType, length string, body []byte) error {
	if !yield([]streaming.Event{passed(contentType, length), {Kind: streaming.Bytes, Dialect: streaming.Opaque, Raw: body}}, nil) {
		return errLeft
	}
	return nil
}
