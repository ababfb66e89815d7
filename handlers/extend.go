package handlers

import (
	"context"
	"errors"
	"net/http"

	"sluice/ratelimit"
	"sluice/streaming"
)

// extendBy is how many output tokens are taken at once for an answer that outgrows its
// estimate.
const extendBy = 256

// budgetExhausted ends an answer that a hard budget has nothing left for.
type budgetExhausted struct{ *ratelimit.Denied }

func (e *budgetExhausted) Unwrap() error { return e.Denied }

// overCap and an eighth are how far the deltas of an answer may exceed the cap that its
// caller declared: the upstream holds to the cap, but a token may come as two deltas.
const overCap = 8

// extend takes more from hard budgets for an answer that has outgrown what was reserved,
// by the deltas that have come, or by what the upstream told. The estimate by bytes would
// end answers that cost no more than is reserved. A store that cannot be reached ends no
// answer.
func (a *account) extend(ctx context.Context, deltas int64) error {
	out := deltas
	if r := a.p.Report(); r.Reported {
		out = max(out, r.Usage.Completion)
	}
	if out <= a.allowed {
		return nil
	}
	more := (out - a.allowed + extendBy - 1) / extendBy * extendBy
	a.allowed += more
	err := a.quota.Limiter.Extend(ctx, &a.call, ratelimit.Cost{Output: more, Money: a.priceAt(a.p.Report().Target).Cost(0, 0, more)})
	if d := new(ratelimit.Denied); errors.As(err, &d) {
		a.levels = levelsOver(d)
		a.obs.denied(d)
		return &budgetExhausted{d}
	}
	return nil
}

// guarded ends a stream when a hard budget has nothing left for it.
func (a *account) guarded(ctx context.Context, src streaming.Stream) streaming.Stream {
	if !a.hard {
		return src
	}
	return func(yield func([]streaming.Event, error) bool) {
		var deltas int64
		for batch, err := range src {
			deltas += deltasIn(batch) // before the batch is gone
			last := len(batch) > 0 && endsAnswer(&batch[len(batch)-1])
			if !yield(batch, err) || err != nil {
				return
			}
			if last {
				continue // there is nothing left to save
			}
			if err := a.extend(ctx, deltas); err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

func deltasIn(batch []streaming.Event) (n int64) {
	for i := range batch {
		switch batch[i].Kind {
		case streaming.Text, streaming.Reasoning, streaming.ToolCall:
			n++
		default:
		}
	}
	return n
}

func endsAnswer(ev *streaming.Event) bool {
	return ev.Stop != "" || ev.Kind == streaming.Usage || ev.Kind == streaming.Whole
}

// till is a sink that settles before the client learns of the end.
type till struct {
	streaming.Sink
	ctx    context.Context
	a      *account
	header http.Header // of an answer over HTTP
}

// Send settles before a whole body, which is its own end.
func (t *till) Send(batch []streaming.Event) error {
	if len(batch) > 0 && batch[len(batch)-1].Kind == streaming.Whole {
		t.settle(nil)
	}
	return t.Sink.Send(batch)
}

// End settles an answer that ended with err.
func (t *till) End(err error) error {
	t.settle(err)
	return t.Sink.End(err)
}

// settle also corrects the headers about limits, if they have not gone out.
func (t *till) settle(err error) {
	t.a.settle(t.ctx, err)
	if s, ok := t.Sink.(interface{ Started() bool }); ok && !s.Started() {
		t.a.tell(t.header)
	}
}
