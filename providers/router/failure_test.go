package router

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// crowd asks n times, r calls a second, side by side.
func crowd(t *testing.T, opt Options, p *Pool, n, r int) (good int) {
	var all sync.WaitGroup
	var mu sync.Mutex
	for range n {
		all.Go(func() {
			if _, _, err := askFor(t.Context(), opt, p, &providers.Request{Model: "m", Stream: true}); err == nil {
				mu.Lock()
				good++
				mu.Unlock()
			}
		})
		time.Sleep(time.Second / time.Duration(r))
	}
	all.Wait()
	return good
}

// server is a target that answers after a while, or fails in a way. It is safe for concurrent use.
type server struct {
	mu    sync.Mutex
	calls int
	steps func() []streamtest.Step
}

func (s *server) Stream(ctx context.Context, _ *providers.Request, _ *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		s.mu.Lock()
		s.calls++
		steps := s.steps()
		s.mu.Unlock()
		streamtest.Stream(ctx, steps...)(yield)
	}
}

func plays(steps ...streamtest.Step) *server {
	return &server{steps: func() []streamtest.Step { return steps }}
}

func fine() *server {
	return plays(streamtest.Step{Wait: 20 * time.Millisecond, Batch: meta.Batch}, role, streamtest.Step{Wait: 30 * time.Millisecond, Batch: streamtest.Text(0, "hello")})
}

func poolFor(all ...*server) *Pool {
	p := &Pool{Model: "m"}
	for i, s := range all {
		p.Targets = append(p.Targets, &Target{Name: fmt.Sprintf("t%d", i), Provider: s, Phases: phasesForTest, Weight: 1})
	}
	return p
}

// One of three upstreams is dead, hung before its headers, hung before the first token, or
// says 503: of 20,000 calls 99.9 % succeed, and the sick one is left alone.
func TestOneOfThree(t *testing.T) {
	for name, sick := range map[string]func() *server{
		"dead":                        func() *server { return plays(fails(upstream(providers.Unreachable))...) },
		"hung before headers":         func() *server { return plays(streamtest.Step{Wait: time.Hour}) },
		"hung before the first token": func() *server { return plays(meta, role, streamtest.Step{Wait: time.Hour}) },
		"503":                         func() *server { return plays(fails(upstream(providers.Overloaded))...) },
	} {
		for _, b := range []Balance{BalanceWeighted, BalanceRoundRobin, BalanceTwoChoices, BalanceLeastRunning, BalancePeakEWMA, BalanceHash} {
			if b != BalanceWeighted && name != "hung before headers" {
				continue
			}
			t.Run(name+"/"+b.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					calls := 20_000
					if b != BalanceWeighted {
						calls = 4_000
					}
					s := sick()
					p := poolFor(fine(), s, fine())
					p.Balance = b
					good := crowd(t, withBreaker(), p, calls, 200)
					if good < calls*999/1000 {
						t.Errorf("%d of %d calls succeeded", good, calls)
					}
					t.Logf("%d of %d calls succeeded, %d went to the sick one", good, calls, s.calls)
				})
			})
		}
	}
}

// While all upstreams fail they get at most 1.13 of the load that is offered, also without
// a breaker.
func TestTotalFailure(t *testing.T) {
	for _, opt := range []Options{options(), withBreaker()} {
		synctest.Test(t, func(t *testing.T) {
			a, b, c := plays(fails(upstream(providers.Overloaded))...), plays(fails(upstream(providers.Unreachable))...), plays(fails(upstream(providers.UpstreamFailed))...)
			const calls = 20_000
			good := crowd(t, opt, poolFor(a, b, c), calls, 500)
			if made := a.calls + b.calls + c.calls; good != 0 || float64(made) > 1.13*calls {
				t.Errorf("%d attempts for %d calls, %d good", made, calls, good)
			} else {
				t.Logf("%d attempts for %d calls", made, calls)
			}
		})
	}
}

// An upstream flaps, two seconds up and two down: most calls succeed all the same, and it
// is asked less and less.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		flaps := &server{steps: func() []streamtest.Step {
			if time.Since(start)/(2*time.Second)%2 == 1 {
				return fails(upstream(providers.Unreachable))
			}
			return done
		}}
		p := poolFor(flaps, fine())
		const calls = 24_000
		good := crowd(t, withBreaker(), p, calls, 200)
		if good < calls*95/100 {
			t.Errorf("%d of %d calls succeeded", good, calls)
		}
		t.Logf("%d of %d calls succeeded, %d went to the one that flaps", good, calls, flaps.calls)
	})
}

// After an outage of one target it gets its share back slowly, and nobody ever gets
// half as much again as usual.
func TestRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		perSecond := make([][2]int, 200)
		count := func(i int, s []streamtest.Step) func() []streamtest.Step {
			return func() []streamtest.Step {
				at := time.Since(start)
				perSecond[int(at/time.Second)][i]++
				if i == 0 && at < 30*time.Second {
					return fails(upstream(providers.Unreachable))
				}
				return s
			}
		}
		p := poolFor(&server{steps: count(0, done)}, &server{steps: count(1, done)})
		const rate = 100
		if good := crowd(t, withBreaker(), p, 120*rate, rate); good < 119*rate {
			t.Errorf("%d of %d succeeded", good, 120*rate)
		}
		for s, n := range perSecond[:119] {
			if n[0] > rate/2*3/2 || n[1] > rate+10 {
				t.Errorf("second %d: %v calls", s, n)
			}
		}
		if last := perSecond[115]; last[0] < 45 || last[0] > 55 {
			t.Errorf("at the end %v calls a second", last)
		}
	})
}
