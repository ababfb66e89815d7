// Package anthropic speaks Anthropic's Messages API, POST /v1/messages and
// GET /v1/models, and knows which of its models take which parameters. OpenAI's chat
// and, with one prompt, completions are translated into it and back.
package anthropic

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// Options describe one upstream.
type Options struct {
	// Upstream says where the server is. A base URL without a path gets /v1.
	Upstream upstream.Options
	// APIKey is sent as x-api-key, or as Auth says: "bearer" or "none".
	APIKey, Auth string
	Version      string   // anthropic-version
	Betas        []string // anthropic-beta
	// MaxTokens bounds answers whose caller set no bound, which the API demands; 0 takes
	// as much as the model has.
	MaxTokens int64
	// Thinking is how models are asked to think: "adaptive", "budget" or "off". Anything
	// else goes by the model's name.
	Thinking string
	Budgets  Budgets // of "budget"
	// Sampling says whether temperature, top_p and top_k are sent: "send" or "drop".
	// Anything else goes by the version and the model's name.
	Sampling string
	// Structured is how a JSON schema is enforced: "native", "tool" (the input of a tool
	// that must be called) or "off". Anything else goes by the model's name.
	Structured string
	// Memory bounds, in bytes, the thinking that is kept for the next turn of callers who
	// answer a tool call; the oldest goes first. 0 keeps none.
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
	up   *upstream.Client
	// memory keeps the thinking that led to a tool call: the API wants it unchanged and
	// signed. What is not found is left out of the request, which the API takes when it is
	// left out as a whole.
	memory *kit.Memory[[]block]
}

// New returns a provider that dials nothing until it is used.
func New(opt Options) *Provider {
	opt.Upstream.BaseURL = withPath(opt.Upstream.BaseURL, "/v1")
	opt.Upstream.Header = opt.sign()
	return &Provider{opt: opt, name: opt.Upstream.Name, up: upstream.New(opt.Upstream), memory: kit.NewMemory[[]block](opt.Memory)}
}

// withPath adds a path to a URL that has none.
func withPath(base, path string) string {
	if u, err := url.Parse(base); err == nil && strings.Trim(u.Path, "/") == "" {
		return u.JoinPath(path).String()
	}
	return base
}

// sign makes what every request to this upstream carries. What the configuration says
// in headers of its own comes last.
func (o *Options) sign() http.Header {
	h := http.Header{"Anthropic-Version": {o.Version}}
	if len(o.Betas) > 0 {
		h.Set("Anthropic-Beta", strings.Join(o.Betas, ","))
	}
	switch {
	case o.APIKey == "" || o.Auth == "none":
	case o.Auth == "bearer":
		h.Set("Authorization", "Bearer "+o.APIKey)
	default:
		h.Set("X-Api-Key", o.APIKey)
	}
	for k, v := range o.Upstream.Header {
		h[k] = v
	}
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

// yielder is what a stream hands its batches to.
type yielder = func([]streaming.Event, error) bool

// Stream implements providers.Provider.
func (t target) Stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		a, resp, err := t.open(ctx, req)
		if err != nil {
			yield(nil, upstream.Cause(ctx, err))
			return
		}
		finished := false
		defer func() { resp.Close(finished) }()
		finished = t.answer(a, resp, prog, func(batch []streaming.Event, err error) bool {
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
	body, err := a.body()
	if err != nil {
		return nil, nil, err
	}
	r := &upstream.Request{Method: http.MethodPost, Path: messagesPath, ContentType: "application/json", Accept: "application/json", Body: body}
	if req.Stream {
		r.Accept = "text/event-stream, application/json"
	}
	resp, err := t.up.Do(ctx, r)
	return a, resp, err
}

// answer reports whether the answer came to its true end, so that its connection can
// serve again.
func (t target) answer(a *request, resp *upstream.Answer, prog *streaming.Progress, yield yielder) bool {
	if resp.Status != http.StatusOK {
		yield(nil, t.refusal(messagesPath, resp))
		return true
	}
	if resp.IsType("text/html") {
		yield(nil, t.protocolError("an HTML page"))
		return false
	}
	if !yield([]streaming.Event{{Kind: streaming.Meta, Meta: &streaming.MetaData{Header: a.header()}}}, nil) {
		return false
	}
	if resp.IsType("text/event-stream") {
		return t.relay(a, resp.Body, prog, yield)
	}
	return t.relayWhole(a, resp.Body, prog, yield)
}

// messagesPath is where the API is asked.
const messagesPath = "/messages"

// droppedHeader names the parameters that the upstream was not sent.
const droppedHeader = "X-Sluice-Dropped-Params"

func (a *request) header() http.Header {
	h := a.asked.Header()
	if len(a.dropped) == 0 {
		return h
	}
	all := a.dropped
	if first := h.Get(droppedHeader); first != "" {
		all = slices.Concat([]string{first}, all)
	}
	return http.Header{droppedHeader: {strings.Join(all, ", ")}}
}
