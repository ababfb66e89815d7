package router

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// picky is a target whose adapter refuses what it was asked, or leaves it out.
type picky struct {
	fake
	refuses string // "" serves everything
	drops   bool
	judged  int
}

func (p *picky) Stream(ctx context.Context, req *providers.Request, prog *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		if p.judged++; p.refuses != "" && (req.Strict || !p.drops) {
			yield(nil, providers.Invalid("top_k", p.refuses))
			return
		}
		p.fake.Stream(ctx, req, prog)(yield)
	}
}

func serves(scripts ...[]streamtest.Step) *picky {
	return &picky{fake: fake{scripts: append(scripts, done)}}
}

func picks(all ...*picky) *Pool {
	p := poolOf(make([]*fake, len(all))...)
	for i := range all {
		p.Targets[i].Provider, p.Targets[i].Weight = all[i], 1
	}
	return p
}

// gateCount counts what it is asked, and that all is given back.
type gateCount struct{ asked, held int }

func (g *gateCount) Acquire(context.Context, *Try) (func(Spent), error) {
	g.asked++
	g.held++
	return func(Spent) { g.held-- }, nil
}

// Which target is chosen first does not decide whether a request is served: targets
// whose adapters refuse it are passed over, and none of them counts as an attempt.
func TestRefusedElsewhere(t *testing.T) {
	opt := options()
	opt.Tries = 1
	for range 40 {
		no, yes := &picky{refuses: "no top_k"}, serves()
		gate := &gateCount{}
		opt.Gate = gate
		pool := picks(no, yes, &picky{refuses: "none"})
		got, prog, err := askFor(t.Context(), opt, pool, request(t, plainChat))
		if r := prog.Report(); err != nil || got == "" || yes.calls != 1 || r.Attempts != 1 || r.Target != "t1" || gate.held != 0 {
			t.Fatalf("%q, %v, %d calls, %+v, %d places held", got, err, yes.calls, r, gate.held)
		}
		if most := pool.budget.most(opt.Budget); pool.budget.tokens < most {
			t.Errorf("%g retries are left of %g", pool.budget.tokens, most)
		}
	}
}

// When all refuse, the first one's reason is told, whichever was asked first.
func TestRefusedByAll(t *testing.T) {
	for range 40 {
		pool := picks(&picky{refuses: "first."}, &picky{refuses: "second."})
		_, prog, err := askFor(t.Context(), options(), pool, request(t, plainChat))
		e := providers.AsError(err)
		if e == nil || e.Kind != providers.BadRequest || e.Message != "first. None of the model's 2 targets can serve this request." || e.Param != "top_k" {
			t.Fatalf("%+v", e)
		}
		if prog.Report().Attempts != 0 || !pool.budget.at.IsZero() {
			t.Errorf("%d attempts; a refused request counts as a call", prog.Report().Attempts)
		}
	}
	one := &picky{refuses: "alone."}
	if _, _, err := askFor(t.Context(), options(), picks(one), request(t, plainChat)); providers.AsError(err).Message != "alone." || one.judged != 1 {
		t.Errorf("%v, asked %d times", err, one.judged)
	}
}

// A target that leaves something out is used when no other can serve the request whole.
func TestDropsLast(t *testing.T) {
	for range 40 {
		drops, whole := &picky{fake: serves().fake, refuses: "no", drops: true}, serves()
		if _, _, err := askFor(t.Context(), options(), picks(drops, whole), request(t, plainChat)); err != nil || drops.calls != 0 || whole.calls != 1 {
			t.Fatalf("%v, %d and %d calls", err, drops.calls, whole.calls)
		}
		drops.calls = 0
		if _, prog, err := askFor(t.Context(), options(), picks(drops, &picky{refuses: "no"}), request(t, plainChat)); err != nil || drops.calls != 1 || prog.Report().Attempts != 1 {
			t.Fatalf("%v, %d calls", err, drops.calls)
		}
		alone := &picky{fake: serves().fake, refuses: "no", drops: true}
		if _, _, err := askFor(t.Context(), options(), picks(alone), request(t, plainChat)); err != nil || alone.judged != 1 {
			t.Fatalf("%v, judged %d times", err, alone.judged)
		}
	}
}

// The failure of a target that could have served the request is what a caller hears of,
// and that target has all tries.
func TestRefusedAndFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 {
			sick := &picky{fake: fake{scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamFailed))}}}
			_, _, err := askFor(t.Context(), options(), picks(&picky{refuses: "no", drops: true}, sick), request(t, plainChat))
			if e := providers.AsError(err); e == nil || e.Kind != providers.UpstreamFailed || sick.calls != 3 {
				t.Fatalf("%v after %d calls", err, sick.calls)
			}
			gone := &picky{fake: fake{scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamCredential))}}}
			_, _, err = askFor(t.Context(), options(), picks(&picky{refuses: "no"}, gone), request(t, plainChat))
			if e := providers.AsError(err); e == nil || e.Kind != providers.UpstreamCredential || !strings.Contains(e.Target, "t1") {
				t.Fatalf("%v", err)
			}
		}
	})
}
