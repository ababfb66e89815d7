package router

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// byName resolves pools by their names.
type byName map[string]*Pool

func (b byName) Resolve(_ context.Context, model string) (*Pool, error) {
	if p := b[model]; p != nil {
		return p, nil
	}
	return nil, &providers.Error{Kind: providers.ModelNotFound, Message: "no"}
}

func pools(all ...*Pool) byName {
	b := byName{}
	for _, p := range all {
		b[p.Model] = p
	}
	return b
}

// named is a pool of one target for each script.
func named(model string, scripts ...[]streamtest.Step) (*Pool, []*server) {
	p, all := &Pool{Model: model}, []*server{}
	for i, s := range scripts {
		one := plays(s...)
		all = append(all, one)
		p.Targets = append(p.Targets, &Target{Name: model + "/" + string(rune('a'+i)), Provider: one, Phases: phasesForTest, Weight: 1})
	}
	return p, all
}

func askModel(ctx context.Context, opt Options, b byName, model string) (*streaming.Progress, error) {
	prog := streaming.NewProgress(time.Now())
	for _, err := range New(b, opt).Stream(ctx, &providers.Request{Model: model, Stream: true}, prog) {
		if err != nil {
			return prog, err
		}
	}
	return prog, nil
}

func TestFallback(t *testing.T) {
	down := fails(upstream(providers.Unreachable))
	refusal := fails(&providers.Error{Kind: providers.Passed, Status: 400, Code: "content_filter", Message: "no"})
	long := fails(&providers.Error{Kind: providers.Passed, Status: 400, Code: "context_length_exceeded", Message: "too long"})
	said := fails(&providers.Error{Kind: providers.Passed, Status: 400, Message: "This model's maximum context length is 4096 tokens."})
	hangs := script(meta, streamtest.Step{Wait: time.Hour})
	for name, c := range map[string]struct {
		main      [][]streamtest.Step
		fallback  []string
		forLong   []string
		want      string // the target that answers
		kind      providers.ErrorKind
		mainCalls int
	}{
		"once more first, then the other model": {[][]streamtest.Step{down}, []string{"good"}, nil, "good/a", 0, 2},
		"the other target first":                {[][]streamtest.Step{down, down}, []string{"good"}, nil, "good/a", 0, 2},
		"not asked when it is well":             {[][]streamtest.Step{done}, []string{"good"}, nil, "main/a", 0, 1},
		"a chain":                               {[][]streamtest.Step{down}, []string{"bad"}, nil, "good/a", 0, 2},
		"an unknown one is passed over":         {[][]streamtest.Step{down}, []string{"nobody", "good"}, nil, "good/a", 0, 2},
		"nowhere else":                          {[][]streamtest.Step{down}, []string{"main"}, nil, "", providers.Unreachable, 3},
		"a timeout is not repeated":             {[][]streamtest.Step{hangs}, []string{"good"}, nil, "good/a", 0, 1},
		"a content filter is final":             {[][]streamtest.Step{refusal}, []string{"good"}, []string{"big"}, "", providers.Passed, 1},
		"too long, elsewhere":                   {[][]streamtest.Step{long}, []string{"good"}, []string{"big"}, "big/a", 0, 1},
		"too long, in words":                    {[][]streamtest.Step{said}, nil, []string{"big"}, "big/a", 0, 1},
		"too long, nothing declared":            {[][]streamtest.Step{long}, []string{"good"}, nil, "", providers.Passed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				main, servers := named("main", c.main...)
				main.Fallback, main.FallbackContext = c.fallback, c.forLong
				bad, _ := named("bad", down)
				bad.Fallback = []string{"main", "good"}
				good, _ := named("good", done)
				big, _ := named("big", done)
				prog, err := askModel(t.Context(), options(), pools(main, bad, good, big), "main")
				e := providers.AsError(err)
				if (e != nil) != (c.kind != 0) || e != nil && e.Kind != c.kind {
					t.Errorf("%v", err)
				}
				if got := prog.Report().Target; c.want != "" && got != c.want {
					t.Errorf("answered by %s, want %s", got, c.want)
				}
				calls := 0
				for _, s := range servers {
					calls += s.calls
				}
				if calls != c.mainCalls {
					t.Errorf("the model's own targets were asked %d times, want %d", calls, c.mainCalls)
				}
			})
		})
	}
}

