package kserve

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	"sluice/providers"
	"sluice/providers/kserve/oip"
	"sluice/streaming/jsonscan"
)

// pass sends a caller's tensors as a message, and gives the answer in the caller's form.
func (g *overGRPC) pass(ctx context.Context, p *passage, yield yielder) error {
	m, binaryAnswer := p.message, p.form == formSingle
	var err error
	switch p.form {
	case formJSON:
		m, binaryAnswer, err = messageOf(p)
	case formSingle:
		m, err = g.single(ctx, p)
	}
	if err != nil {
		return err
	}
	resp, err := g.client.ModelInfer(ctx, m)
	if err != nil {
		return g.fault(err)
	}
	if p.form == formProto {
		body, err := proto.Marshal(resp)
		if err != nil {
			return &providers.Error{Kind: providers.Internal, Target: g.name, Message: "the answer could not be written as a message", Err: err}
		}
		return passBody(yield, typeProto, "", body)
	}
	body, length, err := responseBody(resp, binaryAnswer)
	switch {
	case err != nil:
		return g.strange(err)
	case binaryAnswer:
		return passBody(yield, typeBinary, strconv.Itoa(length), body)
	default:
		return passBody(yield, typeJSON, "", body)
	}
}

// responseBody writes an answer as JSON, with the tensors in it or as bytes behind it.
func responseBody(resp *oip.ModelInferResponse, binary bool) (body []byte, length int, err error) {
	a, err := readMessage(resp)
	if err != nil {
		return nil, 0, err
	}
	body = append(body, `{"model_name":`...)
	body = jsonscan.AppendQuote(body, resp.GetModelName())
	body = append(body, `,"model_version":`...)
	body = jsonscan.AppendQuote(body, resp.GetModelVersion())
	if resp.GetId() != "" {
		body = append(body, `,"id":`...)
		body = jsonscan.AppendQuote(body, resp.GetId())
	}
	if len(resp.GetParameters()) > 0 {
		body = append(body, `,"parameters":`...)
		body = appendParameters(body, resp.GetParameters(), nil)
	}
	body = append(body, `,"outputs":[`...)
	for i := range a.tensors {
		if i > 0 {
			body = append(body, ',')
		}
		if binary {
			body = appendBinaryTensor(body, &a.tensors[i], len(a.tensors[i].data))
		} else {
			body = appendTensor(body, &a.tensors[i])
		}
	}
	body = append(body, "]}"...)
	length = len(body)
	if binary {
		for i := range a.tensors {
			body = append(body, a.tensors[i].data...)
		}
	}
	return body, length, nil
}

// single makes a message of a body that is the only input of the model, whose name,
// type and shape the server says.
func (g *overGRPC) single(ctx context.Context, p *passage) (*oip.ModelInferRequest, error) {
	meta, err := g.client.ModelMetadata(ctx, &oip.ModelMetadataRequest{Name: p.model, Version: p.version})
	if err != nil {
		return nil, g.fault(err)
	}
	if n := len(meta.GetInputs()); n != 1 {
		return nil, notTheOne(n)
	}
	in := meta.GetInputs()[0]
	data := p.body
	if in.GetDatatype() == bytesType {
		data = append(binary.LittleEndian.AppendUint32(nil, uint32(len(p.body))), p.body...)
	}
	shape, err := fitShape(in.GetDatatype(), in.GetShape(), int64(len(p.body)))
	if err != nil {
		return nil, misfit(in.GetName(), err)
	}
	return &oip.ModelInferRequest{ModelName: p.model, ModelVersion: p.version,
		Inputs:           []*oip.ModelInferRequest_InferInputTensor{{Name: in.GetName(), Datatype: in.GetDatatype(), Shape: shape}},
		RawInputContents: [][]byte{data}}, nil
}

// fitShape fills the one open axis of a shape from the size of the data. A string is
// one element.
func fitShape(datatype string, declared []int64, size int64) ([]int64, error) {
	shape, open, fixed := append([]int64(nil), declared...), -1, int64(1)
	for i, d := range shape {
		switch {
		case d >= 0:
			fixed *= max(min(d, maxElements), 1)
		case datatype == bytesType:
			shape[i] = 1
		case open >= 0:
			return nil, fmt.Errorf("its shape %v has more than one open axis", declared)
		default:
			open = i
		}
		if fixed > maxElements {
			return nil, fmt.Errorf("its shape %v is too large", declared)
		}
	}
	if datatype == bytesType {
		if fixed > 1 {
			return nil, fmt.Errorf("a body is one string, and not a tensor of %v", declared)
		}
		return shape, nil
	}
	each := fixed * int64(elementSizes[datatype])
	switch {
	case each == 0:
		return nil, fmt.Errorf("its datatype %.20q is not known", datatype)
	case open >= 0 && size%each == 0:
		shape[open] = size / each
	case open >= 0 || size != each:
		return nil, fmt.Errorf("%d bytes are not a tensor of %v", size, declared)
	}
	return shape, nil
}
