package providers

import (
	"bytes"
	"fmt"
	"mime"
	"net/textproto"
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/streaming/jsonscan"
)

// Parse reads what routing and accounting need from a received body, in one pass
// that also proves it well-formed. The body is kept, not copied. depth bounds the
// nesting of JSON. The error is an *Error that names the field.
func Parse(op Op, path, contentType string, body []byte, depth int) (*Request, error) {
	return ParseFor("", op, path, contentType, body, depth)
}

// ParseFor is Parse for a model that was named beside the body, which then needs none and
// may name no other; "" is none.
func ParseFor(model string, op Op, path, contentType string, body []byte, depth int) (*Request, error) {
	if model != "" {
		if err := checkModel(model, ""); err != nil {
			return nil, err
		}
	}
	r := &Request{Op: op, Path: path, ContentType: contentType, Body: body, Choices: 1, Model: model}
	if r.multipart() {
		return r, r.parseForm()
	}
	if err := r.parseJSON(depth); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Request) multipart() bool { return strings.HasPrefix(r.ContentType, "multipart/") }

// field is one top-level member that matters.
type field struct {
	name string
	span jsonscan.Span
	seen bool
}

// guarded are the keys whose meaning must not depend on which of two a parser
// takes: twice, also in another case, is refused.
var guarded = [...]string{"model", "stream", "messages", "input", "prompt", "stream_options", "n", "reasoning_effort", "reasoning"}

func (r *Request) parseJSON(depth int) error {
	var fields [len(guarded)]field
	for i, name := range guarded {
		fields[i].name = name
	}
	c := jsonscan.Cursor{B: r.Body, Limit: depth}
	if c.Peek() != '{' && len(r.Body) > 0 && !c.Bad {
		return Invalid("", "The request body must be a JSON object.")
	}
	folded := [len(guarded)]bool{}
	for c.Object(); c.Key(); {
		name := keyName(c.Name)
		i := guardIndex(name)
		span := r.member(&c, name)
		if i < 0 || c.Bad {
			continue
		}
		if folded[i] {
			return Invalid(fields[i].name, fmt.Sprintf("The key %q stands more than once in the request body (keys that differ only in case count as the same). Send it once.", fields[i].name))
		}
		folded[i] = true
		if name == fields[i].name {
			fields[i].span, fields[i].seen = span, true
		}
	}
	if !c.End() {
		return badJSON(&c, r.Body)
	}
	return r.take(&fields)
}

func keyName(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw)
	}
	s, _ := jsonscan.Unquote([]byte(`"` + string(raw) + `"`))
	return s
}

// guardIndex compares as lenient parsers do, by Unicode case folding: the long s
// (U+017F) counts as an s, so names of different length may be the same key.
func guardIndex(name string) int {
	for i, g := range guarded {
		if strings.EqualFold(name, g) {
			return i
		}
	}
	return -1
}

func badJSON(c *jsonscan.Cursor, body []byte) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return Invalid("", "The request body is empty. Send a JSON object.")
	}
	if c.Deep {
		return Invalid("", fmt.Sprintf("The request body is nested deeper than %d levels.", c.Limit))
	}
	at := min(c.I, len(body))
	line := 1 + bytes.Count(body[:at], []byte{'\n'})
	col := at - bytes.LastIndexByte(body[:at], '\n')
	return Invalid("", fmt.Sprintf("The request body is not valid JSON: a fault at line %d, column %d.", line, col))
}

// take checks the members in the order in which a reader would ask for them.
func (r *Request) take(f *[len(guarded)]field) error {
	model, stream, messages, input, options, n, effort, reasoning := f[0], f[1], f[2], f[3], f[5], f[6], f[7], f[8]
	if err := r.takeModel(model); err != nil {
		return err
	}
	if err := r.takeStream(stream, options); err != nil {
		return err
	}
	if err := r.takeContent(messages, input); err != nil {
		return err
	}
	r.Reasoning = effort.seen && thinks(effort.span.Of(r.Body))
	if !r.Reasoning && reasoning.seen {
		r.Reasoning = r.thinksIn(reasoning.span)
		r.asks.object = r.Reasoning
	}
	if err := r.takeChoices(n); err != nil {
		return err
	}
	r.asks.finish(r)
	return nil
}

// thinks reports whether a value of effort asks the model to think.
func thinks(effort []byte) bool { return string(effort) != "null" && string(effort) != `"none"` }

// thinksIn reports whether the reasoning object of the Responses API asks the model
// to think; without an effort the model's own default holds.
func (r *Request) thinksIn(object jsonscan.Span) bool {
	if r.Body[object.Start] != '{' {
		return false
	}
	asked := true
	c := jsonscan.Cursor{B: r.Body[:object.End], I: object.Start, Limit: 1 << 20}
	for c.Object(); c.Key(); {
		name := keyName(c.Name)
		if v := c.Skip(); name == "effort" {
			asked = thinks(v.Of(r.Body))
		}
	}
	return asked
}

// defaultModeration is the model that OpenAI takes when a moderation names none.
const defaultModeration = "omni-moderation-latest"

// maxModelName bounds a model name in bytes: it becomes a label, a header and the
// key of caches, and no upstream has a name near as long.
const maxModelName = 256

