package router

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// cancelled is a server that notes when and why its calls are ended.
type cancelled struct {
	*server
	after  atomic.Int64 // of the start
	causes atomic.Pointer[error]
}

func (c *cancelled) Stream(ctx context.Context, req *providers.Request, p *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		start := time.Now()
		defer func() {
			if cause := context.Cause(ctx); cause != nil {
				c.after.Store(int64(time.Since(start)))
				c.causes.Store(&cause)
			}
		}()
		c.server.Stream(ctx, req, p)(yield)
	}
}

func slow(d time.Duration, text string) *server {
	return plays(meta, role, streamtest.Step{Wait: d, Batch: streamtest.Text(0, text)}, streamtest.Step{Wait: time.Second, Batch: streamtest.Text(0, "end")})
}

// hedging is a pool whose first target is always asked first, and known to be quick.
func hedging(a, b providers.Provider) *Pool {
	p := &Pool{Model: "m", Hedge: Hedge{Quantile: 0.95, AtLeast: 200, Share: 0.02}, Balance: BalanceLeastRunning}
	for i, one := range []providers.Provider{a, b} {
		p.Targets = append(p.Targets, &Target{Name: string(rune('a' + i)), Provider: one, Phases: phasesForTest, Weight: 1 - i})
	}
	cfg := Breaker{}
	for range 200 {
		s := p.Targets[0].state()
		s.send(&cfg, false, uptime())
		s.first(&cfg, false, true, 100*time.Millisecond, uptime())
		s.end(false)
	}
	return p
}

func TestHedge(t *testing.T) {
	for name, c := range map[string]struct {
		first, second *server
		want          string
		kind          providers.ErrorKind
		took          time.Duration // about
		winner        string
		seconds       int
		lost          int
	}{
		"quick enough":            {slow(50*time.Millisecond, "first"), slow(50*time.Millisecond, "second"), "role first end", 0, 1050 * time.Millisecond, "a", 0, 0},
		"the second is faster":    {slow(10*time.Second, "first"), slow(200*time.Millisecond, "second"), "role second end", 0, 1300 * time.Millisecond, "b", 1, 1},
		"the first comes in time": {slow(200*time.Millisecond, "first"), slow(10*time.Second, "second"), "role first end", 0, 1200 * time.Millisecond, "a", 1, 1},
		"the second fails":        {slow(2*time.Second, "first"), plays(fails(upstream(providers.UpstreamFailed))...), "role first end", 0, 3 * time.Second, "a", 1, 0},
		"the first fails later":   {plays(meta, streamtest.Step{Wait: time.Second}, streamtest.Step{Err: upstream(providers.Truncated)}), slow(2*time.Second, "second"), "role second end", 0, 3100 * time.Millisecond, "b", 1, 0},
		"the first fails at once": {plays(fails(upstream(providers.Passed))...), slow(time.Second, "second"), "", providers.Passed, 0, "a", 0, 0},
		"the answer breaks":       {plays(meta, streamtest.Step{Wait: 10 * time.Millisecond, Batch: streamtest.Text(0, "x")}, streamtest.Step{Err: upstream(providers.Truncated)}), slow(0, "y"), "x", providers.Truncated, 10 * time.Millisecond, "a", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := &cancelled{server: c.first}, &cancelled{server: c.second}
				p := hedging(a, b)
				d := &countingGate{}
				opt := options()
				opt.Gate = d
				var lost atomic.Int64
				opt.Lost = func(l *Loss) {
					if l.Took <= 0 || l.Target.Name == c.winner {
						t.Errorf("%+v", l)
					}
					lost.Add(1)
				}
				start := time.Now()
				got, prog, err := ask(t, t.Context(), opt, p)
				took := time.Since(start)
				e := providers.AsError(err)
				if got != c.want || (e != nil) != (c.kind != 0) || e != nil && e.Kind != c.kind {
					t.Errorf("%q, %v", got, err)
				}
				if took < c.took || took > c.took+50*time.Millisecond {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if r := prog.Report(); r.Target != c.winner || int(r.Attempts) != 1+c.seconds {
					t.Errorf("answered by %s in %d attempts", r.Target, r.Attempts)
				}
				synctest.Wait()
				if lost.Load() != int64(c.lost) || b.calls != c.seconds {
					t.Errorf("%d lost, the second was asked %d times", lost.Load(), b.calls)
				}
				for i, target := range p.Targets {
					if n := target.state().running.Load(); n != 0 {
						t.Errorf("%d run at target %d", n, i)
					}
				}
				if d.held.Load() != 0 || d.asked.Load() != int64(1+c.seconds) {
					t.Errorf("%d held of %d", d.held.Load(), d.asked.Load())
				}
				if c.lost == 1 {
					loser, began := a, time.Duration(0)
					if c.winner == "a" {
						loser, began = b, 100*time.Millisecond
					}
					if cause := loser.causes.Load(); cause == nil || *cause != errHedged {
						t.Errorf("the slower one was ended by %v", cause)
					}
					if at := time.Duration(loser.after.Load()) + began; at > took-time.Second+100*time.Millisecond {
						t.Errorf("the slower one was ended after %v", at)
					}
				}
			})
		})
	}
}

