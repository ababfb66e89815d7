// Package mii speaks to DeepSpeed-MII: over gRPC to the load balancer of a deployment,
// or over its RESTful gateway, in the versions of its protocol. Its servers take text
// and nothing else, so conversations become prompts here, and stop sequences are
// enforced here.
package mii

import (
	"context"
	"strconv"
	"sync/atomic"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/kit/rpc"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// kind is how refusals name this adapter.
const kind = "mii"

// Generation is a version of the protocol. The wrong one cannot be told from faulty
// replies with certainty: they came over a service of one name, with other messages.
type Generation uint8

const (
	// Current is the protocol since 0.1.2.
	Current Generation = iota
	// V01 is that of 0.1.0 and 0.1.1.
	V01
	// V00 is that of 0.0.x, which has no streams.
	V00
	// Legacy is the API that later versions keep as mii.legacy, without streams.
	Legacy
)

// String returns the generation as the configuration names it.
func (g Generation) String() string { return [...]string{"current", "0.1", "0.0", "legacy"}[g] }

// streams reports whether tokens come one by one, over gRPC.
func (g Generation) streams() bool { return g == Current || g == V01 }

// Options describe one deployment.
type Options struct {
	// Upstream says where the server is: the load balancer's port for gRPC, that of the
	// RESTful gateway for REST.
	Upstream   upstream.Options
	Generation Generation
	// REST asks the RESTful gateway for Deployment instead.
	REST       bool
	Deployment string
	// Template makes the prompts of conversations.
	Template *kit.Template
	// EOS is what the model ends an answer with; its stream shows it, and it is cut off.
	EOS []string
	// Think, when it is set, tells thoughts from answers in conversations.
	Think *kit.Think

	// MaxNewTokens is asked for where the caller sets no bound, and never more than
	// MaxNewTokensLimit: a call that was left runs on in the server to its bound.
	MaxNewTokens, MaxNewTokensLimit int
	// Temperature and TopP are sent where the caller says nothing: a call without them
	// beside one with them ends the server's work for good.
	Temperature, TopP float64
	// MaxPrompt bounds one prompt, in bytes; 0 is no bound. A prompt that the engine has
	// no room for ends it.
	MaxPrompt int
	// MaxCalls bounds the calls at once; 0 is no bound. The server has 256 places, and
	// lets whoever comes then wait without a word.
	MaxCalls int
	// Drop leaves out what the server cannot do, and says so in a header of the answer,
	// instead of refusing the request.
	Drop      bool
	MaxEvent  int // bytes of one message of a stream
	MaxAnswer int // bytes of one answer that is not streamed
}

// Provider talks to one deployment. It is safe for concurrent use.
type Provider struct {
	opt   Options
	name  string
	via   transport
	err   error // of the options
	calls atomic.Int64
	left  struct{ answers, tokens atomic.Int64 }
}

// transport is a way to reach the deployment. Its errors are *providers.Error, or the
// cause for which ctx ended.
type transport interface {
	// whole asks once for an answer to each prompt.
	whole(ctx context.Context, j *job) ([]reply, error)
	// stream asks for the first prompt. The stream must be closed.
	stream(ctx context.Context, j *job) (*messages, error)
	// reach reports whether a server answers.
	reach(ctx context.Context) error
	close()
}

// New returns a provider that dials nothing until it is used.
func New(opt Options) *Provider {
	p := &Provider{opt: opt, name: opt.Upstream.Name}
	if opt.REST {
		p.via = newREST(&p.opt)
		return p
	}
	u := &opt.Upstream
	cc, err := rpc.Dial(rpc.Options{BaseURL: u.BaseURL, Connect: u.Connect, TLS: u.TLS, Header: u.Header, Receive: opt.MaxAnswer, RootCAs: u.RootCAs})
	if err != nil {
		p.err = &providers.Error{Kind: providers.Internal, Target: p.name, Message: "the upstream's address cannot be used", Err: err}
		return p
	}
	p.via = newGRPC(&p.opt, cc)
	return p
}

// Close ends the connections of a provider that is used no more.
func (p *Provider) Close() {
	if p.via != nil {
		p.via.close()
	}
}

// Models implements providers.Lister. The protocol has no list of models, so there is
// none; the error says that no server answers.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	if p.err != nil {
		return nil, p.err
	}
	return nil, p.via.reach(ctx)
}

// Unstopped counts the answers that were left before their end, for a client had gone
// or a stop sequence had come, and the tokens that the server may still have generated
// for them: it is never told, for its load balancer hands no cancellation on.
func (p *Provider) Unstopped() (answers, tokens int64) {
	return p.left.answers.Load(), p.left.tokens.Load()
}

// Target returns a Provider that asks this deployment, whatever name the caller used.
// model is the name that its answers bear.
func (p *Provider) Target(model string) providers.Provider { return target{p, model} }

type target struct {
	*Provider
	model string
}

// Stream implements providers.Provider.
func (t target) Stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		if err := t.run(ctx, req, prog, yield); err != nil {
			yield(nil, upstream.Cause(ctx, err))
		}
	}
}

func (t target) run(ctx context.Context, req *providers.Request, prog *streaming.Progress, yield yielder) error {
	if t.err != nil {
		return t.err
	}
	j, err := t.opt.read(req, t.model)
	if err != nil {
		return err
	}
	if n := t.calls.Add(1); t.opt.MaxCalls > 0 && n > int64(t.opt.MaxCalls) {
		t.calls.Add(-1)
		return &providers.Error{Kind: providers.Overloaded, Target: t.name, Message: "the upstream has no room for another call: it works on " + strconv.Itoa(t.opt.MaxCalls)}
	}
	defer t.calls.Add(-1)
	a := &answer{Provider: t.Provider, job: j, ctx: ctx, progress: prog}
	return a.send(yield)
}

// yielder is what a stream hands its batches to.
type yielder = func([]streaming.Event, error) bool
