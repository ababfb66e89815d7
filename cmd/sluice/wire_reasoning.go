package main

import (
	"context"
	"net/http"

	"sluice/handlers/dialect"
	"sluice/providers"
	"sluice/providers/router"
	"sluice/streaming"
)

// presentation is a target whose reasoning is presented in another way than usual. It
// tells the encoders so, in the answer's first Meta, and has bodies that came complete
// rewritten, which pass no encoder.
type presentation struct {
	providers.Provider
	how string
}

// presented wraps a target, or gives the one that it wraps another way; "" leaves it.
func presented(p providers.Provider, how string) providers.Provider {
	if how == "" {
		return p
	}
	if old, is := p.(presentation); is {
		p = old.Provider
	}
	if how == dialect.ReasoningContent {
		return p
	}
	return presentation{p, how}
}

// presenting is presented for every target of an upstream.
func presenting(target func(model string) providers.Provider, how string) func(model string) providers.Provider {
	return func(model string) providers.Provider { return presented(target(model), how) }
}

func (p presentation) Stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	src := p.Provider.Stream(ctx, req, prog)
	if req.Op != providers.Chat && req.Op != providers.Completions {
		return src
	}
	return func(yield func([]streaming.Event, error) bool) {
		told := false
		src(func(batch []streaming.Event, err error) bool {
			for i := range batch {
				switch ev := &batch[i]; {
				case ev.Kind == streaming.Whole:
					ev.Raw = dialect.Present(req.Op, ev.Raw, p.how)
				case ev.Meta != nil && !told:
					told = true
					p.tell(ev)
				}
			}
			return yield(batch, err)
		})
	}
}

func (p presentation) tell(ev *streaming.Event) {
	h := ev.Meta.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set(dialect.ReasoningHeader, p.how)
	m := *ev.Meta
	m.Header = h
	ev.Meta = &m
}

// Capabilities implements router.Capable for the target inside.
func (p presentation) Capabilities(ctx context.Context, of providers.Feature) (can providers.Capabilities) {
	if c, ok := p.Provider.(router.Capable); ok {
		can = c.Capabilities(ctx, of)
	}
	return can
}
