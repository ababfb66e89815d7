// Package openai speaks to every server that has OpenAI's HTTP API: OpenAI itself,
// Azure-style deployments, vLLM, SGLang, llama.cpp, LM Studio, LocalAI, Ollama's
// /v1. Payloads of the caller's own dialect pass byte for byte when they are what
// every client can read, and are mended one by one when they are not.
package openai

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// Options describe one upstream.
type Options struct {
	// Upstream says where the server is. Its Header gets what every request carries; its
	// Name is what logs, errors and the x-sluice-target header call it.
	Upstream upstream.Options
	// APIKey is sent as Auth says: "bearer", "api-key" or "none".
	APIKey, Auth          string
	Organization, Project string
	// AskUsage asks for usage in every stream; off only for servers that refuse stream_options.
	AskUsage bool
	// Profile is what the server does otherwise than OpenAI.
	Profile Profile
	// Think splits the texts of chat completions; nil leaves thoughts in them.
	Think *kit.Think
	// EOS are texts that the server shows at the end of a stream and that are cut off
	// there. It is of use with a profile only.
	EOS []string
	// Drop leaves out what a profile cannot do, and says so in a header of the answer,
	// instead of refusing the request.
	Drop bool
	// Prefill is a JSON object whose members are added to chats that end with a message of the
	// assistant's, for servers that go on there only when they are told to; nil for none.
	Prefill   []byte
	MaxEvent  int // bytes of one streamed event
	MaxAnswer int // bytes of one answer that is held whole
}

// Provider talks to one upstream. It is safe for concurrent use.
type Provider struct {
	opt  Options
	name string
	up   *upstream.Client
}

// New returns a provider that dials nothing until it is used.
func New(opt Options) *Provider {
	opt.Upstream.Header = opt.sign()
	return &Provider{opt: opt, name: opt.Upstream.Name, up: upstream.New(opt.Upstream)}
}

// sign makes what every request to this upstream carries. What the configuration says
// in headers of its own comes last.
func (o *Options) sign() http.Header {
	h := http.Header{}
	if o.APIKey != "" {
		switch o.Auth {
		case "api-key":
			h.Set("Api-Key", o.APIKey)
		case "none":
		default:
			h.Set("Authorization", "Bearer "+o.APIKey)
		}
	}
	if o.Organization != "" {
		h.Set("OpenAI-Organization", o.Organization)
	}
	if o.Project != "" {
		h.Set("OpenAI-Project", o.Project)
	}
	maps.Copy(h, o.Upstream.Header)
	return h
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
		if req.Op == providers.Passthrough && strings.HasSuffix(req.Path, "/infer") {
			yield(nil, providers.Invalid("model", "The model "+req.Model+" takes no tensors: its upstream speaks OpenAI's API, not KServe's."))
			return
		}
		c, err := t.call(req, t.model)
		if err != nil {
			yield(nil, err)
			return
		}
		finished := false
		defer func() { c.settle(ctx, finished, prog) }()
		resp, err := t.send(ctx, req, &c)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { resp.Close(finished) }()
		finished = t.answer(req, &c, resp, prog, causal(ctx, yield))
	}
}

// call is what is asked for one request, and what is done to its answer here.
type call struct {
	body    []byte
	stream  bool        // a stream is asked for
	dropped http.Header // what the answer tells of parameters; nil: nothing

	stops, eos []string // text is searched for them
	came       string   // the type of the answer
	choices    int
	usage      *streaming.UsageData // of an answer that came at once

	// bound is how many tokens the server makes for this call although its caller has
	// gone; 0: it stops then.
	bound int64
	left  bool // the caller has gone, or wants no more
}

// noting tells the call how far its answer came.
func (c *call) noting(yield yielder) yielder {
	if c.bound == 0 {
		return yield
	}
	return func(batch []streaming.Event, err error) bool {
		for i := range batch {
			if batch[i].Kind == streaming.Text { // one for each token
				c.bound--
			}
		}
		c.left = !yield(batch, err) || c.left
		return !c.left
	}
}

// settle tells what an answer that was left may go on to cost.
func (c *call) settle(ctx context.Context, finished bool, prog *streaming.Progress) {
	if c.bound > 0 && !finished && (c.left || ctx.Err() != nil) {
		prog.AddUnstopped(c.bound)
	}
}

// filters reports whether texts are searched, and must be known for that.
func (c *call) filters() bool { return len(c.stops) > 0 || c.stream && len(c.eos) > 0 }

// filter takes off what the server leaves on, and ends choices at stop sequences. The
// thoughts in its texts have been told apart by the reader.
func (c *call) filter(src streaming.Stream) streaming.Stream {
	if c.stream { // only streams show the mark of the end
		src = kit.TrimEnd(src, c.eos)
	}
	return kit.Ends{Stops: c.stops, Choices: c.choices, Usage: func() *streaming.UsageData { return c.usage }}.Filter(src)
}

