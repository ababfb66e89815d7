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
	if err := fitRaw(len(raw), len(resp.GetOutputs())); err != nil {
		return nil, err
	}
	a := &answer{final: resp.GetParameters()[markFinal].GetBoolParam()}
	for i, o := range resp.GetOutputs() {
		t := tensor{name: o.GetName(), datatype: o.GetDatatype(), shape: o.GetShape()}
		if len(raw) > 0 {
			t.data = raw[i]
		} else {
			t.data = contents(t.datatype, o.GetContents())
		}
		if err := t.fit(); err != nil {
			return nil, err
		}
		a.tensors = append(a.tensors, t)
	}
	return a, nil
}

// fitRaw holds raw contents against the outputs: there is one of each, or none at all.
func fitRaw(raw, outputs int) error {
	if raw > 0 && raw != outputs {
		return fmt.Errorf("%d raw contents for %d outputs", raw, outputs)
	}
	return nil
}

// fit checks a tensor, and names it when it is not consistent.
func (t *tensor) fit() error {
	if err := t.check(); err != nil {
		return fmt.Errorf("tensor %.40q: %w", t.name, err)
	}
	return nil
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

// errInStream is a failure that a stream tells in a message.
type errInStream struct{ text string }

func (e *errInStream) Error() string { return e.text }

// open sends a request over a stream of its own.
func (g *overGRPC) open(ctx context.Context, req *oip.ModelInferRequest) (*rpc.Reader, error) {
	if !g.PlainStreams {
		ctx = metadata.AppendToOutgoingContext(ctx, realErrors, "true")
	}
	desc := &oip.GRPCInferenceService_ServiceDesc.Streams[0]
	return rpc.Open(ctx, g.cc, desc, oip.GRPCInferenceService_ModelStreamInfer_FullMethodName, req)
}

func (g *overGRPC) generate(ctx context.Context, c *call, take func(*answer) bool) error {
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
	defer s.Close()
	return g.relay(s, take)
}

// relay hands on the answers of a stream.
func (g *overGRPC) relay(s *rpc.Reader, take func(*answer) bool) error {
	messages := messageReader{plain: g.PlainStreams}
	for marked := g.PlainStreams; ; {
		batch, err := s.Next()
		if err != nil {
			return g.streamEnd(err, marked, take)
		}
		for i, text := range batch {
			a, err := messages.read(text)
			if err != nil {
				if i > 0 && !take(&answer{}) { // what came before it waits no longer
					return nil
				}
				return g.toldFault(err)
			}
			marked = marked || a.final
			if a.final, a.more = false, i+1 < len(batch); !take(a) {
				return nil
			}
		}
	}
}

// streamEnd judges the end of a stream: the status OK, which is io.EOF here, behind the
// mark of the last answer as far as the server sets one.
func (g *overGRPC) streamEnd(err error, marked bool, take func(*answer) bool) error {
	if errors.Is(err, io.EOF) && marked {
		take(&answer{final: true})
		return nil
	}
	e := g.fault(err)
	if e.Kind == providers.Unreachable {
		e.Kind = providers.Truncated
	}
	return e
}

// toldFault is the error for a message that holds one, without a status, or is none.
func (g *overGRPC) toldFault(err error) error {
	told := new(errInStream)
	switch {
	case !errors.As(err, &told):
		return g.strange(err)
	case strings.Contains(told.text, "unknown model"):
		return &providers.Error{Kind: providers.Passed, Status: http.StatusNotFound, Target: g.name, Message: told.text}
	default:
		return &providers.Error{Kind: providers.UpstreamFailed, Target: g.name, Message: told.text}
	}
}
