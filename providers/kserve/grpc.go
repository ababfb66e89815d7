package kserve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/providers"
	"sluice/providers/kit/rpc"
	"sluice/providers/kserve/oip"
)

// service is what errors call the server that was expected.
const service = "GRPCInferenceService of the KServe v2 protocol"

// Parameters of Triton's streams.
const (
	askFinal  = "triton_enable_empty_final_response"
	markFinal = "triton_final_response"
	// realErrors, in the metadata of a call, makes the first failure of a stream end it
	// with a status instead of a message in it.
	realErrors = "triton_grpc_error"
)

// overGRPC speaks the protocol's gRPC form.
type overGRPC struct {
	*Options
	name   string
	cc     *grpc.ClientConn
	client oip.GRPCInferenceServiceClient
}

func newGRPC(o *Options, name string, cc *grpc.ClientConn) *overGRPC {
	return &overGRPC{Options: o, name: name, cc: cc, client: oip.NewGRPCInferenceServiceClient(cc)}
}

func (g *overGRPC) infer(ctx context.Context, c *call) (*answer, error) {
	req, err := requestMessage(c)
	if err != nil {
		return nil, err
	}
	resp, err := g.client.ModelInfer(ctx, req)
	if err != nil {
		return nil, g.fault(err)
	}
	a, err := readMessage(resp)
	if err != nil {
		return nil, g.strange(err)
	}
	a.final = true
	return a, nil
}

// fault names what is Triton's own: it says UNAVAILABLE of models that it does not
// have, and of a door that it keeps shut without a header.
func (g *overGRPC) fault(err error) *providers.Error {
	e := rpc.Fault(g.name, service, err)
	if status.Code(err) != codes.Unavailable || e.Kind != providers.Overloaded {
		return e
	}
	switch {
	case strings.Contains(e.Message, "unknown model"):
		e.Kind, e.Status = providers.Passed, http.StatusNotFound
	case strings.Contains(e.Message, "restricted"):
		e.Kind = providers.UpstreamCredential
	}
	return e
}

func (g *overGRPC) strange(err error) error {
	return &providers.Error{Kind: providers.Protocol, Target: g.name, Message: "expected an answer of " + service + ", and got one that is not consistent: " + err.Error()}
}

// requestMessage writes a call with raw contents.
func requestMessage(c *call) (*oip.ModelInferRequest, error) {
	req := &oip.ModelInferRequest{ModelName: c.model, ModelVersion: c.version}
	for i := range c.inputs {
		in := &c.inputs[i]
		data := make([]byte, in.size)
		if err := in.fill(data); err != nil {
			return nil, err
		}
		req.Inputs = append(req.Inputs, &oip.ModelInferRequest_InferInputTensor{Name: in.name, Datatype: in.datatype, Shape: in.shape})
		req.RawInputContents = append(req.RawInputContents, data)
	}
	for _, o := range c.outputs {
		want := &oip.ModelInferRequest_InferRequestedOutputTensor{Name: o.name}
		if o.classes > 0 {
			want.Parameters = map[string]*oip.InferParameter{"classification": intParameter(int64(o.classes))}
		}
		req.Outputs = append(req.Outputs, want)
	}
	return req, nil
}

func intParameter(n int64) *oip.InferParameter {
	return &oip.InferParameter{ParameterChoice: &oip.InferParameter_Int64Param{Int64Param: n}}
}

func boolParameter(b bool) *oip.InferParameter {
	return &oip.InferParameter{ParameterChoice: &oip.InferParameter_BoolParam{BoolParam: b}}
}

// readMessage reads an answer in either form: raw contents, or contents by type.
func readMessage(resp *oip.ModelInferResponse) (*answer, error) {
	raw := resp.GetRawOutputContents()
	if len(raw) > 0 && len(raw) != len(resp.GetOutputs()) {
		return nil, fmt.Errorf("%d raw contents for %d outputs", len(raw), len(resp.GetOutputs()))
	}
	a := &answer{final: resp.GetParameters()[markFinal].GetBoolParam()}
	for i, o := range resp.GetOutputs() {
		t := tensor{name: o.GetName(), datatype: o.GetDatatype(), shape: o.GetShape()}
		if len(raw) > 0 {
			t.data = raw[i]
		} else {
			t.data = contents(t.datatype, o.GetContents())
		}
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("tensor %.40q: %w", t.name, err)
		}
		a.tensors = append(a.tensors, t)
	}
	return a, nil
}

