// Package kservetest is a server of the KServe v2 protocol for tests, over HTTP and
// gRPC, with Triton's extensions. What its models do is said by functions.
package kservetest

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"sluice/providers/kserve/oip"
)

// Tensor is one tensor. Raw is little-endian; elements of BYTES have their length, four
// bytes, before them.
type Tensor struct {
	Name, Datatype string
	Shape          []int64
	Raw            []byte
}

// Floats is a tensor of FP32.
func Floats(name string, shape []int64, v ...float32) Tensor {
	t := Tensor{Name: name, Datatype: "FP32", Shape: shape}
	for _, f := range v {
		t.Raw = binary.LittleEndian.AppendUint32(t.Raw, math.Float32bits(f))
	}
	return t
}

// Strings is a tensor of BYTES with one axis.
func Strings(name string, v ...string) Tensor {
	t := Tensor{Name: name, Datatype: "BYTES", Shape: []int64{int64(len(v))}}
	for _, s := range v {
		t.Raw = binary.LittleEndian.AppendUint32(t.Raw, uint32(len(s)))
		t.Raw = append(t.Raw, s...)
	}
	return t
}

// Floats reads FP32.
func (t *Tensor) Floats() []float32 {
	v := make([]float32, len(t.Raw)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Raw[4*i:]))
	}
	return v
}

// Strings reads BYTES.
func (t *Tensor) Strings() []string {
	var v []string
	for rest := t.Raw; len(rest) >= 4; {
		n := int(binary.LittleEndian.Uint32(rest))
		if n > len(rest)-4 {
			break
		}
		v, rest = append(v, string(rest[4:4+n])), rest[4+n:]
	}
	return v
}

// Model answers a call. Send may be called any number of times by a decoupled model,
// and once by any other; a failure of it ends the call.
type Model struct {
	Inputs    []Tensor // for metadata: names, datatypes and shapes
	Decoupled bool
	NotReady  bool
	Do        func(ctx context.Context, inputs map[string]Tensor, send func(...Tensor) error) error
}

// Fault is an error that a model gives, with a status of HTTP and a code of gRPC.
type Fault struct {
	Status  int
	Code    uint32
	Message string
}

func (f *Fault) Error() string { return f.Message }

// Server is a server of the protocol. Fields are set before Start.
type Server struct {
	oip.UnimplementedGRPCInferenceServiceServer
	Models map[string]Model
	// Plain leaves out Triton's repository index.
	Plain bool

	mu      sync.Mutex
	headers []http.Header
	gone    chan struct{}
}

// Start serves until the test ends and returns the base URLs.
func (s *Server) Start(t testing.TB) (overHTTP, overGRPC string) {
	t.Helper()
	s.gone = make(chan struct{}, 64)
	httpListener, grpcListener := listen(t), listen(t)
	web := &http.Server{Handler: s.routes()}
	rpc := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(64<<20))
	oip.RegisterGRPCInferenceServiceServer(rpc, s)
	var all sync.WaitGroup
	all.Go(func() { _ = web.Serve(httpListener) })
	all.Go(func() { _ = rpc.Serve(grpcListener) })
	t.Cleanup(func() {
		_ = web.Close()
		rpc.Stop()
		all.Wait()
	})
	return "http://" + httpListener.Addr().String(), "http://" + grpcListener.Addr().String()
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Gone gets a value for each call whose caller left before its model was done.
func (s *Server) Gone() <-chan struct{} { return s.gone }

// Headers are those of the calls so far; metadata of gRPC counts as such.
func (s *Server) Headers() []http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.headers)
}

func (s *Server) note(h http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.headers = append(s.headers, h)
}

// run asks a model.
func (s *Server) run(ctx context.Context, name string, inputs []Tensor, streamed bool, send func(...Tensor) error) error {
	m, ok := s.Models[name]
	if !ok {
		return &Fault{http.StatusNotFound, 14, "Request for unknown model: '" + name + "' is not found"}
	}
	if m.Decoupled && !streamed {
		return &Fault{http.StatusNotImplemented, 12, "ModelInfer RPC doesn't support models with decoupled transaction policy"}
	}
	byName := map[string]Tensor{}
	for _, in := range inputs {
		byName[in.Name] = in
	}
	err := m.Do(ctx, byName, send)
	if ctx.Err() != nil {
		s.gone <- struct{}{}
	}
	return err
}

// faultOf finds the status and the code of an error.
func faultOf(err error) *Fault {
	if f := new(Fault); errors.As(err, &f) {
		return f
	}
	return &Fault{http.StatusInternalServerError, 13, err.Error()}
}

// size is the bytes of one element; 0 for BYTES and what is not known.
func size(datatype string) int {
	return map[string]int{"BOOL": 1, "UINT8": 1, "INT8": 1, "INT32": 4, "UINT32": 4, "INT64": 8, "FP16": 2, "FP32": 4, "FP64": 8}[datatype]
}

// consistent refuses a tensor whose bytes do not fit its shape, as Triton does.
func consistent(t *Tensor) error {
	n := 1
	for _, d := range t.Shape {
		n *= int(d)
	}
	fits := len(t.Raw) == n*size(t.Datatype)
	if t.Datatype == "BYTES" {
		fits = len(t.Strings()) == n
	}
	if !fits {
		return &Fault{http.StatusBadRequest, 3, "input byte size mismatch for input '" + t.Name + "'"}
	}
	return nil
}
