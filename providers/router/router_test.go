package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// fake is a provider whose n-th call plays the n-th script; the last one repeats.
type fake struct {
	scripts [][]streamtest.Step
	calls   int
	at      []time.Time
}

func (f *fake) Stream(ctx context.Context, _ *providers.Request, _ *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		i := min(f.calls, len(f.scripts)-1)
		f.calls++
		f.at = append(f.at, time.Now())
		for b, err := range streamtest.Stream(ctx, f.scripts[i]...) {
			if !yield(b, err) {
				return
			}
		}
	}
}

func script(steps ...streamtest.Step) []streamtest.Step { return steps }

var (
	meta = streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Meta, Meta: &streaming.MetaData{ID: "x"}}}}
	role = streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Lifecycle, Raw: []byte("role")}}}
	done = script(meta, role, streamtest.Step{Batch: streamtest.Text(0, "hello")})
)

func fails(e *providers.Error) []streamtest.Step { return script(streamtest.Step{Err: e}) }

func upstream(kind providers.ErrorKind) *providers.Error {
	return &providers.Error{Kind: kind, Message: "no"}
}

var phasesForTest = Phases{Headers: 30 * time.Second, FirstToken: 2 * time.Minute, Between: time.Minute, Silence: 5 * time.Minute}

func options() Options {
	return Options{Tries: 3, BackoffMin: 50 * time.Millisecond, BackoffMax: time.Second, RetryAfterMax: 5 * time.Second,
		Budget: Budget{Share: 0.1, PerSecond: 3}, HoldEvents: 64, HoldBytes: 256 << 10, FirstFailover: 30 * time.Second, FailoverPer1K: time.Second}
}

type onePool struct{ pool *Pool }

func (o onePool) Resolve(context.Context, string) (*Pool, error) { return o.pool, nil }

func poolOf(fakes ...*fake) *Pool {
	p := &Pool{Model: "m"}
	for i, f := range fakes {
		weight := 0 // only the first is chosen while it is fresh
		if i == 0 {
			weight = 1
		}
		p.Targets = append(p.Targets, &Target{Name: fmt.Sprintf("t%d", i), Provider: f, Phases: phasesForTest, Weight: weight})
	}
	return p
}

// ask runs one streamed answer and returns its content, its progress and its error.
func ask(t *testing.T, ctx context.Context, opt Options, p *Pool) (string, *streaming.Progress, error) {
	t.Helper()
	return askFor(ctx, opt, p, &providers.Request{Model: "m", Stream: true})
}

func askFor(ctx context.Context, opt Options, p *Pool, req *providers.Request) (string, *streaming.Progress, error) {
	prog := streaming.NewProgress(time.Now())
	var out strings.Builder
	var end error
	for batch, err := range New(onePool{p}, opt).Stream(ctx, req, prog) {
		if err != nil {
			end = err
		}
		for _, ev := range batch {
			out.Write(ev.Raw)
			out.WriteByte(' ')
		}
	}
	return strings.TrimSpace(out.String()), prog, end
}