// Nothing is lost while a model is down for long: its calls go straight to the fallback.
func TestFallbackUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		main, servers := named("main", fails(upstream(providers.Unreachable)), fails(upstream(providers.Overloaded)))
		main.Fallback = []string{"good"}
		good, _ := named("good", done)
		b := pools(main, good)
		failed := 0
		const calls = 5000
		for range calls {
			if _, err := askModel(t.Context(), withBreaker(), b, "main"); err != nil {
				failed++
			}
			time.Sleep(10 * time.Millisecond)
		}
		if made := servers[0].calls + servers[1].calls; failed > 0 || made > 200 {
			t.Errorf("%d of %d failed, %d attempts at the dead ones", failed, calls, made)
		}
	})
}

// A chase that fails in the fallback, too, tells of that; one that must not ask it at all
// tells of its own.
func TestFallbackFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		main, _ := named("main", fails(upstream(providers.Unreachable)))
		main.Fallback = []string{"picky"}
		picky, all := named("picky", done)
		picky.Targets[0].Override = Override{No: providers.ChatRoute}
		_, err := askModel(t.Context(), options(), pools(main, picky), "main")
		if e := providers.AsError(err); e == nil || e.Kind != providers.Unreachable || all[0].calls != 0 {
			t.Errorf("%v", err)
		}
		main.Targets[0].Drained = true
		main.Fallback = []string{"good"}
		good, _ := named("good", done)
		if prog, err := askModel(t.Context(), options(), pools(main, good), "main"); err != nil || prog.Report().Target != "good/a" {
			t.Errorf("drained: %v", err)
		}
	})
}

func TestNames(t *testing.T) {
	target := func(upstream, model, version string) *Target {
		return &Target{Name: upstream + "/" + model, Upstream: upstream, Model: model, Version: version, Provider: plays(done...), Weight: 1}
	}
	main := &Pool{Model: "assistant", Aliases: []string{"default", "gpt-4o"}, Targets: []*Target{target("a", "x", "v1"), target("b", "y", "v2"), target("c", "z", "v2")}}
	wild := &Pool{Model: "gpt-*"}
	wild.Make = func(model string) *Pool {
		return &Pool{Model: model, Targets: []*Target{target("up", model, "")}}
	}
	c := NewCatalog([]*Pool{main, wild}, nil, time.Second, time.Minute)
	for model, want := range map[string]string{
		"assistant": "a/x b/y c/z", "default": "a/x b/y c/z", "gpt-4o": "a/x b/y c/z", "gpt-5/mini": "up/gpt-5/mini", "gpt-": "up/gpt-",
		"assistant@v1": "a/x", "default@v2": "b/y c/z", "assistant@v3": "", "asistant": "", "gpx-5": "",
	} {
		p, err := c.Resolve(t.Context(), model)
		var got []string
		if p != nil {
			for _, one := range p.Targets {
				got = append(got, one.Name)
			}
		}
		if strings.Join(got, " ") != want || (err == nil) != (want != "") {
			t.Errorf("%s: %v, %v; want %s", model, got, err, want)
		}
	}
	if _, err := c.Resolve(t.Context(), "assistant@v3"); !strings.Contains(err.Error(), "Its versions are v1, v2.") {
		t.Error(err)
	}
	if _, err := c.Resolve(t.Context(), "asistant"); !strings.Contains(err.Error(), "assistant") {
		t.Error(err)
	}
	for _, v := range []struct{ model, version, want string }{{"assistant", "v1", "assistant@v1"}, {"gpt-4o", "v2", "assistant@v2"}, {"assistant@v1", "v1", "assistant@v1"}} {
		if p, err := c.ResolveVersion(t.Context(), v.model, v.version); err != nil || p.Model != v.want {
			t.Errorf("%v: %v", v, err)
		}
	}
	for _, v := range [][2]string{{"assistant", "v9"}, {"nobody", "v1"}, {"assistant@v1", "v2"}} {
		if _, err := c.ResolveVersion(t.Context(), v[0], v[1]); providers.AsError(err) == nil || providers.AsError(err).Kind != providers.ModelNotFound {
			t.Errorf("%v: %v", v, err)
		}
	}
	one, _ := c.Resolve(t.Context(), "assistant@v1")
	all, _ := c.Resolve(t.Context(), "assistant")
	if one.Targets[0].state() != all.Targets[0].state() {
		t.Error("a version has a state of its own")
	}
	var ids []string
	for _, m := range c.Models(t.Context()) {
		ids = append(ids, m.ID)
	}
	if !slices.Equal(ids, []string{"assistant", "default", "gpt-4o"}) {
		t.Errorf("listed: %v", ids)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"*", "a/b", true}, {"gpt-*", "gpt-4", true}, {"gpt-*", "gpt", false}, {"a*b", "ab", true}, {"a*b", "aab", true}, {"a*b", "aba", false},
		{"a*b*c", "abc", true}, {"a*b*c", "acb", false}, {"*b*", "abc", true}, {"ab*ba", "aba", false}, {"x", "x", true}, {"x", "xy", false}, {"**", "z", true},
	} {
		if Matches(c.pattern, c.name) != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.name, !c.want)
		}
	}
}

