package router

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/streaming/streamtest"
)

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := defaultBreaker()
		p := plainPool(1, 1)
		p.Targets[0].Upstream, p.Targets[1].Upstream = "a", "b"
		c := NewCatalog([]*Pool{p}, nil, time.Second, time.Minute)
		var sick atomic.Bool
		var mu sync.Mutex
		var asked []time.Time
		c.Watch(&cfg, []Check{{Upstream: "a", Health: Health{Every: 10 * time.Second, Timeout: 2 * time.Second, Sick: 3, Well: 2}, Ask: func(ctx context.Context) error {
			mu.Lock()
			asked = append(asked, time.Now())
			mu.Unlock()
			if sick.Load() {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		}}})
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		go c.Run(ctx)
		share := func() float64 { return p.Targets[0].state().judge(&cfg, uptime()).share }
		time.Sleep(time.Minute)
		if share() != 1 || c.Status()[0].Targets[0].Check == nil || c.Status()[0].Targets[1].Check != nil {
			t.Fatalf("%+v", c.Status()[0].Targets)
		}
		mu.Lock()
		if d := asked[0].Sub(start); d > time.Second {
			t.Errorf("first asked after %v", d)
		}
		for i := 1; i < len(asked); i++ {
			if d := asked[i].Sub(asked[i-1]); d < 8*time.Second || d > 12*time.Second {
				t.Errorf("a pause of %v", d)
			}
		}
		mu.Unlock()
		sick.Store(true)
		time.Sleep(20 * time.Second)
		if share() != 1 {
			t.Error("sick after one or two bad checks")
		}
		time.Sleep(25 * time.Second)
		s := c.Status()[0].Targets[0]
		if share() != 0 || s.State != "sick" || s.Check.Error != "context deadline exceeded" || s.Check.Failed < 3 || s.LastError == "" {
			t.Errorf("%+v, %+v", s, s.Check)
		}
		for range 50 {
			if got := take(p); got.at != 1 || got.others != 0 {
				t.Fatalf("%+v", got)
			}
		}
		sick.Store(false)
		time.Sleep(26 * time.Second)
		if got := share(); got < least || got > 0.9 {
			t.Errorf("well again, with a share of %g", got)
		}
		time.Sleep(30 * time.Second)
		if share() != 1 {
			t.Error("the share does not grow")
		}
		sick.Store(true)
		time.Sleep(time.Minute)
		cancel()
		synctest.Wait()
		c.Watch(&cfg, nil) // the next configuration checks nobody
		ctx, cancel = context.WithCancel(t.Context())
		go c.Run(ctx)
		synctest.Wait()
		if share() != 1 {
			t.Error("a target that nobody checks any more stays sick")
		}
		cancel()
	})
}

// When all targets are sick, calls are still let try one a second.
func TestAllSick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := withBreaker()
		f := &fake{scripts: [][]streamtest.Step{done}}
		p := poolOf(f)
		for range 3 {
			p.Targets[0].state().note(&Check{Health: Health{Every: 10 * time.Second, Sick: 3, Well: 2}}, &opt.Breaker, errors.New("no"), 0)
		}
		for range 100 {
			_, _, _ = ask(t, t.Context(), opt, p)
			time.Sleep(100 * time.Millisecond)
		}
		if f.calls < 9 || f.calls > 11 {
			t.Errorf("asked %d times in ten seconds", f.calls)
		}
	})
}

// A check that is answered by the model itself closes the breaker without a client's call.
func TestCheckCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := defaultBreaker()
		p := poolOf(&fake{scripts: [][]streamtest.Step{done}})
		s := p.Targets[0].state()
		for range 5 {
			tell(s, &cfg, false)
		}
		k := &Check{Serves: true, Health: Health{Every: time.Second, Sick: 3, Well: 2}}
		for range 3 {
			if s.judge(&cfg, uptime()).share != 0 {
				t.Fatal("it is closed too soon")
			}
			s.note(k, &cfg, p.Targets[0].Probe(t.Context()), 0)
		}
		if s.judge(&cfg, uptime()).share != least {
			t.Error("it is not closed")
		}
	})
}

func TestProbe(t *testing.T) {
	good, bad := plays(done...), plays(fails(errUpstream)...)
	if err := (&Target{Name: "x", Provider: good}).Probe(t.Context()); err != nil || good.calls != 1 {
		t.Errorf("%v", err)
	}
	if err := (&Target{Name: "x", Provider: bad}).Probe(t.Context()); err == nil {
		t.Error("a failure is well")
	}
	none := plays(fails(errUpstream)...)
	if err := (&Target{Name: "x", Provider: none, Override: Override{No: 1<<20 - 1}}).Probe(t.Context()); err != nil || none.calls != 0 {
		t.Errorf("%v", err)
	}
}

var errUpstream = upstream(1)

// Of five targets the one that fails most is left alone for a while; half of the pool
// never is.
func TestEject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := defaultBreaker()
		cfg.Open, cfg.InRow = 0, 1000
		p := plainPool(1, 1, 1, 1, 1)
		p.Eject = Eject{Every: 10 * time.Second, AtLeast: 20, Pause: 30 * time.Second, Cap: 0.5}
		play := func(rates ...int) {
			for i, target := range p.Targets {
				for n := range 40 {
					tell(target.state(), &cfg, n%10 >= rates[i])
				}
			}
		}
		ejected := func() (n int) {
			p.pick(&query{tried: new(set), shut: new(set), now: uptime(), cfg: &cfg})
			for _, target := range p.Targets {
				if target.status(&cfg).State == "ejected" {
					n++
				}
			}
			return n
		}
		time.Sleep(time.Minute)
		play(0, 0, 0, 0, 1)
		if n := ejected(); n != 0 {
			t.Errorf("%d ejected of a pool that is well", n)
		}
		time.Sleep(11 * time.Second)
		play(0, 0, 0, 0, 4)
		if n := ejected(); n != 1 || p.Targets[4].status(&cfg).State != "ejected" {
			t.Errorf("%d ejected", n)
		}
		for range 50 {
			if got := p.pick(&query{tried: new(set), shut: new(set), now: uptime(), cfg: &cfg}); got.at == 4 {
				t.Fatal("an ejected target is asked")
			}
		}
		time.Sleep(31 * time.Second)
		if s := p.Targets[4].status(&cfg); s.State != "recovering" || s.Share > 0.2 {
			t.Errorf("afterwards: %s, %g", s.State, s.Share)
		}
		time.Sleep(time.Minute)
		play(0, 9, 9, 9, 9)
		if n := ejected(); n > 2 {
			t.Errorf("%d of 5 ejected", n)
		}
	})
}
