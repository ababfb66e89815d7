package kserve

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"sluice/providers"
	"sluice/providers/kserve/oip"
	"sluice/providers/providertest"
)

// scripted plays a script to every stream.
type scripted struct {
	oip.UnimplementedGRPCInferenceServiceServer
	script *providertest.Script
	once   sync.Once
	hangUp func()
}

func (s *scripted) ModelStreamInfer(stream oip.GRPCInferenceService_ModelStreamInferServer) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	sc := s.script
	if sc.Asked != nil {
		body, err := protojson.Marshal(req)
		if err != nil {
			return err
		}
		sc.Asked(httptest.NewRequest(http.MethodPost, oip.GRPCInferenceService_ModelStreamInfer_FullMethodName, nil), body)
	}
	if sc.Stop == providertest.BeforeHeaders {
		return s.wait(stream.Context())
	}
	if sc.Status != http.StatusOK {
		return status.Error(codes.Code(sc.Status), string(sc.Body))
	}
	if sc.Stop == providertest.BehindHeaders {
		_ = stream.SendHeader(nil)
		return s.wait(stream.Context())
	}
	for line := range bytes.Lines(sc.Body) {
		m := new(oip.ModelStreamInferResponse)
		if err := protojson.Unmarshal(line, m); err != nil {
			return status.Error(codes.DataLoss, err.Error())
		}
		if err := stream.Send(m); err != nil { // the caller may have left before the last message
			return s.wait(stream.Context())
		}
	}
	if sc.Stop == providertest.BehindBody {
		return s.wait(stream.Context())
	}
	if sc.Break {
		s.hangUp()
		<-stream.Context().Done()
	}
	return nil
}

func (s *scripted) wait(ctx context.Context) error {
	s.once.Do(func() {
		close(s.script.Stopped)
		<-ctx.Done()
		close(s.script.Gone)
	})
	return status.FromContextError(ctx.Err()).Err()
}

// serveGRPC runs a server of the protocol until the test ends. hangUp ends its
// connections behind what was written before.
func serveGRPC(t testing.TB, service func(hangUp func()) oip.GRPCInferenceServiceServer, opts ...grpc.ServerOption) (baseURL string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	kept := &keptConns{Listener: l}
	srv := grpc.NewServer(opts...)
	oip.RegisterGRPCInferenceServiceServer(srv, service(kept.hangUp))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(kept)
	}()
	t.Cleanup(func() { srv.Stop(); <-done })
	return "http://" + l.Addr().String()
}

type keptConns struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (k *keptConns) Accept() (net.Conn, error) {
	c, err := k.Listener.Accept()
	if err == nil {
		k.mu.Lock()
		k.conns = append(k.conns, c)
		k.mu.Unlock()
	}
	return c, err
}

// hangUp closes the sending side, so that what was written still arrives.
func (k *keptConns) hangUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.conns {
		_ = c.(*net.TCPConn).CloseWrite()
	}
}

func overGRPCOf(plain bool) func(*Options) {
	return func(o *Options) { o.GRPC, o.PlainStreams, o.Upstream.Connect = true, plain, 5*time.Second }
}

func grpcSuite() providertest.Suite {
	refused := func(name string, code codes.Code, words string, want providers.Error) providertest.Refusal {
		want.Message = words
		return providertest.Refusal{Name: name, Status: int(code), Body: words, Want: want}
	}
	return providertest.Suite{
		New: func(t testing.TB, baseURL string) providers.Provider {
			p := newProvider(baseURL, overGRPCOf(false), writerSchema(t))
			t.Cleanup(func() { _ = p.via.(*overGRPC).cc.Close() })
			return p.Target(providertest.Model)
		},
		Serve: func(t testing.TB, s *providertest.Script) string {
			return serveGRPC(t, func(hangUp func()) oip.GRPCInferenceServiceServer { return &scripted{script: s, hangUp: hangUp} })
		},
		Ext: ".jsonl", Type: "", Messages: true, NoWhole: true,
		Refusals: []providertest.Refusal{
			refused("invalid", codes.InvalidArgument, "unexpected inference input", providers.Error{Kind: providers.Passed, Status: 400}),
			refused("unknown model", codes.NotFound, "model 'm' not found", providers.Error{Kind: providers.Passed, Status: 404}),
			refused("unknown model, as Triton says it", codes.Unavailable, "Request for unknown model: 'm' is not found", providers.Error{Kind: providers.Passed, Status: 404}),
			refused("unavailable", codes.Unavailable, "model 'm' is not ready", providers.Error{Kind: providers.Overloaded}),
			refused("restricted", codes.Unavailable, "This protocol is restricted, expecting header 'triton-grpc-protocol-x'", providers.Error{Kind: providers.UpstreamCredential}),
			refused("exhausted", codes.ResourceExhausted, "no slot", providers.Error{Kind: providers.RateLimited}),
			refused("exists", codes.AlreadyExists, "sequence", providers.Error{Kind: providers.Passed, Status: 409}),
			refused("internal", codes.Internal, "CUDA error", providers.Error{Kind: providers.UpstreamFailed}),
			refused("unknown", codes.Unknown, "what", providers.Error{Kind: providers.UpstreamFailed}),
			refused("cancelled there", codes.Canceled, "cancelled", providers.Error{Kind: providers.UpstreamFailed}),
			refused("unimplemented", codes.Unimplemented, "unknown method ModelStreamInfer", providers.Error{Kind: providers.Protocol}),
		},
		// A message cannot be malformed: the library ends the call.
		Lacks: []string{"tools", "malformed"},
	}
}

func TestConformanceGRPC(t *testing.T) {
	t.Chdir("testdata/grpc")
	grpcSuite().Run(t)
}