// A reload keeps what is known of targets, and forgets it where the upstream is another.
func TestInherit(t *testing.T) {
	cfg := defaultBreaker()
	build := func() *Catalog {
		p := &Pool{Model: "m", Targets: []*Target{
			{Name: "a/m", Upstream: "a", Version: "v1", Provider: plays(done...), Weight: 1}, {Name: "b/m", Upstream: "b", Provider: plays(done...), Weight: 1}}}
		c := NewCatalog([]*Pool{p}, []Upstream{{Name: "a"}, {Name: "b"}, {Name: "c", Models: []string{"*"}, Target: func(string) providers.Provider { return plays(done...) }}}, time.Second, time.Minute)
		c.Watch(&cfg, nil)
		return c
	}
	old := build()
	dynamic, _ := old.Resolve(t.Context(), "other")
	for _, target := range []*Target{old.pools[0].Targets[0], old.pools[0].Targets[1], dynamic.Targets[0]} {
		for range 5 {
			tell(target.state(), &cfg, false)
		}
	}
	old.pools[0].budget.take(Budget{PerSecond: 3}, time.Now())
	fresh := build()
	fresh.Inherit(nil, nil)
	fresh.Inherit(old, func(upstream string) bool { return upstream != "b" })
	var got []string
	_, _ = fresh.Resolve(t.Context(), "other")
	for _, p := range fresh.Status() {
		for _, one := range p.Targets {
			got = append(got, one.Name+" "+one.State)
		}
	}
	if !slices.Equal(got, []string{"a/m open", "b/m closed", "c/other open"}) {
		t.Errorf("%v", got)
	}
	if v := fresh.names["m@v1"].Targets[0].state(); v != old.pools[0].Targets[0].state() {
		t.Error("a version has lost the state")
	}
	if fresh.pools[0].budget.tokens != old.pools[0].budget.tokens {
		t.Error("the retry budget is full again")
	}
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := defaultBreaker()
		p := plainPool(1, 1, 1, 1, 1)
		c := NewCatalog([]*Pool{p}, nil, time.Second, time.Minute)
		c.Watch(&cfg, nil)
		for range 5 {
			tell(p.Targets[0].state(), &cfg, false)
		}
		for i := range 40 {
			tell(p.Targets[1].state(), &cfg, i%5 != 0)
		}
		p.Targets[2].Drained = true
		p.Targets[3].state().coolFor(time.Minute)
		p.Targets[4].state().send(&cfg, false, uptime())
		got := c.Status()[0].Targets
		for i, want := range []string{"open", "partial", "drained", "cooling", "closed"} {
			if got[i].State != want {
				t.Errorf("target %d is %s, want %s", i, got[i].State, want)
			}
		}
		if got[0].LastError != "no" || got[0].LastErrorAt != time.Now() || got[0].ErrorRate != 1 || got[0].Wait < 4*time.Second || got[0].Share != 0 {
			t.Errorf("%+v", got[0])
		}
		if one := got[1]; one.ErrorRate != 0.2 || one.Calls != 40 || one.Share <= least || one.Share >= 1 || one.P95 < time.Millisecond || one.Samples != 32 || one.PeakTTFT != time.Millisecond {
			t.Errorf("%+v", one)
		}
		if got[4].Running != 1 {
			t.Errorf("%+v", got[4])
		}
	})
}
