package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

func defaultBreaker() Breaker {
	return Breaker{InRow: 5, Window: 10 * time.Second, AtLeast: 20, Partial: 0.1, Least: 0.3, Open: 0.5,
		Pause: 5 * time.Second, PauseMax: time.Minute, Successes: 3, Ramp: 30 * time.Second}
}

func withBreaker() Options {
	o := options()
	o.Breaker = defaultBreaker()
	return o
}

// tell plays a result at a target: true is a first content.
func tell(s *state, cfg *Breaker, good bool) {
	s.send(cfg, false, uptime())
	if good {
		s.first(cfg, false, true, time.Millisecond, uptime())
	} else {
		s.fail(cfg, false, errors.New("no"))
	}
	s.end(false)
}

func TestBreakerOpens(t *testing.T) {
	cfg := defaultBreaker()
	play := func(s *state, text string, every time.Duration) {
		for _, c := range text {
			tell(s, &cfg, c == '+')
			time.Sleep(every)
		}
	}
	for name, c := range map[string]struct {
		calls string
		every time.Duration
		share float64 // -1: between the least and all
	}{
		"well":                             {strings.Repeat("+", 50), 0, 1},
		"four in a row":                    {"++----", 0, 1},
		"five in a row":                    {"++-----", 0, 0},
		"a success between":                {"----+----", 0, 1},
		"half of twenty":                   {strings.Repeat("+-", 10), 0, 0},
		"half of nineteen":                 {strings.Repeat("+-", 9) + "-", 0, 1},
		"half, and long ago":               {strings.Repeat("+-", 9) + strings.Repeat("+", 20), time.Second, 1},
		"a tenth":                          {strings.Repeat("-+++++++++", 5), 0, 1},
		"a fifth":                          {strings.Repeat("-++++", 10), 0, -1},
		"two fifths get the least":         {strings.Repeat("-+-++", 10), 0, least},
		"five in a row, however far apart": {"-----", 30 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(state)
				play(s, c.calls, c.every)
				if c.every > 0 && c.share == 0 {
					s.mu.Lock()
					at := s.breaker.at
					s.mu.Unlock()
					if at != open {
						t.Error("it is not open")
					}
					return
				}
				got := s.judge(&cfg, uptime()).share
				if c.share >= 0 && got != c.share || c.share < 0 && (got <= least || got >= 1) {
					t.Errorf("a share of %g, want %g", got, c.share)
				}
			})
		})
	}
}

// The life of a breaker: open, twice as long each time, half open, closed with a ramp; and
// the pause is short again once it was well for the ramp.
func TestBreakerLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := defaultBreaker()
		s := new(state)
		fails := func() {
			for range 5 {
				tell(s, &cfg, false)
			}
		}
		pause := func() time.Duration {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.breaker.until - uptime()
		}
		probe := func(good bool) {
			if !s.claim(&cfg, false, uptime()) {
				t.Fatal("no probe is allowed")
			}
			s.send(&cfg, true, uptime())
			if s.claim(&cfg, false, uptime()) {
				t.Error("two probes at once")
			}
			if good {
				s.first(&cfg, true, true, time.Millisecond, uptime())
			} else {
				s.fail(&cfg, true, errors.New("no"))
			}
			s.end(true)
		}
		fails()
		for i, want := range []time.Duration{5, 10, 20, 40, 60, 60} {
			want *= time.Second
			if got := pause(); got < want*8/10 || got > want*12/10 {
				t.Fatalf("pause %d is %v, want %v", i, got, want)
			}
			if s.claim(&cfg, false, uptime()) {
				t.Fatal("a probe while it is open and others can be asked")
			}
			time.Sleep(pause())
			if i < 5 {
				probe(false)
			}
		}
		for range 3 {
			probe(true)
		}
		if got := s.judge(&cfg, uptime()).share; got != least {
			t.Errorf("after it has closed its share is %g", got)
		}
		time.Sleep(15 * time.Second)
		if got := s.judge(&cfg, uptime()).share; got < 0.5 || got > 0.6 {
			t.Errorf("in the middle of the ramp its share is %g", got)
		}
		fails()
		if got := pause(); got < 48*time.Second {
			t.Errorf("it fails again on the ramp, and pauses for %v", got)
		}
		time.Sleep(pause())
		for range 3 {
			probe(true)
		}
		time.Sleep(31 * time.Second)
		if v := s.judge(&cfg, uptime()); v.share != 1 || s.odd.Load() {
			t.Errorf("after the ramp: %+v", v)
		}
		fails()
		if got := pause(); got > 6*time.Second {
			t.Errorf("it was well for a while, and pauses for %v", got)
		}
	})
}