// checkModel refuses a name that no upstream could have. hint tells where the name was expected.
func checkModel(name, hint string) error {
	switch {
	case name == "":
		return Invalid("model", hint+" GET /v1/models lists the models that can be used.")
	case len(name) > maxModelName:
		return Invalid("model", fmt.Sprintf("model is longer than %d bytes. GET /v1/models lists the models that can be used.", maxModelName))
	case !utf8.ValidString(name):
		return Invalid("model", "model must be valid UTF-8.")
	}
	return nil
}

func (r *Request) takeModel(f field) error {
	if r.Model != "" && !f.seen {
		r.unnamed = true
		return nil
	}
	if !f.seen && r.Op == Moderations {
		r.Model = defaultModeration
		return nil
	}
	if !f.seen {
		return Invalid("model", "You must provide a model parameter. GET /v1/models lists the models that can be used.")
	}
	name, _ := jsonscan.Unquote(f.span.Of(r.Body)) // "" when it is no string
	if err := checkModel(name, "model must be a non-empty string."); err != nil {
		return err
	}
	if r.Model != "" && r.Model != name {
		return Invalid("model", fmt.Sprintf("The body names the model %q, and the path %q. Leave it out of the body, or name the same.", name, r.Model))
	}
	r.Model, r.model = name, f.span
	return nil
}

func (r *Request) takeStream(f, options field) error {
	if f.seen {
		switch string(f.span.Of(r.Body)) {
		case "true":
			r.Stream = r.Op.streams()
		case "false", "null":
		default:
			return Invalid("stream", "stream must be true or false.")
		}
	}
	if !options.seen {
		return nil
	}
	r.streamOptions = options.span
	switch r.Body[options.span.Start] {
	case 'n':
		return nil
	case '{':
	default:
		return Invalid("stream_options", `stream_options must be an object such as {"include_usage": true}.`)
	}
	c := jsonscan.Cursor{B: r.Body[:options.span.End], I: options.span.Start, Limit: 1 << 20}
	for c.Object(); c.Key(); {
		if string(c.Name) != "include_usage" {
			c.Skip()
			continue
		}
		r.includeUsage = c.Skip()
		r.WantsUsage = string(r.includeUsage.Of(r.Body)) == "true"
	}
	return nil
}

func (r *Request) takeContent(messages, input field) error {
	switch r.Op {
	case Chat:
		if !messages.seen && input.seen {
			return Invalid("messages", "This body has the shape of the Responses API (input without messages). Send it to /v1/responses, or send messages to /v1/chat/completions.")
		}
		if !messages.seen {
			return Invalid("messages", "messages is missing: send at least one message.")
		}
		b := messages.span.Of(r.Body)
		if b[0] != '[' || len(bytes.TrimSpace(b[1:len(b)-1])) == 0 {
			return Invalid("messages", "messages must be a non-empty array.")
		}
	case Embeddings, Moderations:
		if !input.seen || string(input.span.Of(r.Body)) == "null" {
			return Invalid("input", "input is missing: send a string or an array.")
		}
	default:
	}
	return nil
}

func (r *Request) takeChoices(f field) error {
	if !f.seen || string(f.span.Of(r.Body)) == "null" || r.Op > Completions {
		return nil
	}
	n, err := strconv.Atoi(string(f.span.Of(r.Body)))
	if err != nil || n < 1 || n > 128 {
		return Invalid("n", "n must be an integer from 1 to 128.")
	}
	r.Choices = n
	return nil
}

// parseForm finds the model (and stream) in multipart/form-data (RFC 7578) and
// leaves every byte where it is.
func (r *Request) parseForm() error {
	_, params, err := mime.ParseMediaType(r.ContentType)
	if err != nil || params["boundary"] == "" {
		return &Error{Kind: UnsupportedMedia, Message: "The Content-Type of a multipart body must name its boundary."}
	}
	delim := []byte("--" + params["boundary"])
	at := bytes.Index(r.Body, delim)
	for at >= 0 {
		from := at + len(delim)
		next := bytes.Index(r.Body[from:], append([]byte("\r\n"), delim...))
		if next < 0 {
			break
		}
		if err := r.takePart(jsonscan.Span{Start: from, End: from + next}); err != nil {
			return err
		}
		at = from + next + 2
	}
	if r.Model == "" {
		return Invalid("model", "You must provide a model field in the form. GET /v1/models lists the models that can be used.")
	}
	return nil
}

func (r *Request) takePart(part jsonscan.Span) error {
	text := part.Of(r.Body)
	split := bytes.Index(text, []byte("\r\n\r\n"))
	if split < 0 {
		return Invalid("", "A part of the multipart body has no header.")
	}
	value := jsonscan.Span{Start: part.Start + split + 4, End: part.End}
	switch partName(text[:split]) {
	case "model":
		if r.Model != "" {
			return Invalid("model", "The form has more than one model field. Send it once.")
		}
		name := string(value.Of(r.Body))
		if err := checkModel(name, "The model field of the form must not be empty."); err != nil {
			return err
		}
		r.Model, r.model = name, value
	case "stream":
		r.Stream = r.Op.streams() && string(value.Of(r.Body)) == "true"
	}
	return nil
}

func partName(header []byte) string {
	for line := range bytes.SplitSeq(header, []byte("\r\n")) {
		key, value, _ := strings.Cut(string(line), ":")
		if textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(key)) != "Content-Disposition" {
			continue
		}
		if _, params, err := mime.ParseMediaType(value); err == nil {
			return params["name"]
		}
	}
	return ""
}
