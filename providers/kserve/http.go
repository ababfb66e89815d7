package kserve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"sluice/providers"
	"sluice/providers/upstream"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// headerLength tells how much of a body is JSON; tensors follow as bytes (the binary
// tensor data extension).
const headerLength = "Inference-Header-Content-Length"

const (
	typeJSON   = "application/json"
	typeBinary = "application/octet-stream"
)

// overHTTP speaks the protocol's HTTP form.
type overHTTP struct {
	*Options
	name string
	up   *upstream.Client
}

// modelPath is the path of a model, and of one of its versions when it is given.
func modelPath(model, version, end string) string {
	path := "/v2/models/" + url.PathEscape(model)
	if version != "" {
		path += "/versions/" + url.PathEscape(version)
	}
	return path + end
}

func (h *overHTTP) infer(ctx context.Context, c *call) (*answer, error) {
	r, err := h.request(c)
	if err != nil {
		return nil, err
	}
	resp, err := h.up.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	finished := false
	defer func() { resp.Close(finished) }()
	if resp.Status != http.StatusOK {
		finished = true
		return nil, h.refusal(resp)
	}
	body, err := h.whole(resp)
	if err != nil {
		return nil, err
	}
	finished = true
	a, err := readAnswer(body, resp.Header.Get(headerLength))
	if err != nil {
		return nil, h.strange(resp, body, err)
	}
	return a, nil
}

// request makes the body: JSON, and behind it the tensors as bytes, into which they are
// written at once.
func (h *overHTTP) request(c *call) (*upstream.Request, error) {
	head, size, err := h.head(c)
	if err != nil {
		return nil, err
	}
	r := &upstream.Request{Method: http.MethodPost, Path: modelPath(c.model, c.version, "/infer"), ContentType: typeJSON, Accept: typeJSON, Body: head}
	if !h.Binary {
		return r, nil
	}
	r.Accept, r.ContentType = "*/*", typeBinary
	r.Header = http.Header{headerLength: {strconv.Itoa(len(head))}}
	at := len(head)
	r.Body = slices.Grow(head, size)[:at+size]
	for i := range c.inputs {
		in := &c.inputs[i]
		if err := in.fill(r.Body[at : at+in.size]); err != nil {
			return nil, err
		}
		at += in.size
	}
	return r, nil
}

// head writes the JSON of a request; size is what comes behind it.
func (h *overHTTP) head(c *call) (head []byte, size int, err error) {
	head = append(head, `{"inputs":[`...)
	for i := range c.inputs {
		in := &c.inputs[i]
		if i > 0 {
			head = append(head, ',')
		}
		t := tensor{name: in.name, datatype: in.datatype, shape: in.shape}
		if h.Binary {
			size += in.size
			head = appendBinaryTensor(head, &t, in.size)
			continue
		}
		t.data = make([]byte, in.size)
		if err := in.fill(t.data); err != nil {
			return nil, 0, err
		}
		head = appendTensor(head, &t)
	}
	head = append(head, ']')
	if len(c.outputs) > 0 {
		head = append(head, `,"outputs":[`...)
		for i, o := range c.outputs {
			if i > 0 {
				head = append(head, ',')
			}
			head = h.appendOutput(head, o)
		}
		head = append(head, ']')
	}
	return append(head, '}'), size, nil
}

func appendBinaryTensor(dst []byte, t *tensor, size int) []byte {
	dst = append(dst, `{"name":`...)
	dst = jsonscan.AppendQuote(dst, t.name)
	dst = append(dst, `,"datatype":"`...)
	dst = append(dst, t.datatype...)
	dst = append(dst, `","shape":`...)
	dst = appendShape(dst, t.shape)
	dst = append(dst, `,"parameters":{"binary_data_size":`...)
	dst = strconv.AppendInt(dst, int64(size), 10)
	return append(dst, "}}"...)
}

