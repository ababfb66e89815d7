package mii

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"sluice/providers/mii/wire"
	"sluice/providers/providertest"
)

// scripted is a load balancer that plays a script: each line of its body is a message
// or a status, and the end of the lines is the end of the stream.
type scripted struct {
	wire.UnimplementedModelResponseServer
	t      testing.TB
	script *providertest.Script
	server *grpc.Server
	once   sync.Once
}

// serve starts a server until the test ends.
func serve(t testing.TB, script *providertest.Script) (baseURL string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{t: t, script: script, server: grpc.NewServer()}
	wire.RegisterModelResponseServer(s.server, s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.server.Serve(l) // ends by Stop
	}()
	t.Cleanup(func() {
		s.server.Stop()
		<-served
	})
	return "http://" + l.Addr().String()
}

// asked tells the script what came, in the form of a request over HTTP.
func (s *scripted) asked(ctx context.Context, method string, m proto.Message) {
	if s.script.Asked == nil {
		return
	}
	body, err := protojson.Marshal(m)
	if err != nil {
		s.t.Error(err)
	}
	var compact bytes.Buffer // protojson puts in white space at random
	if err := json.Compact(&compact, body); err != nil {
		s.t.Error(err)
	}
	r, err := http.NewRequest(http.MethodPost, method, nil)
	if err != nil {
		s.t.Error(err)
		return
	}
	md, _ := metadata.FromIncomingContext(ctx)
	for _, name := range []string{"authorization", "x-extra"} {
		for _, v := range md.Get(name) {
			r.Header.Add(name, v)
		}
	}
	s.script.Asked(r, compact.Bytes())
}

// play sends the messages of the body.
func (s *scripted) play(ctx context.Context, header func() error, send func(*wire.MultiGenerationReply) error) error {
	if s.script.Status != http.StatusOK && s.script.Status != 0 {
		return status.Error(codes.Code(s.script.Status), string(s.script.Body))
	}
	if s.script.Stop == providertest.BeforeHeaders {
		return s.wait(ctx)
	}
	if s.script.Stop == providertest.BehindHeaders {
		_ = header()
		return s.wait(ctx)
	}
	for line := range bytes.Lines(s.script.Body) {
		if err := s.line(line, send); err != nil {
			if ctx.Err() != nil {
				return s.wait(ctx)
			}
			return err
		}
	}
	switch {
	case s.script.Stop == providertest.BehindBody:
		return s.wait(ctx)
	case s.script.Break:
		_ = header()
		go s.server.Stop()
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (s *scripted) line(line []byte, send func(*wire.MultiGenerationReply) error) error {
	var special struct {
		Status  codes.Code
		Message string
		End     bool
	}
	if json.Unmarshal(line, &special) == nil && (special.Status != 0 || special.End) {
		return status.Error(special.Status, special.Message)
	}
	m := &wire.MultiGenerationReply{}
	if err := protojson.Unmarshal(line, m); err != nil {
		s.t.Errorf("%s: %v", line, err)
	}
	return send(m)
}

func (s *scripted) wait(ctx context.Context) error {
	if s.script.Stopped != nil {
		s.once.Do(func() {
			close(s.script.Stopped)
			<-ctx.Done()
			close(s.script.Gone)
		})
	}
	return ctx.Err()
}

func (s *scripted) GeneratorReply(ctx context.Context, r *wire.MultiStringRequest) (last *wire.MultiGenerationReply, err error) {
	s.asked(ctx, wire.ModelResponse_GeneratorReply_FullMethodName, r)
	if r.QueryKwargs["stream"] != nil {
		s.t.Error("a call that is no stream holds stream")
	}
	if s.script.Status == http.StatusOK && s.script.Stop == providertest.Nowhere && len(s.script.Body) == 0 {
		s.script.Break = true // all that can be cut of a single message
	}
	last = &wire.MultiGenerationReply{}
	err = s.play(ctx, func() error { return grpc.SendHeader(ctx, nil) }, func(m *wire.MultiGenerationReply) error {
		last = m
		return nil
	})
	return last, err
}

func (s *scripted) GeneratorReplyStream(r *wire.MultiStringRequest, out grpc.ServerStreamingServer[wire.MultiGenerationReply]) error {
	s.asked(out.Context(), wire.ModelResponse_GeneratorReplyStream_FullMethodName, r)
	if !r.QueryKwargs["stream"].GetBvalue() || len(r.Request) != 1 {
		s.t.Errorf("a stream of %d prompts with stream %v", len(r.Request), r.QueryKwargs["stream"])
	}
	return s.play(out.Context(), func() error { return out.SendHeader(nil) }, out.Send)
}
