package router

import (
	"context"
	"fmt"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

func BenchmarkPick100(b *testing.B) {
	weights := make([]int, 100)
	for i := range weights {
		weights[i] = 1 + i%3
	}
	for i := range balances {
		p := plainPool(weights...)
		p.Balance = Balance(i)
		cfg := defaultBreaker()
		for _, t := range p.Targets {
			tell(t.state(), &cfg, true)
		}
		req := asking("x")
		b.Run(balances[i], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				q := query{tried: new(set), shut: new(set), now: uptime(), cfg: &cfg, req: req}
				p.pick(&q)
			}
		})
	}
}

// BenchmarkRoute100 is all that the router does for one request among 100 targets before
// the adapter is called, and after its answer.
func BenchmarkRoute100(b *testing.B) {
	for _, n := range []int{1, 2, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := plainPool(make([]int, n)...)
			p.Balance = BalanceTwoChoices
			for _, t := range p.Targets {
				t.Provider, t.Phases, t.Weight = instant{}, phasesForTest, 1
			}
			benchmarkRouter(b, p)
		})
	}
}

// instant answers at once and costs next to nothing.
type instant struct{}

var oneText = []streaming.Event{{Kind: streaming.Text, Raw: []byte("x")}}

func (instant) Stream(context.Context, *providers.Request, *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) { yield(oneText, nil) }
}

func benchmarkRouter(b *testing.B, p *Pool) {
	opt := options()
	opt.Breaker = defaultBreaker()
	r := New(onePool{p}, opt)
	req, prog := &providers.Request{Model: "m"}, streaming.NewProgress(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range r.Stream(b.Context(), req, prog) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// knowing is an instant that knows what it can do.
type knowing struct{ instant }

func (knowing) Capabilities(context.Context, providers.Feature) providers.Capabilities {
	return providers.Capabilities{Yes: providers.Tools}
}

// BenchmarkRouteCapable is BenchmarkRoute100 where each target is asked what it can do.
func BenchmarkRouteCapable(b *testing.B) {
	p := plainPool(make([]int, 100)...)
	p.Balance = BalanceTwoChoices
	for _, t := range p.Targets {
		t.Provider, t.Phases, t.Weight = knowing{}, phasesForTest, 1
	}
	benchmarkRouter(b, p)
}