// contents turns contents by type into bytes.
func contents(datatype string, c *oip.InferTensorContents) []byte {
	var out []byte
	switch datatype {
	case "BOOL":
		for _, v := range c.GetBoolContents() {
			out = append(out, 0)
			if v {
				out[len(out)-1] = 1
			}
		}
	case "INT8", "INT16", "INT32":
		for _, v := range c.GetIntContents() {
			out = put(out, datatype, float64(v))
		}
	case "UINT8", "UINT16", "UINT32":
		for _, v := range c.GetUintContents() {
			out = put(out, datatype, float64(v))
		}
	case "INT64":
		for _, v := range c.GetInt64Contents() {
			out = binary.LittleEndian.AppendUint64(out, uint64(v))
		}
	case "UINT64":
		for _, v := range c.GetUint64Contents() {
			out = binary.LittleEndian.AppendUint64(out, v)
		}
	case "FP32":
		for _, v := range c.GetFp32Contents() {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		}
	case "FP64":
		for _, v := range c.GetFp64Contents() {
			out = binary.LittleEndian.AppendUint64(out, math.Float64bits(v))
		}
	case bytesType:
		for _, v := range c.GetBytesContents() {
			out = appendString(out, v)
		}
	}
	return out
}

// stream is ModelStreamInfer in either form.
type stream interface {
	recv() (*oip.ModelInferResponse, error)
}

// tritonStream is one of Triton's. A failure of the request is in its messages when the
// server does not know realErrors.
type tritonStream struct {
	grpc.ClientStream
}

// errInStream is a failure that a stream tells in a message.
type errInStream struct{ text string }

func (e *errInStream) Error() string { return e.text }

func (s tritonStream) recv() (*oip.ModelInferResponse, error) {
	m := new(oip.ModelStreamInferResponse)
	if err := s.RecvMsg(m); err != nil {
		return nil, err
	}
	if text := m.GetErrorMessage(); text != "" {
		return nil, &errInStream{text}
	}
	return m.GetInferResponse(), nil
}

// plainStream has plain answers and ends with the call.
type plainStream struct{ grpc.ClientStream }

func (s plainStream) recv() (*oip.ModelInferResponse, error) {
	m := new(oip.ModelInferResponse)
	return m, s.RecvMsg(m)
}

// open sends a request over a stream of its own.
func (g *overGRPC) open(ctx context.Context, req *oip.ModelInferRequest) (stream, error) {
	if !g.PlainStreams {
		ctx = metadata.AppendToOutgoingContext(ctx, realErrors, "true")
	}
	desc := &oip.GRPCInferenceService_ServiceDesc.Streams[0]
	s, err := g.cc.NewStream(ctx, desc, oip.GRPCInferenceService_ModelStreamInfer_FullMethodName)
	if err != nil {
		return nil, err
	}
	if err := s.SendMsg(req); err != nil && !errors.Is(err, io.EOF) { // io.EOF: what failed comes with the first message
		return nil, err
	}
	if err := s.CloseSend(); err != nil {
		return nil, err
	}
	if g.PlainStreams {
		return plainStream{s}, nil
	}
	return tritonStream{s}, nil
}

func (g *overGRPC) generate(ctx context.Context, c *call, take func(*answer) bool) error {
	ctx, cancel := context.WithCancel(ctx) // a stream lives until it is read to its end, or cancelled
	defer cancel()
	req, err := requestMessage(c)
	if err != nil {
		return err
	}
	if !g.PlainStreams {
		req.Parameters = map[string]*oip.InferParameter{askFinal: boolParameter(true)}
	}
	s, err := g.open(ctx, req)
	if err != nil {
		return g.fault(err)
	}
	return g.relay(s, take)
}

// relay hands on the answers of a stream.
func (g *overGRPC) relay(s stream, take func(*answer) bool) error {
	for marked := g.PlainStreams; ; {
		resp, err := s.recv()
		if err != nil {
			return g.streamEnd(err, marked, take)
		}
		a, err := readMessage(resp)
		if err != nil {
			return g.strange(err)
		}
		marked = marked || a.final
		if a.final = false; !take(a) {
			return nil
		}
	}
}

// streamEnd judges the end of a stream: the status OK, which is io.EOF here, behind the
// mark of the last answer as far as the server sets one.
func (g *overGRPC) streamEnd(err error, marked bool, take func(*answer) bool) error {
	told := new(errInStream)
	switch {
	case errors.As(err, &told):
		return g.toldFault(told.text)
	case errors.Is(err, io.EOF) && marked:
		take(&answer{final: true})
		return nil
	}
	e := g.fault(err)
	if e.Kind == providers.Unreachable {
		e.Kind = providers.Truncated
	}
	return e
}

// toldFault is a failure that came without a status.
func (g *overGRPC) toldFault(text string) error {
	if strings.Contains(text, "unknown model") {
		return &providers.Error{Kind: providers.Passed, Status: http.StatusNotFound, Target: g.name, Message: text}
	}
	return &providers.Error{Kind: providers.UpstreamFailed, Target: g.name, Message: text}
}
