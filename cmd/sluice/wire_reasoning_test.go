package main

import (
	"context"
	"testing"

	"sluice/handlers/dialect"
	"sluice/providers"
	"sluice/providers/router"
	"sluice/streaming"
)

// knowing is a target that knows what it can do.
type knowing struct{ of providers.Feature }

func (*knowing) Stream(context.Context, *providers.Request, *streaming.Progress) streaming.Stream {
	return func(func([]streaming.Event, error) bool) {}
}

func (k *knowing) Capabilities(_ context.Context, of providers.Feature) providers.Capabilities {
	k.of = of
	return providers.Capabilities{Yes: providers.Vision, No: providers.Tools, Dropped: providers.Logprobs, Model: providers.Tools, Set: providers.Suffix, Kind: "toy"}
}

// A target whose reasoning is presented in another way can do what it could before, all
// of it, as the router sees it.
func TestPresentedCapabilities(t *testing.T) {
	inside := &knowing{}
	for _, how := range []string{"", dialect.ReasoningContent, dialect.ReasoningBoth, dialect.ReasoningInline} {
		inside.of = 0
		outside := &router.Target{Name: "up/m", Provider: presented(presented(inside, dialect.ReasoningInline), how)}
		if got, want := outside.Capabilities(t.Context(), providers.Vision|providers.Tools), inside.Capabilities(t.Context(), 0).Configured(0, 0); got != want {
			t.Errorf("%q: %+v, want %+v", how, got, want)
		}
		inside.of = 0
		outside.Capabilities(t.Context(), providers.Vision)
		if inside.of != providers.Vision {
			t.Errorf("%q: the target was asked about %v", how, inside.of)
		}
	}
	silent := struct{ providers.Provider }{inside}
	if got := presented(silent, dialect.ReasoningInline).(presentation).Capabilities(t.Context(), providers.All); got != (providers.Capabilities{}) {
		t.Errorf("a target that knows nothing: %+v", got)
	}
}