// Who leaves, what is refused and what is limited count for nothing; what cuts answers does.
func TestBlames(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&providers.Error{Kind: providers.Passed, Status: 400}, false}, {&providers.Error{Kind: providers.Passed, Status: 404}, false},
		{upstream(providers.RateLimited), false}, {upstream(providers.BadRequest), false}, {upstream(providers.UpstreamCredential), false},
		{&providers.Error{Kind: providers.Protocol, Status: 404}, false}, {&providers.Error{Kind: providers.Protocol}, true},
		{upstream(providers.Overloaded), true}, {upstream(providers.Unreachable), true}, {upstream(providers.UpstreamFailed), true},
		{upstream(providers.Timeout), true}, {upstream(providers.Truncated), true}, {context.Canceled, false}, {streaming.ErrClientGone, false},
	} {
		if blames(c.err) != c.want {
			t.Errorf("%v: %v", c.err, !c.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		opt := withBreaker()
		p := poolOf(&fake{scripts: [][]streamtest.Step{script(meta, streamtest.Step{Wait: time.Hour})}})
		for range 20 {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(streaming.ErrClientGone) })
			_, _, _ = ask(t, ctx, opt, p)
		}
		if v := p.Targets[0].state().judge(&opt.Breaker, uptime()); v.share != 1 {
			t.Error("clients who left have opened the breaker")
		}
		p = poolOf(&fake{scripts: [][]streamtest.Step{fails(upstream(providers.RateLimited))}})
		for range 20 {
			_, _, _ = ask(t, t.Context(), opt, p)
		}
		if v := p.Targets[0].state().judge(&opt.Breaker, uptime()); v.share != 1 {
			t.Error("a limit has opened the breaker")
		}
	})
}

// When all targets are down callers hear so at once, but for one probe a second at each;
// and the pool is back soon after its servers are.
func TestAllDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := withBreaker()
		opt.Tries = 1
		bad := fails(upstream(providers.Unreachable))
		a, b := &fake{scripts: [][]streamtest.Step{bad}}, &fake{scripts: [][]streamtest.Step{bad}}
		p := poolOf(a, b)
		p.Targets[1].Weight = 1
		for range 10 {
			_, _, _ = ask(t, t.Context(), opt, p)
		}
		before, refused := a.calls+b.calls, 0
		for range 600 { // a minute
			start := time.Now()
			_, _, err := ask(t, t.Context(), opt, p)
			e := providers.AsError(err)
			if e == nil || time.Since(start) > 50*time.Millisecond {
				t.Fatalf("%v after %v", err, time.Since(start))
			}
			if e.Code == "no_healthy_target" {
				refused++
				if e.Kind != providers.Overloaded || e.RetryAfter < time.Second {
					t.Fatalf("%+v", e)
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		if probes := a.calls + b.calls - before; probes < 100 || probes > 122 || refused != 600-probes {
			t.Errorf("%d probes in a minute at two targets, %d refused", probes, refused)
		}
		a.scripts, b.scripts = [][]streamtest.Step{done}, [][]streamtest.Step{done}
		healed, in := time.Now(), time.Duration(0)
		for in == 0 {
			good := 0
			for range 20 {
				if _, _, err := ask(t, t.Context(), opt, p); err == nil {
					good++
				}
				time.Sleep(10 * time.Millisecond)
			}
			if good >= 19 {
				in = time.Since(healed)
			}
		}
		if in > 15*time.Second {
			t.Errorf("back after %v", in)
		}
	})
}

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
