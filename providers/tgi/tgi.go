// Package tgi speaks the native API of Hugging Face's Text Generation Inference:
// /generate_stream, /generate and /info. The server takes one prompt, so conversations
// are put into one by a chat template here. Its OpenAI-compatible layer, which has
// tools, is served by the adapter of that protocol.
package tgi

import (
	"context"
	"net/http"
	"strings"
	"time"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// Options describe one upstream.
type Options struct {
	// Upstream says where the server is; its base URL is the server's root.
	Upstream upstream.Options
	// Template makes the prompt of a conversation. Nil refuses conversations.
	Template *kit.Template
	// Think tells the thoughts in a chat's text from the answer. Nil leaves them in it.
	Think *kit.Think
	// Images says that the model sees images. They travel inside the prompt.
	Images bool
	// Parameters is a JSON object of the server's parameters that every call carries;
	// what the caller asks for goes before it. Nil: none.
	Parameters []byte
	// Drop leaves out what the server cannot do, and says so in a header of the answer,
	// instead of refusing the request.
	Drop      bool
	MaxEvent  int // bytes of one event of a stream
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
	return &Provider{opt: opt, name: opt.Upstream.Name, up: upstream.New(opt.Upstream)}
}

// Target returns a Provider that asks this upstream under the name of one model. The
// server has one model, and is not told of the name.
func (p *Provider) Target(model string) providers.Provider { return target{p, model} }

type target struct {
	*Provider
	model string
}

// yielder is what a stream hands its batches to.
type yielder = func([]streaming.Event, error) bool

func (t target) Stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	r, err := t.translate(req)
	if err != nil {
		return func(yield func([]streaming.Event, error) bool) { yield(nil, err) }
	}
	return t.thoughtful(r, func(yield func([]streaming.Event, error) bool) {
		resp, err := t.up.Do(ctx, &upstream.Request{
			Method: http.MethodPost, Path: r.path, ContentType: "application/json",
			Accept: "text/event-stream, application/json", Body: r.body(),
		})
		if err != nil {
			yield(nil, err)
			return
		}
		finished := false
		defer func() { resp.Close(finished) }()
		finished = t.answer(r, resp, prog, func(batch []streaming.Event, err error) bool {
			if err != nil {
				err = upstream.Cause(ctx, err)
			}
			return yield(batch, err)
		})
	})
}

// answer reports whether the answer came to its true end, so that its connection can
// serve again.
func (t target) answer(r *request, resp *upstream.Answer, prog *streaming.Progress, yield yielder) bool {
	want := "application/json"
	if r.stream {
		want = "text/event-stream"
	}
	switch {
	case resp.Status != http.StatusOK:
		yield(nil, t.refusal(r.path, resp))
		return true
	case !resp.IsType(want) && !resp.IsType("application/json"):
		yield(nil, notTGI(t.name, r.path, "an answer of type "+resp.Header.Get("Content-Type")))
		return false
	case !yield([]streaming.Event{t.meta(r)}, nil):
		return false
	case r.stream && resp.IsType(want):
		return t.relay(r, resp.Body, prog, yield)
	default:
		return t.relayWhole(r, resp.Header.Get("X-Prompt-Tokens"), resp.Body, yield)
	}
}

// meta makes the identity of an answer, for the server gives it none.
func (t target) meta(r *request) streaming.Event {
	prefix := "cmpl-"
	if r.req.Op == providers.Chat {
		prefix = "chatcmpl-"
	}
	m := &streaming.MetaData{ID: prefix + strings.TrimPrefix(r.req.ID, "req_"), Created: time.Now().Unix(), Model: t.model, Header: r.asked.Header()}
	if r.req.PresentAs != "" {
		m.Model = r.req.PresentAs
	}
	return streaming.Event{Kind: streaming.Meta, Meta: m}
}
