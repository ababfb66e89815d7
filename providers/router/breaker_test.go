package router

import (
	"context"
	"errors"
	"strings"
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
