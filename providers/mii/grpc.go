package mii

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"sluice/providers"
	"sluice/providers/kit/rpc"
	"sluice/providers/mii/wire"
)

// overGRPC reaches the load balancer. The methods that are called stand here, and no
// other can be: one of the service's shuts the deployment down for whoever asks.
type overGRPC struct {
	*Options
	cc     *grpc.ClientConn
	client wire.ModelResponseClient
}

func newGRPC(o *Options, cc *grpc.ClientConn) *overGRPC {
	return &overGRPC{Options: o, cc: cc, client: wire.NewModelResponseClient(cc)}
}

// legacyMethod is the one of the legacy API that answers prompts.
const legacyMethod = "/legacymodelresponse.ModelResponse/GeneratorReply"

func (g *overGRPC) whole(ctx context.Context, j *job) ([]reply, error) {
	ask, limit := g.request(j), grpc.MaxCallRecvMsgSize(g.MaxAnswer)
	switch g.Generation {
	case V01:
		var m wire.GenerationReply
		if err := g.cc.Invoke(ctx, wire.ModelResponse_GeneratorReply_FullMethodName, ask, &m, limit); err != nil {
			return nil, g.fault(err)
		}
		return g.readV01(&m)
	case V00, Legacy:
		method := legacyMethod
		if g.Generation == V00 {
			method = wire.ModelResponse_GeneratorReply_FullMethodName
		}
		var m wire.MultiStringReply
		if err := g.cc.Invoke(ctx, method, ask, &m, limit); err != nil {
			return nil, g.fault(err)
		}
		return untold(m.Response, j.prompts), nil
	default:
		m, err := g.client.GeneratorReply(ctx, ask, limit)
		if err != nil {
			return nil, g.fault(err)
		}
		return g.readCurrent(m)
	}
}

func (g *overGRPC) readCurrent(m *wire.MultiGenerationReply) ([]reply, error) {
	replies := make([]reply, 0, len(m.Response))
	for _, one := range m.Response {
		r, err := g.told(one.Response, one.FinishReason, one.PromptTokens, one.GeneratedTokens)
		if err != nil {
			return nil, err
		}
		replies = append(replies, r)
	}
	return replies, nil
}

// readV01 takes a reply with details, and one without, of which only the texts are known.
func (g *overGRPC) readV01(m *wire.GenerationReply) ([]reply, error) {
	if len(m.Details) == 0 {
		return untold(m.Response, nil), nil
	}
	if len(m.Details) != len(m.Response) {
		return nil, g.strange(fmt.Sprintf("%d details of %d answers", len(m.Details), len(m.Response)))
	}
	replies := make([]reply, 0, len(m.Response))
	for i, d := range m.Details {
		r, err := g.told(m.Response[i], d.FinishReason, d.PromptTokens, d.GeneratedTokens)
		if err != nil {
			return nil, err
		}
		replies = append(replies, r)
	}
	return replies, nil
}

// stream opens one stream.
func (g *overGRPC) stream(ctx context.Context, j *job) (*messages, error) {
	desc := &wire.ModelResponse_ServiceDesc.Streams[0]
	from, err := rpc.Open(ctx, g.cc, desc, wire.ModelResponse_GeneratorReplyStream_FullMethodName, g.request(j), grpc.MaxCallRecvMsgSize(g.MaxEvent))
	if err != nil {
		return nil, g.fault(err)
	}
	return &messages{g: g, from: from}, nil
}

// request writes a job down. "stream" stands in streams only: in a call that is none it
// leaves the rest of the answer to the next caller whom the server's thread serves.
func (g *overGRPC) request(j *job) *wire.MultiStringRequest {
	number := func(n int64) *wire.Value { return &wire.Value{OneofValues: &wire.Value_Ivalue{Ivalue: n}} }
	float := func(f float64) *wire.Value { return &wire.Value{OneofValues: &wire.Value_Fvalue{Fvalue: float32(f)}} }
	truth := func(b bool) *wire.Value { return &wire.Value{OneofValues: &wire.Value_Bvalue{Bvalue: b}} }
	r := &wire.MultiStringRequest{Request: j.prompts, QueryKwargs: map[string]*wire.Value{
		"max_new_tokens": number(j.maxNewTokens), "do_sample": truth(j.sample),
		"temperature": float(j.temperature), "top_p": float(j.topP),
	}}
	if j.stream {
		r.QueryKwargs["stream"] = truth(true)
	}
	for i, p := range r.Request {
		if clean := strings.ToValidUTF8(p, "\uFFFD"); clean != p { // which the encoding demands
			r.Request[i] = clean
		}
	}
	return r
}

// reach connects, which is all that can be asked: the service has no health check.
func (g *overGRPC) reach(ctx context.Context) error {
	g.cc.Connect()
	for {
		switch s := g.cc.GetState(); s {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return &providers.Error{Kind: providers.Unreachable, Target: g.Upstream.Name, Message: "no gRPC server answers at base_url"}
		default:
			if !g.cc.WaitForStateChange(ctx, s) {
				return context.Cause(ctx)
			}
		}
	}
}

func (g *overGRPC) close() { _ = g.cc.Close() }