func (h *overHTTP) appendOutput(dst []byte, o output) []byte {
	dst = append(dst, `{"name":`...)
	dst = jsonscan.AppendQuote(dst, o.name)
	dst = fmt.Appendf(dst, `,"parameters":{"binary_data":%t`, h.Binary)
	if o.classes > 0 {
		dst = fmt.Appendf(dst, `,"classification":%d`, o.classes)
	}
	return append(dst, "}}"...)
}

// whole reads a body within the limit for answers.
func (h *overHTTP) whole(resp *upstream.Answer) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(h.MaxAnswer)+1))
	switch {
	case err != nil:
		return nil, h.broken(err)
	case len(body) > h.MaxAnswer:
		return nil, &providers.Error{Kind: providers.EventTooLarge, Target: h.name, Message: fmt.Sprintf("the upstream's answer is longer than the limit of %d bytes", h.MaxAnswer)}
	default:
		return body, nil
	}
}

func (h *overHTTP) broken(err error) error {
	return &providers.Error{Kind: providers.Truncated, Target: h.name, Message: "the connection to the upstream broke before the answer was finished", Err: err}
}

// readAnswer reads the body of an answer; length is what the header says of its JSON,
// "" when all of it is.
func readAnswer(body []byte, length string) (*answer, error) {
	head, rest := body, []byte(nil)
	if length != "" {
		n, err := strconv.Atoi(length)
		if err != nil || n < 0 || n > len(body) {
			return nil, fmt.Errorf("%s %.20q does not fit to the body", headerLength, length)
		}
		head, rest = body[:n], body[n:]
	}
	var a struct {
		Outputs []jsonTensor    `json:"outputs"`
		Error   json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(head, &a); err != nil {
		return nil, errors.New("its body is not the JSON of an answer")
	}
	if len(a.Error) > 0 && string(a.Error) != "null" {
		return nil, errReported
	}
	if a.Outputs == nil {
		return nil, errors.New("its JSON has no outputs")
	}
	out := &answer{final: true}
	for i := range a.Outputs {
		t, after, err := a.Outputs[i].read(rest)
		if err != nil {
			return nil, err
		}
		out.tensors, rest = append(out.tensors, t), after
	}
	return out, nil
}

// errReported says that an answer with status 200 is an error.
var errReported = errors.New("an error with status 200")

// strange is the error for an answer that is none.
func (h *overHTTP) strange(resp *upstream.Answer, body []byte, err error) error {
	if errors.Is(err, errReported) {
		return &providers.Error{Kind: providers.UpstreamFailed, Target: h.name, Message: upstream.ReadWords(body).Message}
	}
	got := err.Error()
	if t := resp.Header.Get("Content-Type"); resp.IsType("text/html") || resp.IsType("text/event-stream") {
		got = "it is of type " + t
	}
	return &providers.Error{Kind: providers.Protocol, Target: h.name,
		Message: "expected an answer of the KServe v2 protocol over HTTP, and got something else: " + got + "; does base_url name the right server and port?"}
}

// refusal reads an error answer. What is refused for want of a header that the server
// keeps its doors with is a matter of the gateway's credential; what the server does not
// implement is named.
func (h *overHTTP) refusal(resp *upstream.Answer) error {
	e := upstream.Refusal(h.name, resp)
	switch resp.Status {
	case http.StatusForbidden:
		e.Kind = providers.UpstreamCredential
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		e.Kind, e.Message = providers.Protocol, "expected a server that can do this call of the KServe v2 protocol, and got: "+e.Message
	case http.StatusNotFound:
		if resp.IsType("text/html") {
			e.Kind, e.Message = providers.Protocol, "expected a server of the KServe v2 protocol, and got an HTML page with status 404; does base_url name its root, without /v2?"
		}
	}
	return e
}

// generate uses Triton's generate extension, which takes the inputs as members of one
// object and answers with events. Its end is the end of the body.
func (h *overHTTP) generate(ctx context.Context, c *call, take func(*answer) bool) error {
	body, err := generateBody(c)
	if err != nil {
		return err
	}
	resp, err := h.up.Do(ctx, &upstream.Request{Method: http.MethodPost, Path: modelPath(c.model, c.version, "/generate_stream"),
		ContentType: typeJSON, Accept: "text/event-stream", Body: body})
	if err != nil {
		return err
	}
	finished := false
	defer func() { resp.Close(finished) }()
	if resp.Status != http.StatusOK {
		finished = true
		return h.generateRefusal(resp)
	}
	if !resp.IsType("text/event-stream") {
		text, err := h.whole(resp)
		if err != nil {
			return err
		}
		if _, err := readAnswer(text, ""); errors.Is(err, errReported) {
			return h.strange(resp, text, err)
		}
		return h.strange(resp, text, errors.New("it is no stream of events"))
	}
	finished, err = h.events(c, resp.Body, take)
	return err
}

// generateRefusal reads an error whose body is an event or plain JSON.
func (h *overHTTP) generateRefusal(resp *upstream.Answer) error {
	if !resp.IsType("text/event-stream") {
		return h.refusal(resp)
	}
	var w upstream.Words
	frames := streaming.NewFrames(resp.Body, h.MaxEvent)
	defer frames.Close()
	for got, err := frames.Next(); err == nil; got, err = frames.Next() {
		for i := range got {
			w = upstream.ReadWords(got[i].Data)
		}
	}
	return upstream.RefusalOf(h.name, resp, w)
}

// events reads a stream; finished says that its end was seen.
func (h *overHTTP) events(c *call, body io.Reader, take func(*answer) bool) (finished bool, err error) {
	frames := streaming.NewFrames(body, h.MaxEvent)
	defer frames.Close()
	reader, malformed := generatedReader{wanted: c.outputs}, 0
	for {
		got, err := frames.Next()
		if err != nil {
			return h.end(err, frames.Unfinished(), reader.odd && !reader.own, take)
		}
		for i := range got {
			a, err := reader.read(got[i].Data)
			if err == nil {
				malformed = 0
				if a.more = i+1 < len(got) && (i+1)%maxBatch != 0; !take(a) {
					return false, nil
				}
				continue
			}
			if reader.answer.more {
				reader.answer.more = false
				if !take(&answer{}) { // what came before it waits no longer
					return false, nil
				}
			}
			if errors.Is(err, errReported) {
				return false, &providers.Error{Kind: providers.UpstreamFailed, Target: h.name, Message: upstream.ReadWords(got[i].Data).Message}
			}
			c.progress.AddMalformed()
			if malformed++; malformed >= maxMalformed {
				return false, &providers.Error{Kind: providers.Protocol, Target: h.name, Message: fmt.Sprintf("the upstream sent %d malformed events in a row", maxMalformed)}
			}
		}
	}
}

// end judges the end of a stream; strange says that nothing of the model's has come.
func (h *overHTTP) end(err error, unfinished, strange bool, take func(*answer) bool) (finished bool, fault error) {
	large := new(streaming.FrameTooLargeError)
	switch {
	case errors.As(err, &large):
		return false, &providers.Error{Kind: providers.EventTooLarge, Target: h.name, Message: large.Error()}
	case !errors.Is(err, io.EOF):
		return false, h.broken(err)
	case unfinished:
		return false, h.broken(io.ErrUnexpectedEOF)
	case strange:
		return false, &providers.Error{Kind: providers.Protocol, Target: h.name,
			Message: "expected events with the outputs of the model's schema, and got events that have none of them; does base_url name the right server and port?"}
	default:
		take(&answer{final: true})
		return true, nil
	}
}

// maxBatch is how many events leave together at most. What is made of more would not fit
// into the buffers that are used again.
const maxBatch = 128

// maxMalformed is how many broken events in a row end an answer.
const maxMalformed = 3