// call says what is sent: the caller's own body but for the model and the wish for usage,
// unless the profile has other ways.
func (p *Provider) call(req *providers.Request, model string) (call, error) {
	if p.opt.Profile == MII {
		return p.opt.askMII(req, model)
	}
	usage := p.opt.AskUsage && (req.Op == providers.Chat || req.Op == providers.Completions)
	body := req.Rewrite(model, usage)
	if len(p.opt.Prefill) > 0 && req.Op == providers.Chat && req.Needs().Has(providers.Prefill) {
		body = withMembers(body, p.opt.Prefill)
	}
	return call{body: body, stream: req.Stream}, nil
}

// withMembers puts the members of an object before those of a body, whose own win: of two of
// a name parsers take the last.
func withMembers(body, object []byte) []byte {
	object = bytes.TrimSpace(object)
	members := bytes.TrimSpace(object[1 : len(object)-1])
	if len(members) == 0 {
		return body
	}
	at := bytes.IndexByte(body, '{') + 1
	return slices.Concat(body[:at], members, []byte(","), body[at:])
}

// causal replaces an error by the reason for which ctx ended, if it has.
func causal(ctx context.Context, yield yielder) yielder {
	return func(batch []streaming.Event, err error) bool {
		if err != nil {
			err = upstream.Cause(ctx, err)
		}
		return yield(batch, err)
	}
}

// yielder is what a stream hands its batches to.
type yielder = func([]streaming.Event, error) bool

// answer reports whether the answer came to its true end, so that its connection
// can serve again.
func (p *Provider) answer(req *providers.Request, c *call, resp *upstream.Answer, prog *streaming.Progress, yield yielder) bool {
	if resp.Status < 200 || resp.Status > 299 {
		yield(nil, p.refusal(req.Path, resp))
		return true
	}
	meta := streaming.Event{Kind: streaming.Meta, Meta: p.meta(req, c, resp)}
	if !yield([]streaming.Event{meta}, nil) {
		return false
	}
	if !c.filters() {
		return p.relay(req, c, resp, prog, c.noting(yield))
	}
	finished := false
	c.filter(func(yield yielder) { finished = p.relay(req, c, resp, prog, c.noting(yield)) })(yield)
	return finished
}

// relay passes on the body of an answer that is no refusal.
func (p *Provider) relay(req *providers.Request, c *call, resp *upstream.Answer, prog *streaming.Progress, yield yielder) bool {
	switch {
	case req.Op == providers.Passthrough:
		return p.relayBytes(resp.Body, yield)
	case !req.Stream || resp.IsType("application/json"):
		return p.relayWhole(req, c, resp, yield)
	case resp.IsType("text/html"):
		yield(nil, p.protocolError("an HTML page instead of a stream"))
		return false
	case req.Op == providers.Responses:
		return p.relayResponses(req, resp.Body, prog, yield)
	default:
		c.came = resp.Header.Get("Content-Type")
		return p.relayEvents(req, c, resp.Body, prog, yield)
	}
}

func (p *Provider) protocolError(what string) *providers.Error { return protocolError(p.name, what) }

// meta passes on the headers that a client may see.
func (p *Provider) meta(req *providers.Request, c *call, resp *upstream.Answer) *streaming.MetaData {
	m := &streaming.MetaData{Header: http.Header{}}
	maps.Copy(m.Header, c.dropped)
	keep := []string{"Openai-Processing-Ms", "Openai-Version"}
	if req.Op == providers.Passthrough {
		keep = append(keep, "Content-Type", "Content-Disposition")
		m.Status = resp.Status
	}
	for _, k := range keep {
		if v := resp.Header.Values(k); len(v) > 0 {
			m.Header[k] = v
		}
	}
	if req.Op == providers.Passthrough && resp.IsType("text/event-stream") {
		m.Header.Set("X-Accel-Buffering", "no") // nginx would hold the events back
		m.Header.Set("Cache-Control", "no-cache, no-transform")
	}
	return m
}

// send makes the upstream's request from what it may see: nothing of the caller's
// headers but the type of the body. No request id is sent on: llama-cpp-python answers
// 400 to one that is no UUID.
func (p *Provider) send(ctx context.Context, req *providers.Request, c *call) (*upstream.Answer, error) {
	r := &upstream.Request{Method: http.MethodPost, Path: req.Path, ContentType: req.ContentType, Accept: "*/*", Body: c.body}
	if c.stream {
		r.Accept = "text/event-stream, application/json"
	}
	return p.up.Do(ctx, r)
}
