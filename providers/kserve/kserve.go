// Package kserve speaks the Open Inference Protocol (KServe v2) to Triton, MLServer,
// KServe and their like, over HTTP and over gRPC. Tensors come from and go to the JSON
// of OpenAI's API by a schema that is declared for each model; who speaks the protocol
// has his tensors passed through.
package kserve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sluice/providers"
	"sluice/providers/kit/ask"
	"sluice/providers/kit/pixels"
	"sluice/providers/kit/rpc"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// kind is how refusals name this adapter.
const kind = "kserve"

// Options describe one upstream.
type Options struct {
	// Upstream says where the server is; its base URL is the server's root, without /v2.
	Upstream upstream.Options
	// GRPC speaks gRPC instead of HTTP.
	GRPC bool
	// Binary sends and asks for tensors as bytes behind the JSON (the binary tensor data
	// extension); off for servers that do not have it. HTTP only.
	Binary bool
	// PlainStreams says that the messages of ModelStreamInfer are plain answers, as
	// MLServer sends them, and not Triton's, which can hold an error and mark the last one.
	PlainStreams bool
	// Models are the models with a declared schema. Others can only be reached with tensors.
	Models []Model
	// Images decodes images. MaxImages is how many one request may hold.
	Images    *pixels.Pool
	MaxImages int
	// Drop leaves out what a model cannot do, and says so in a header of the answer,
	// instead of refusing the request.
	Drop      bool
	MaxEvent  int // bytes of one event of a stream over HTTP
	MaxAnswer int // bytes of one answer, or of one message of a stream over gRPC
}

// Provider talks to one upstream. It is safe for concurrent use.
type Provider struct {
	opt    Options
	name   string
	models map[string]*Model
	via    transport
	err    error // of the options
}

// transport is a way to reach the server.
type transport interface {
	// infer asks once and waits for the answer.
	infer(ctx context.Context, c *call) (*answer, error)
	// generate asks once and hands on the answers until one of them is final, take
	// returns false or something fails. An end before a final answer is Truncated, as far
	// as the server marks one.
	generate(ctx context.Context, c *call, take func(*answer) bool) error
	// pass asks with what the caller sent and yields what came.
	pass(ctx context.Context, p *passage, yield yielder) error
	// list names the models of the repository that are ready; errNoIndex says that the
	// server has no index.
	list(ctx context.Context) ([]string, error)
	// ready asks whether the server, or one of its models when it is named, can serve.
	ready(ctx context.Context, model, version string) (bool, error)
}

// errNoIndex says that a server cannot list its models.
var errNoIndex = errors.New("the server has no index of its models")

// yielder is what a stream hands its batches to.
type yielder = func([]streaming.Event, error) bool

// New returns a provider that dials nothing until it is used.
func New(opt Options) *Provider {
	p := &Provider{opt: opt, name: opt.Upstream.Name, models: map[string]*Model{}}
	for i := range opt.Models {
		p.models[opt.Models[i].Name] = &opt.Models[i]
	}
	if !opt.GRPC {
		p.via = &overHTTP{Options: &p.opt, name: p.name, up: upstream.New(opt.Upstream)}
		return p
	}
	u := &opt.Upstream
	cc, err := rpc.Dial(rpc.Options{BaseURL: u.BaseURL, Connect: u.Connect, TLS: u.TLS, Header: u.Header, Receive: opt.MaxAnswer, RootCAs: u.RootCAs})
	if err != nil {
		p.err = &providers.Error{Kind: providers.Internal, Target: p.name, Message: "the upstream's address cannot be used", Err: err}
		return p
	}
	p.via = newGRPC(&p.opt, p.name, cc)
	return p
}

// Close ends the gRPC connection of a provider that is used no more.
func (p *Provider) Close() {
	if g, ok := p.via.(*overGRPC); ok {
		_ = g.cc.Close()
	}
}

// Target returns a Provider that asks this upstream for one model, whatever name the
// caller used.
func (p *Provider) Target(model string) providers.Provider { return target{p, model} }

type target struct {
	*Provider
	model string
}

// errLeft says that the caller stopped ranging: nothing may be yielded any more.
var errLeft = errors.New("the caller stopped ranging")

func (t target) Stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		err := t.err
		if err == nil {
			err = t.answer(ctx, req, prog, yield)
		}
		if err != nil && !errors.Is(err, errLeft) {
			yield(nil, upstream.Cause(ctx, err))
		}
	}
}

func (t target) answer(ctx context.Context, req *providers.Request, prog *streaming.Progress, yield yielder) error {
	if isInfer(req) {
		return t.passThrough(ctx, req, yield)
	}
	m, err := t.declared(req)
	if err != nil {
		return err
	}
	switch {
	case req.Op == providers.Embeddings:
		return t.embed(ctx, req, m, yield)
	case req.Op != providers.Chat && req.Op != providers.Completions:
		return ask.NotServed(req, kind)
	case m.generates():
		return t.write(ctx, req, m, prog, yield)
	default:
		return t.look(ctx, req, m, yield)
	}
}

// declared finds the schema of the model that is asked.
func (t target) declared(req *providers.Request) (*Model, error) {
	if m := t.models[t.model]; m != nil {
		return m, nil
	}
	return nil, providers.Invalid("model", fmt.Sprintf("The model %q has no declared inputs and outputs at its upstream, which is of kind %s. "+
		"Send tensors to POST /v1/models/%s/infer, or have its schema declared ([[upstreams.kserve.models]]).", req.Model, kind, req.Model))
}

// meta makes the identity of an answer, for the protocol gives it none.
func (t target) meta(req *providers.Request, header http.Header) streaming.Event {
	prefix := "cmpl-"
	if req.Op == providers.Chat {
		prefix = "chatcmpl-"
	}
	return streaming.Event{Kind: streaming.Meta, Meta: &streaming.MetaData{
		ID: prefix + strings.TrimPrefix(req.ID, "req_"), Created: time.Now().Unix(), Model: t.present(req), Header: header}}
}

// present is the model's name as the caller is told.
func (t target) present(req *providers.Request) string {
	if req.PresentAs != "" {
		return req.PresentAs
	}
	return t.model
}
