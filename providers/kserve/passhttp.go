package kserve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"sluice/providers"
	"sluice/providers/kserve/oip"
	"sluice/providers/upstream"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// pass hands JSON and bytes on unread, both ways; a message is written as JSON with
// bytes behind it, and its answer read back.
func (h *overHTTP) pass(ctx context.Context, p *passage, yield yielder) error {
	r := &upstream.Request{Method: http.MethodPost, Path: modelPath(p.model, p.version, "/infer"), ContentType: typeJSON, Accept: "*/*", Body: p.body}
	switch {
	case p.form == formProto:
		body, length, err := messageBody(p.message, h.Binary)
		if err != nil {
			return err
		}
		r.Body = body
		if h.Binary {
			r.ContentType, r.Header = typeBinary, http.Header{headerLength: {strconv.Itoa(length)}}
		}
	case p.form == formSingle:
		r.ContentType, r.Header = typeBinary, http.Header{headerLength: {"0"}}
	case p.header >= 0:
		r.ContentType, r.Header = typeBinary, http.Header{headerLength: {strconv.Itoa(p.header)}}
	}
	resp, err := h.up.Do(ctx, r)
	if err != nil {
		return err
	}
	finished := false
	defer func() { resp.Close(finished) }()
	switch {
	case resp.Status != http.StatusOK:
		finished = true
		return h.refusal(resp)
	case resp.IsType("text/html") || resp.IsType("text/event-stream"):
		return h.strange(resp, nil, errors.New(""))
	case p.form == formProto:
		finished, err = h.passMessage(resp, yield)
		return err
	}
	if !yield([]streaming.Event{passed(contentType(resp), resp.Header.Get(headerLength))}, nil) {
		return errLeft
	}
	finished, err = h.passBytes(resp.Body, yield)
	return err
}

func contentType(resp *upstream.Answer) string {
	if t := resp.Header.Get("Content-Type"); t != "" {
		return t
	}
	return typeJSON
}

// pieceSize is the buffer for a body that is passed on: a tensor is read in pieces that
// are worth a write each.
const pieceSize = 32 << 10

// passBytes hands a body on; finished says that its end was seen.
func (h *overHTTP) passBytes(body io.Reader, yield yielder) (finished bool, err error) {
	buf := make([]byte, pieceSize)
	for {
		n, err := body.Read(buf)
		if n > 0 && !yield([]streaming.Event{{Kind: streaming.Bytes, Dialect: streaming.Opaque, Raw: buf[:n]}}, nil) {
			return false, errLeft
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, h.broken(err)
		}
	}
}

// passMessage turns an answer into a ModelInferResponse.
func (h *overHTTP) passMessage(resp *upstream.Answer, yield yielder) (finished bool, err error) {
	body, err := h.whole(resp)
	if err != nil {
		return false, err
	}
	m, err := responseMessage(body, resp.Header.Get(headerLength))
	if err != nil {
		return true, h.strange(resp, body, err)
	}
	out, err := proto.Marshal(m)
	if err != nil {
		return true, &providers.Error{Kind: providers.Internal, Target: h.name, Message: "the answer could not be written as a message", Err: err}
	}
	return true, passBody(yield, typeProto, "", out)
}

// responseMessage makes a message of an answer in JSON, with bytes behind it or not.
func responseMessage(body []byte, length string) (*oip.ModelInferResponse, error) {
	a, err := readAnswer(body, length)
	if err != nil {
		return nil, err
	}
	head := body
	if n, err := strconv.Atoi(length); err == nil {
		head = body[:n] // readAnswer has checked it
	}
	var top struct {
		Name       string                     `json:"model_name"`
		Version    string                     `json:"model_version"`
		ID         string                     `json:"id"`
		Parameters map[string]json.RawMessage `json:"parameters"`
	}
	if err := json.Unmarshal(head, &top); err != nil {
		return nil, errors.New("its JSON has members of another type")
	}
	m := &oip.ModelInferResponse{ModelName: top.Name, ModelVersion: top.Version, Id: top.ID, Parameters: messageParameters(top.Parameters)}
	for _, t := range a.tensors {
		m.Outputs = append(m.Outputs, &oip.ModelInferResponse_InferOutputTensor{Name: t.name, Datatype: t.datatype, Shape: t.shape})
		m.RawOutputContents = append(m.RawOutputContents, t.data)
	}
	return m, nil
}

// messageBody writes a message as the body of a request over HTTP; length is that of
// its JSON.
func messageBody(m *oip.ModelInferRequest, binary bool) (body []byte, length int, err error) {
	tensors, err := requestTensors(m)
	if err != nil {
		return nil, 0, err
	}
	body = append(body, '{')
	if m.GetId() != "" {
		body = append(body, `"id":`...)
		body = append(jsonscan.AppendQuote(body, m.GetId()), ',')
	}
	body = append(body, `"parameters":`...)
	body = appendParameters(body, m.GetParameters(), map[string]bool{"binary_data_output": binary})
	body = append(body, `,"inputs":[`...)
	for i := range tensors {
		if i > 0 {
			body = append(body, ',')
		}
		if binary {
			body = appendBinaryTensor(body, &tensors[i], len(tensors[i].data))
			continue
		}
		if t := &tensors[i]; t.datatype == bytesType && !utf8.Valid(bytes.Join(t.strings(), nil)) {
			return nil, 0, badTensor(i, t, errors.New("its upstream takes tensors as JSON only, which holds no bytes that are not UTF-8"))
		}
		body = appendTensor(body, &tensors[i])
	}
	body = append(body, ']')
	if len(m.GetOutputs()) > 0 {
		body = append(body, `,"outputs":[`...)
		for i, o := range m.GetOutputs() {
			if i > 0 {
				body = append(body, ',')
			}
			body = append(body, `{"name":`...)
			body = jsonscan.AppendQuote(body, o.GetName())
			body = append(body, `,"parameters":`...)
			body = append(appendParameters(body, o.GetParameters(), map[string]bool{"binary_data": binary}), '}')
		}
		body = append(body, ']')
	}
	body = append(body, '}')
	length = len(body)
	if binary {
		for i := range tensors {
			body = append(body, tensors[i].data...)
		}
	}
	return body, length, nil
}
