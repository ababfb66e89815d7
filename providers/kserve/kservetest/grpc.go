package kservetest

import (
	"context"
	"errors"
	"io"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/providers/kserve/oip"
)

func statusOf(err error) error {
	if err == nil {
		return nil
	}
	f := faultOf(err)
	return status.Error(codes.Code(f.Code), f.Message)
}

// ServerReady is always true.
func (s *Server) ServerReady(context.Context, *oip.ServerReadyRequest) (*oip.ServerReadyResponse, error) {
	return &oip.ServerReadyResponse{Ready: true}, nil
}

// ModelReady tells a model that is not there by an error.
func (s *Server) ModelReady(_ context.Context, r *oip.ModelReadyRequest) (*oip.ModelReadyResponse, error) {
	m, ok := s.Models[r.GetName()]
	if !ok {
		return nil, status.Error(codes.Unavailable, "Request for unknown model: '"+r.GetName()+"' is not found")
	}
	return &oip.ModelReadyResponse{Ready: !m.NotReady}, nil
}

// ModelMetadata tells the inputs.
func (s *Server) ModelMetadata(_ context.Context, r *oip.ModelMetadataRequest) (*oip.ModelMetadataResponse, error) {
	m, ok := s.Models[r.GetName()]
	if !ok {
		return nil, status.Error(codes.Unavailable, "Request for unknown model: '"+r.GetName()+"' is not found")
	}
	out := &oip.ModelMetadataResponse{Name: r.GetName()}
	for _, in := range m.Inputs {
		out.Inputs = append(out.Inputs, &oip.ModelMetadataResponse_TensorMetadata{Name: in.Name, Datatype: in.Datatype, Shape: in.Shape})
	}
	return out, nil
}

// RepositoryIndex is Triton's.
func (s *Server) RepositoryIndex(context.Context, *oip.RepositoryIndexRequest) (*oip.RepositoryIndexResponse, error) {
	if s.Plain {
		return nil, status.Error(codes.Unimplemented, "Method not found!")
	}
	out := &oip.RepositoryIndexResponse{}
	for name, m := range s.Models {
		state := "READY"
		if m.NotReady {
			state = "UNAVAILABLE"
		}
		out.Models = append(out.Models, &oip.RepositoryIndexResponse_ModelIndex{Name: name, Version: "1", State: state})
	}
	return out, nil
}

func (s *Server) tensors(ctx context.Context, r *oip.ModelInferRequest) ([]Tensor, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	h := http.Header{}
	for k, v := range md {
		h[http.CanonicalHeaderKey(k)] = v
	}
	s.note(h)
	if len(r.GetRawInputContents()) != len(r.GetInputs()) {
		return nil, &Fault{http.StatusBadRequest, 3, "raw_input_contents must be given for all inputs"}
	}
	var all []Tensor
	for i, in := range r.GetInputs() {
		t := Tensor{in.GetName(), in.GetDatatype(), in.GetShape(), r.GetRawInputContents()[i]}
		if err := consistent(&t); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

func respond(r *oip.ModelInferRequest, tensors []Tensor) *oip.ModelInferResponse {
	out := &oip.ModelInferResponse{ModelName: r.GetModelName(), ModelVersion: "1", Id: r.GetId()}
	for _, t := range tensors {
		out.Outputs = append(out.Outputs, &oip.ModelInferResponse_InferOutputTensor{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape})
		out.RawOutputContents = append(out.RawOutputContents, t.Raw)
	}
	return out
}

// ModelInfer asks a model that answers once.
func (s *Server) ModelInfer(ctx context.Context, r *oip.ModelInferRequest) (*oip.ModelInferResponse, error) {
	inputs, err := s.tensors(ctx, r)
	if err != nil {
		return nil, statusOf(err)
	}
	var outputs []Tensor
	err = s.run(ctx, r.GetModelName(), inputs, false, func(t ...Tensor) error {
		outputs = append(outputs, t...)
		return nil
	})
	return respond(r, outputs), statusOf(err)
}

// ModelStreamInfer marks the last answer of each request, as Triton does when it is
// asked for an empty one.
func (s *Server) ModelStreamInfer(stream oip.GRPCInferenceService_ModelStreamInferServer) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		inputs, err := s.tensors(stream.Context(), r)
		if err == nil {
			err = s.run(stream.Context(), r.GetModelName(), inputs, true, func(t ...Tensor) error {
				return stream.Send(&oip.ModelStreamInferResponse{InferResponse: final(respond(r, t), false)})
			})
		}
		if err != nil {
			return statusOf(err)
		}
		if err := stream.Send(&oip.ModelStreamInferResponse{InferResponse: final(respond(r, nil), true)}); err != nil {
			return err
		}
	}
}

func final(r *oip.ModelInferResponse, is bool) *oip.ModelInferResponse {
	r.Parameters = map[string]*oip.InferParameter{"triton_final_response": {ParameterChoice: &oip.InferParameter_BoolParam{BoolParam: is}}}
	return r
}