func TestTries(t *testing.T) {
	busy := &providers.Error{Kind: providers.RateLimited, Message: "slow down", RetryAfter: 3 * time.Second}
	broke := &providers.Error{Kind: providers.RateLimited, Code: "insufficient_quota", Message: "no credit"}
	long := &providers.Error{Kind: providers.RateLimited, Message: "slow down", RetryAfter: 30 * time.Second}
	for name, c := range map[string]struct {
		targets []*fake
		want    string
		kind    providers.ErrorKind
		calls   []int
		least   time.Duration
		most    time.Duration
	}{
		"good at once":                  {[]*fake{{scripts: [][]streamtest.Step{done}}}, "role hello", 0, []int{1}, 0, 0},
		"once more on the same":         {[]*fake{{scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamFailed)), done}}}, "role hello", 0, []int{2}, 0, 50 * time.Millisecond},
		"three tries in all":            {[]*fake{{scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamFailed))}}}, "", providers.UpstreamFailed, []int{3}, 0, 150 * time.Millisecond},
		"the other target first":        {[]*fake{{scripts: [][]streamtest.Step{fails(upstream(providers.Overloaded))}}, {scripts: [][]streamtest.Step{done}}}, "role hello", 0, []int{1, 1}, 0, 50 * time.Millisecond},
		"a refusal is final":            {[]*fake{{scripts: [][]streamtest.Step{fails(upstream(providers.Passed))}}, {scripts: [][]streamtest.Step{done}}}, "", providers.Passed, []int{1, 0}, 0, 0},
		"a bad credential, elsewhere":   {[]*fake{{scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamCredential))}}, {scripts: [][]streamtest.Step{done}}}, "role hello", 0, []int{1, 1}, 0, 50 * time.Millisecond},
		"a bad credential, alone":       {[]*fake{{scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamCredential))}}}, "", providers.UpstreamCredential, []int{1}, 0, 0},
		"no credit left, elsewhere":     {[]*fake{{scripts: [][]streamtest.Step{fails(broke)}}, {scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamFailed)), done}}}, "role hello", 0, []int{1, 2}, 0, 2 * time.Second},
		"no credit left, alone":         {[]*fake{{scripts: [][]streamtest.Step{fails(broke)}}}, "", providers.RateLimited, []int{1}, 0, 0},
		"a short wish is waited for":    {[]*fake{{scripts: [][]streamtest.Step{fails(busy), done}}}, "role hello", 0, []int{2}, 3 * time.Second, 3 * time.Second},
		"a long wish means elsewhere":   {[]*fake{{scripts: [][]streamtest.Step{fails(long)}}, {scripts: [][]streamtest.Step{done}}}, "role hello", 0, []int{1, 1}, 0, 50 * time.Millisecond},
		"a long wish and nowhere to go": {[]*fake{{scripts: [][]streamtest.Step{fails(long), done}}}, "", providers.RateLimited, []int{1}, 0, 0},
		"a failure after the role":      {[]*fake{{scripts: [][]streamtest.Step{append(script(meta, role), fails(upstream(providers.Truncated))...), done}}}, "role hello", 0, []int{2}, 0, 50 * time.Millisecond},
		"a failure after content":       {[]*fake{{scripts: [][]streamtest.Step{append(done, fails(upstream(providers.Truncated))...), done}}}, "role hello", providers.Truncated, []int{1}, 0, 0},
		"an empty success":              {[]*fake{{scripts: [][]streamtest.Step{script(meta, role)}}}, "role", 0, []int{1}, 0, 0},
		"no headers":                    {[]*fake{{scripts: [][]streamtest.Step{script(streamtest.Step{Wait: time.Hour}), done}}}, "role hello", 0, []int{2}, 30 * time.Second, 31 * time.Second},
		"no token, last target":         {[]*fake{{scripts: [][]streamtest.Step{script(meta, role, streamtest.Step{Wait: time.Hour}), done}}}, "role hello", 0, []int{2}, 2 * time.Minute, 2*time.Minute + time.Second},
		"no token, another left":        {[]*fake{{scripts: [][]streamtest.Step{script(meta, role, streamtest.Step{Wait: time.Hour})}}, {scripts: [][]streamtest.Step{done}}}, "role hello", 0, []int{1, 1}, 30 * time.Second, 31 * time.Second},
		"a stall between tokens":        {[]*fake{{scripts: [][]streamtest.Step{append(done, streamtest.Step{Wait: time.Hour})}}}, "role hello", providers.Timeout, []int{1}, time.Minute, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				got, prog, err := ask(t, t.Context(), options(), poolOf(c.targets...))
				took := time.Since(start)
				e := providers.AsError(err)
				if got != c.want || (err != nil) != (c.kind != 0) || e != nil && e.Kind != c.kind {
					t.Errorf("got %q, %v", got, err)
				}
				total := 0
				for i, want := range c.calls {
					total += c.targets[i].calls
					if c.targets[i].calls != want {
						t.Errorf("target %d was asked %d times, want %d", i, c.targets[i].calls, want)
					}
				}
				if r := prog.Report(); int(r.Attempts) != total {
					t.Errorf("%d attempts counted, %d made", r.Attempts, total)
				}
				if took < c.least || took > c.most {
					t.Errorf("took %v, want %v to %v", took, c.least, c.most)
				}
			})
		})
	}
}

// Pings keep a thinking server alive but are no token: first token and silence have
// limits of their own.
func TestSignsOfLife(t *testing.T) {
	pings := func(n int, every time.Duration) (steps []streamtest.Step) {
		for range n {
			steps = append(steps, streamtest.Step{Wait: every})
		}
		return steps
	}
	local := Phases{Headers: 10 * time.Minute, FirstToken: 10 * time.Minute, Between: time.Minute, Silence: 5 * time.Minute}
	for name, c := range map[string]struct {
		steps []streamtest.Step
		want  time.Duration // of the timeout
		says  string
	}{
		"pings do not count as tokens": {append(script(meta), pings(1000, 30*time.Second)...), 10 * time.Minute, "brought no token for 10m"},
		"silence is death":             {script(meta, streamtest.Step{Wait: time.Hour}), 5 * time.Minute, "no sign of life for 5m"},
		"silence after a ping":         {append(append(script(meta), pings(1, 2*time.Minute)...), streamtest.Step{Wait: time.Hour}), 7 * time.Minute, "no sign of life for 5m"},
		"pings between tokens":         {append(append(script(meta), streamtest.Step{Batch: streamtest.Text(0, "a")}), pings(100, 10*time.Second)...), time.Minute, "stopped in the middle of the answer for 1m"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := poolOf(&fake{scripts: [][]streamtest.Step{c.steps}})
				p.Targets[0].Phases, p.Targets[0].Local = local, true
				opt := options()
				opt.Tries = 1
				start := time.Now()
				_, _, err := ask(t, t.Context(), opt, p)
				if took := time.Since(start); took != c.want || err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

func TestCancelDuringPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := &providers.Error{Kind: providers.RateLimited, Message: "slow down", RetryAfter: 4 * time.Second}
		f := &fake{scripts: [][]streamtest.Step{fails(busy), done}}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(streaming.ErrClientGone) })
		start := time.Now()
		_, _, err := ask(t, ctx, options(), poolOf(f))
		if !errors.Is(err, streaming.ErrClientGone) || time.Since(start) != time.Second || f.calls != 1 {
			t.Errorf("%v after %v, %d calls", err, time.Since(start), f.calls)
		}
	})
}

func TestNoTryWithoutTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 900*time.Millisecond, streaming.ErrTotal)
		defer cancel()
		f := &fake{scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamFailed)), done}}
		if _, _, err := ask(t, ctx, options(), poolOf(f)); err == nil || f.calls != 1 {
			t.Errorf("%v, %d calls", err, f.calls)
		}
	})
}

// During a total failure retries stay within a tenth of the calls plus three a second.
func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamFailed))}}
		p := poolOf(f)
		const calls, perSecond = 10000, 500
		for range calls {
			_, _, _ = ask(t, t.Context(), options(), p)
			time.Sleep(time.Second / perSecond)
		}
		seconds := float64(calls) / perSecond
		most := calls + calls/10 + int(3*seconds) + 3*budgetSeconds + 100
		if f.calls > most || f.calls < calls+calls/20 {
			t.Errorf("%d attempts for %d calls, at most %d", f.calls, calls, most)
		}
	})
}

func TestPreambleIsBounded(t *testing.T) {
	many := script(meta)
	for range 200 {
		many = append(many, role)
	}
	many = append(many, streamtest.Step{Err: upstream(providers.Truncated)})
	f := &fake{scripts: [][]streamtest.Step{many, done}}
	got, _, err := ask(t, t.Context(), options(), poolOf(f))
	if n := strings.Count(got, "role"); f.calls != 1 || n != 200 || err == nil {
		t.Errorf("%d calls, %d payloads, %v: a preamble of 200 events must commit", f.calls, n, err)
	}
}

func TestBigPreambleCommits(t *testing.T) {
	big := streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Lifecycle, Raw: make([]byte, 300<<10)}}}
	f := &fake{scripts: [][]streamtest.Step{script(meta, big, streamtest.Step{Err: upstream(providers.Truncated)}), done}}
	if _, _, err := ask(t, t.Context(), options(), poolOf(f)); f.calls != 1 || err == nil {
		t.Errorf("%d calls, %v", f.calls, err)
	}
}

// The reader of a stream may stop at any event; nothing comes after that.
func TestReaderStops(t *testing.T) {
	f := &fake{scripts: [][]streamtest.Step{done}}
	for batch := range New(onePool{poolOf(f)}, options()).Stream(t.Context(), &providers.Request{Model: "m"}, streaming.NewProgress(time.Now())) {
		if len(batch) > 0 {
			break
		}
	}
	if f.calls != 1 {
		t.Errorf("%d calls", f.calls)
	}
}

func TestPresentAs(t *testing.T) {
	f := &fake{scripts: [][]streamtest.Step{script(streamtest.Step{Batch: []streaming.Event{
		{Kind: streaming.Meta, Meta: &streaming.MetaData{Model: "inner"}}, {Kind: streaming.Text, Text: "x"}}})}}
	p := poolOf(f)
	p.PresentAs = "public"
	var models []string
	for batch := range New(onePool{p}, options()).Stream(t.Context(), &providers.Request{Model: "m"}, streaming.NewProgress(time.Now())) {
		for _, ev := range batch {
			if ev.Meta != nil && ev.Meta.Model != "" {
				models = append(models, ev.Meta.Model)
			}
		}
	}
	if strings.Join(models, " ") != "public" {
		t.Errorf("presented as %q", models)
	}
}

func TestWeights(t *testing.T) {
	a, b := &Target{Name: "a", Weight: 1}, &Target{Name: "b", Weight: 3}
	p := &Pool{Targets: []*Target{a, b}}
	n := map[*Target]int{}
	for range 4000 {
		got := take(p)
		n[got.target]++
		if got.others != 1 {
			t.Fatalf("%d others", got.others)
		}
	}
	if n[b] != 3000 {
		t.Errorf("b was chosen %d of 4000 times, its weight is three quarters", n[b])
	}
	b.state().coolFor(time.Minute)
	if got := take(p); got.target != a || got.others != 0 {
		t.Error("a target that cools down was chosen")
	}
}

// take picks for a first attempt, without a breaker.
func take(p *Pool) picked {
	return p.pick(&query{tried: new(set), shut: new(set), now: uptime(), cfg: &Breaker{}})
}

func BenchmarkAnswer(b *testing.B) {
	r := New(onePool{poolOf(&fake{scripts: [][]streamtest.Step{done}})}, options())
	req := &providers.Request{Model: "m"}
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range r.Stream(b.Context(), req, streaming.NewProgress(time.Now())) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
