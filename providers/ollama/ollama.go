// Package ollama speaks Ollama's own API: /api/chat, /api/generate, /api/embed and
// /api/tags. It gives what Ollama's OpenAI-compatible layer leaves out: options such as
// num_ctx, keep_alive, errors in the middle of a stream, and thinking that can be
// switched off.
package ollama

import (
	"bytes"
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
	// KeepAlive is how long a model stays loaded after a call, as Ollama takes it: a
	// duration ("5m") or seconds ("300"), "-1" for ever, "0" not at all. "" leaves it to
	// the server, and a caller's own keep_alive goes before it.
	KeepAlive string
	// ModelOptions is a JSON object of Ollama's options that every call carries, such as
	// {"num_ctx":8192}; what the caller asks for goes before it. Nil: none.
	ModelOptions []byte
	// Think tells the thoughts in a chat's text from the answer, where Ollama has not: it
	// parses those of models whose template it understands, and of no model before version
	// 0.9. Nil leaves them in it.
	Think *kit.Think
	// Raw sends the prompts of /completions without the model's template.
	Raw bool
	// Drop leaves out what Ollama cannot do, and says so in a header of the answer,
	// instead of refusing the request.
	Drop      bool
	MaxEvent  int // bytes of one line of a stream
	MaxAnswer int // bytes of one answer that is held whole
}

// Provider talks to one upstream. It is safe for concurrent use.
type Provider struct {
	opt   Options
	name  string
	up    *upstream.Client
	shown shown
}

// New returns a provider that dials nothing until it is used.
func New(opt Options) *Provider {
	return &Provider{opt: opt, name: opt.Upstream.Name, up: upstream.New(opt.Upstream)}
}

// Target returns a Provider that asks this upstream for one model, whatever name the
// caller used.
func (p *Provider) Target(model string) providers.Provider { return target{p, model} }

type target struct {
	*Provider
	model string
}

// yielder is what a stream hands its batches to.
type yielder = func([]streaming.Event, error) bool

func (t target) Stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	return t.thinking(req, t.stream(ctx, req, prog))
}

// thinking tells the thoughts in the text of a chat apart.
func (t target) thinking(req *providers.Request, src streaming.Stream) streaming.Stream {
	if t.opt.Think == nil || req.Op != providers.Chat {
		return src
	}
	return t.opt.Think.Filter(src)
}

func (t target) stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		a, resp, err := t.open(ctx, req)
		if err != nil {
			yield(nil, upstream.Cause(ctx, err))
			return
		}
		finished := false
		defer func() { resp.Close(finished) }()
		finished = t.answer(req, a, resp, prog, func(batch []streaming.Event, err error) bool {
			if err != nil {
				err = upstream.Cause(ctx, err)
			}
			return yield(batch, err)
		})
	}
}

// open translates the request and sends it.
func (t target) open(ctx context.Context, req *providers.Request) (*request, *upstream.Answer, error) {
	a, err := t.translate(req)
	if err != nil {
		return nil, nil, err
	}
	if err := t.suits(ctx, a); err != nil {
		return nil, nil, err
	}
	resp, err := t.up.Do(ctx, &upstream.Request{
		Method: http.MethodPost, Path: a.path, ContentType: "application/json",
		Accept: "application/x-ndjson, application/json", Body: a.body(),
	})
	return a, resp, err
}

// answer reports whether the answer came to its true end, so that its connection can
// serve again.
func (t target) answer(req *providers.Request, a *request, resp *upstream.Answer, prog *streaming.Progress, yield yielder) bool {
	if resp.Status != http.StatusOK {
		yield(nil, t.refusal(a.path, resp))
		return true
	}
	if resp.IsType("text/html") || resp.IsType("text/event-stream") {
		yield(nil, t.notOllama(a.path, "an answer of type "+resp.Header.Get("Content-Type")))
		return false
	}
	a.came = resp.Header.Get("Content-Type")
	if !yield([]streaming.Event{t.meta(req, a)}, nil) {
		return false
	}
	if req.Op == providers.Embeddings {
		return t.relayEmbeddings(req, a, resp.Body, yield)
	}
	return t.relay(req, a, resp.Body, prog, yield)
}

// meta makes the identity of an answer, for Ollama gives it none.
func (t target) meta(req *providers.Request, a *request) streaming.Event {
	prefix := "cmpl-"
	if req.Op == providers.Chat {
		prefix = "chatcmpl-"
	}
	m := &streaming.MetaData{ID: prefix + strings.TrimPrefix(req.ID, "req_"), Created: time.Now().Unix(), Model: t.present(req), Header: a.asked.Header()}
	return streaming.Event{Kind: streaming.Meta, Meta: m}
}

// present is the model's name as the caller is told.
func (t target) present(req *providers.Request) string {
	if req.PresentAs != "" {
		return req.PresentAs
	}
	return t.model
}

func isNull(v []byte) bool { return len(v) == 0 || bytes.Equal(v, []byte("null")) }
