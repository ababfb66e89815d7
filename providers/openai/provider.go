// Package openai speaks to every server that has OpenAI's HTTP API: OpenAI itself,
// Azure-style deployments, vLLM, SGLang, llama.cpp, LM Studio, LocalAI, Ollama's
// /v1. Payloads of the caller's own dialect pass byte for byte when they are what
// every client can read, and are mended one by one when they are not.
package openai

import (
	"context"
	"io"
	"net/http"
	"strings"

	"sluice/providers"
	"sluice/streaming"
)

// Options describe one upstream.
type Options struct {
	Name    string // as logs, errors and the x-sluice-target header name it
	BaseURL string // absolute, e.g. "https://host/v1"
	// APIKey is sent as Auth says: "bearer", "api-key" or "none".
	APIKey, Auth          string
	Organization, Project string
	Header                map[string]string
	Query                 map[string]string
	UserAgent             string
	// AskUsage asks for usage in every stream; off only for servers that refuse stream_options.
	AskUsage  bool
	MaxEvent  int // bytes of one streamed event
	MaxAnswer int // bytes of one answer that is held whole
	Transport TransportOptions
}

// Provider talks to one upstream. It is safe for concurrent use.
type Provider struct {
	opt    Options
	client http.RoundTripper
	fresh  http.RoundTripper // never uses a kept connection
}

// New returns a provider that dials nothing until it is used.
func New(opt Options) *Provider {
	return &Provider{opt: opt, client: newTransport(opt.Transport), fresh: freshTransport(opt.Transport)}
}

// Stream implements providers.Provider. req.Model must be the upstream's name of
// the model; see Target.
func (p *Provider) Stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	return p.Target(req.Model).Stream(ctx, req, prog)
}

// Target returns a Provider that asks this upstream for one model, whatever name
// the caller used.
func (p *Provider) Target(model string) providers.Provider { return target{p, model} }

type target struct {
	*Provider
	model string
}

func (t target) Stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		c := open(ctx)
		finished := false
		defer func() { c.close(finished) }()
		resp, err := t.send(c.ctx, req, t.model)
		if err != nil {
			yield(nil, cause(ctx, err))
			return
		}
		body, err := c.take(resp)
		if err != nil {
			yield(nil, &providers.Error{Kind: providers.Protocol, Target: t.opt.Name, Message: "the upstream compressed its answer in a way it was not asked for", Err: err})
			return
		}
		finished = t.answer(req, resp, body, prog, causal(ctx, yield))
	}
}

// causal replaces an error by the reason for which ctx ended, if it has.
func causal(ctx context.Context, yield yielder) yielder {
	return func(batch []streaming.Event, err error) bool {
		if err != nil {
			err = cause(ctx, err)
		}
		return yield(batch, err)
	}
}

// yielder is what a stream hands its batches to.
type yielder = func([]streaming.Event, error) bool

// answer reports whether the answer came to its true end, so that its connection
// can serve again.
func (p *Provider) answer(req *providers.Request, resp *http.Response, body io.Reader, prog *streaming.Progress, yield yielder) bool {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		yield(nil, httpError(p.opt.Name, resp, body))
		return true
	}
	meta := streaming.Event{Kind: streaming.Meta, Meta: p.meta(req, resp)}
	if !yield([]streaming.Event{meta}, nil) {
		return false
	}
	switch {
	case req.Op == providers.Passthrough:
		return p.relayBytes(body, yield)
	case !req.Stream || isType(resp, "application/json"):
		return p.relayWhole(req, resp, body, yield)
	case isType(resp, "text/html"):
		yield(nil, p.protocolError("an HTML page instead of a stream"))
		return false
	case req.Op == providers.Responses:
		return p.relayResponses(req, body, prog, yield)
	default:
		return p.relayEvents(req, body, prog, yield)
	}
}

func isType(resp *http.Response, want string) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), want)
}

func (p *Provider) protocolError(what string) *providers.Error {
	return &providers.Error{Kind: providers.Protocol, Target: p.opt.Name, Message: "the upstream sent " + what + "; does base_url name the right server and path?"}
}

// meta passes on the headers that a client may see.
func (p *Provider) meta(req *providers.Request, resp *http.Response) *streaming.MetaData {
	m := &streaming.MetaData{Header: http.Header{}}
	keep := []string{"Openai-Processing-Ms", "Openai-Version"}
	if req.Op == providers.Passthrough {
		keep = append(keep, "Content-Type", "Content-Disposition")
		m.Status = resp.StatusCode
	}
	for _, k := range keep {
		if v := resp.Header.Values(k); len(v) > 0 {
			m.Header[k] = v
		}
	}
	if req.Op == providers.Passthrough && isType(resp, "text/event-stream") {
		m.Header.Set("X-Accel-Buffering", "no") // nginx would hold the events back
		m.Header.Set("Cache-Control", "no-cache, no-transform")
	}
	return m
}