// countingGate may be asked from several goroutines.
type countingGate struct{ asked, held atomic.Int64 }

func (g *countingGate) Acquire(context.Context, *Try) (func(Spent), error) {
	g.asked.Add(1)
	g.held.Add(1)
	return func(Spent) { g.held.Add(-1) }, nil
}

// No more than a fiftieth of the calls is hedged, however slow the target becomes; none
// while too little is known, or where nothing is streamed.
func TestHedgeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := slow(time.Second, "a"), slow(100*time.Millisecond, "b")
		p := hedging(a, b)
		for range 1000 {
			synctest.Wait() // the slower one of the call before has ended
			// What the target is known for stays as it was, so that each call is a slow one.
			p.Targets[0].state().streams = hedging(a, b).Targets[0].state().streams
			if _, _, err := ask(t, t.Context(), options(), p); err != nil {
				t.Fatal(err)
			}
		}
		if b.calls < 15 || b.calls > 21 {
			t.Errorf("%d of 1000 calls were hedged", b.calls)
		}
		synctest.Wait()
		before := b.calls
		p.Hedge.AtLeast = 1_000_000
		p.hedged.call(Budget{Share: 1}, time.Now())
		_, _, _ = ask(t, t.Context(), options(), p)
		p.Hedge.AtLeast = 1
		if _, _, err := askFor(t.Context(), options(), p, &providers.Request{Model: "m"}); err != nil || b.calls != before {
			t.Errorf("%v, %d calls more", err, b.calls-before)
		}
	})
}

// Who leaves while two run ends both; a panic in either is the answer's, not the process's.
func TestHedgeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &cancelled{server: slow(time.Minute, "a")}, &cancelled{server: slow(time.Minute, "b")}
		p := hedging(a, b)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(streaming.ErrClientGone) })
		start := time.Now()
		if _, _, err := ask(t, ctx, options(), p); err != streaming.ErrClientGone || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		synctest.Wait()
		for i, one := range []*cancelled{a, b} {
			if one.causes.Load() == nil || p.Targets[i].state().running.Load() != 0 {
				t.Errorf("target %d was not ended", i)
			}
		}
	})
	for _, first := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			bad := plays(meta, streamtest.Step{Wait: time.Second, Panic: "boom"})
			p := hedging(bad, slow(time.Minute, "b"))
			if !first {
				p = hedging(slow(time.Minute, "a"), bad)
			}
			defer func() {
				if v := recover(); v == nil || !strings.Contains(v.(string), "boom") {
					t.Errorf("recovered %v", v)
				}
				synctest.Wait()
				for i, target := range p.Targets {
					if n := target.state().running.Load(); n != 0 {
						t.Errorf("%d run at target %d", n, i)
					}
				}
			}()
			_, _, _ = ask(t, t.Context(), options(), p)
		})
	}
}

// All attempts are told, with their times, also the one that was slower.
func TestHedgeTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, winner := range []string{"a", "b"} {
			a, b := slow(200*time.Millisecond, "a"), slow(10*time.Second, "b")
			if winner == "b" {
				a, b = slow(10*time.Second, "a"), slow(200*time.Millisecond, "b")
			}
			_, prog, err := ask(t, t.Context(), options(), hedging(a, b))
			synctest.Wait()
			got := prog.Tries(nil)
			if err != nil || len(got) != 2 || got[1].Target != winner || got[1].Err != nil || got[0].Target == winner || got[0].Err != errHedged {
				t.Fatalf("%v, %+v", err, got)
			}
			if end := got[0].End - got[0].Begin; end < 90*time.Millisecond || end > 400*time.Millisecond {
				t.Errorf("%+v", got)
			}
		}
	})
}

// An upstream that quotes a credential is not quoted.
func TestWords(t *testing.T) {
	s := new(state)
	s.say(&providers.Error{Kind: providers.UpstreamCredential, Message: "Incorrect API key provided: sk-secret"})
	if strings.Contains(s.failure, "sk-") || s.failure == "" {
		t.Error(s.failure)
	}
	s.say(&providers.Error{Kind: providers.UpstreamFailed, Message: strings.Repeat("x", 10_000)})
	if len(s.failure) != lastWord {
		t.Errorf("%d bytes", len(s.failure))
	}
}
