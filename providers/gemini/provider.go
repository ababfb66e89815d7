// Package gemini speaks Google's Gemini API: generateContent and its stream,
// batchEmbedContents and the list of models, at the developer API and at Vertex AI. It
// knows which of the models think, and in which form they are asked to.
package gemini

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// kind is how refusals name this adapter.
const kind = "gemini"

// Options describe one upstream.
type Options struct {
	// Upstream says where the server is. A base URL without a path gets /v1beta.
	Upstream upstream.Options
	// APIKey is sent as x-goog-api-key, or as Auth says: "bearer" or "none".
	APIKey, Auth string
	// Thinking is how models are asked to think: "level", "budget" or "off". Anything
	// else goes by the model's name.
	Thinking string
	Budgets  Budgets // of "budget"
	// Safety is the threshold of every category of harm, such as BLOCK_ONLY_HIGH; ""
	// leaves Google's own.
	Safety string
	// FetchURLs lets callers name any http(s) address of an image outside Google, which
	// Google then fetches.
	FetchURLs bool
	// NamedFiles lets callers name what Google keeps and reads with the gateway's
	// credential: gs:// addresses, files of the Files API, cached content. Each caller can
	// then read what the credential can.
	NamedFiles bool
	// Memory bounds, in bytes, the signatures that are kept for the next turn of callers
	// who answer a tool call; the oldest goes first. 0 keeps none.
	Memory int
	// Drop leaves out what the API cannot do, and says so in a header of the answer,
	// instead of refusing the request.
	Drop      bool
	MaxEvent  int // bytes of one streamed event
	MaxAnswer int // bytes of one answer that is held whole
}

// Budgets are tokens of thinking by effort.
type Budgets struct{ Low, Medium, High int64 }

// Provider talks to one upstream. It is safe for concurrent use.
type Provider struct {
	opt  Options
	name string
	host string // of the server, whose files it reads with the credential of the call
	up   *upstream.Client
	// memory keeps the signatures of function calls: models from version 3 on refuse a call
	// without one. What is not found is replaced by the word with which the API lets calls
	// of strangers pass.
	memory *kit.Memory[string]
}

// New returns a provider that dials nothing until it is used.
func New(opt Options) *Provider {
	p := &Provider{name: opt.Upstream.Name, memory: kit.NewMemory[string](opt.Memory)}
	if u, err := url.Parse(opt.Upstream.BaseURL); err == nil {
		p.host = strings.ToLower(u.Hostname())
		if strings.Trim(u.Path, "/") == "" {
			opt.Upstream.BaseURL = u.JoinPath("v1beta").String()
		}
	}
	opt.Upstream.Header = opt.sign()
	p.opt, p.up = opt, upstream.New(opt.Upstream)
	return p
}

// sign makes what every request to this upstream carries. The key goes into a header
// and never into the URL, which ends up in logs.
func (o *Options) sign() http.Header {
	h := http.Header{}
	switch {
	case o.APIKey == "" || o.Auth == "none":
	case o.Auth == "bearer":
		h.Set("Authorization", "Bearer "+o.APIKey)
	default:
		h.Set("X-Goog-Api-Key", o.APIKey)
	}
	maps.Copy(h, o.Upstream.Header)
	return h
}

// Target returns a Provider that asks this upstream for one model, whatever name the
// caller used.
func (p *Provider) Target(model string) providers.Provider {
	t := target{Provider: p, model: model}
	t.can = t.capabilities()
	return t
}

type target struct {
	*Provider
	model string
	can   providers.Capabilities
}

// path is where a method of the model is called.
func (t target) path(method string) string {
	name := t.model
	if !strings.Contains(name, "/") {
		name = "models/" + name
	}
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/" + strings.Join(parts, "/") + ":" + method
}

// yielder is what a stream hands its batches to.
type yielder = func([]streaming.Event, error) bool

// Stream implements providers.Provider.
func (t target) Stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		out := func(batch []streaming.Event, err error) bool {
			if err != nil {
				err = upstream.Cause(ctx, err)
			}
			return yield(batch, err)
		}
		if req.Op == providers.Embeddings {
			t.embed(ctx, req, out)
			return
		}
		r, err := t.translate(req)
		if err != nil {
			out(nil, err)
			return
		}
		if req.Stream && !r.stream && !out(nil, nil) { // headers come with the whole answer: from now on the first token is awaited
			return
		}
		resp, err := t.send(ctx, r)
		if err != nil {
			out(nil, err)
			return
		}
		finished := false
		defer func() { resp.Close(finished) }()
		finished = t.answer(r, resp, prog, out)
	}
}

// send sends the request.
func (t target) send(ctx context.Context, r *request) (*upstream.Answer, error) {
	body, err := r.encode(&r.out)
	if err != nil {
		return nil, err
	}
	send := &upstream.Request{Method: http.MethodPost, Path: t.path(r.method()), ContentType: "application/json", Accept: "application/json", Body: body}
	if r.stream {
		send.Path, send.Accept = send.Path+"?alt=sse", "text/event-stream, application/json"
	}
	return t.up.Do(ctx, send)
}

// method is what answers the request.
func (r *request) method() string {
	if r.stream {
		return "streamGenerateContent"
	}
	return "generateContent"
}

// answer reports whether the answer came to its true end, so that its connection can
// serve again.
func (t target) answer(r *request, resp *upstream.Answer, prog *streaming.Progress, yield yielder) bool {
	if resp.Status != http.StatusOK {
		yield(nil, t.refusal(t.path(r.method()), resp))
		return true
	}
	if resp.IsType("text/html") {
		yield(nil, t.protocolError("an HTML page"))
		return false
	}
	if !yield([]streaming.Event{{Kind: streaming.Meta, Meta: &streaming.MetaData{Header: r.asked.Header()}}}, nil) {
		return false
	}
	if resp.IsType("text/event-stream") {
		return t.relay(r, resp.Body, prog, yield)
	}
	return t.relayWhole(r, resp.Body, prog, yield)
}
