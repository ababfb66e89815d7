package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// doorman is a gate that refuses the named targets and remembers what it was asked.
type doorman struct {
	refuse map[string]time.Duration // for how long, by target
	asked  []string
	open   int
	spent  []Spent
}

func (d *doorman) Acquire(_ context.Context, try *Try) (func(Spent), error) {
	d.asked = append(d.asked, fmt.Sprintf("%s#%d", try.Target.Name, try.Number))
	if wait, refused := d.refuse[try.Target.Name]; refused {
		return nil, &providers.Error{Kind: providers.RateLimited, Message: "full", RetryAfter: wait}
	}
	d.open++
	return func(s Spent) {
		d.open--
		d.spent = append(d.spent, s)
	}, nil
}

// TestGate: who is refused is passed over and not blamed; the refusal that ends first is
// told when nobody is left; every attempt is let go, with what it used.
func TestGate(t *testing.T) {
	usage := streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Usage, Usage: &streaming.UsageData{Prompt: 7, Completion: 3, Total: 10}}}}
	good := append(slices.Clone(done), usage)
	for name, c := range map[string]struct {
		targets []*fake
		refuse  map[string]time.Duration
		want    string
		kind    providers.ErrorKind
		retry   time.Duration
		calls   []int
		asked   []string
		spent   []Spent
	}{
		"let in": {[]*fake{{scripts: [][]streamtest.Step{good}}}, nil, "role hello", 0, 0, []int{1}, []string{"t0#1"}, []Spent{{Input: 7, Output: 3}}},
		"the next one": {[]*fake{{scripts: [][]streamtest.Step{good}}, {scripts: [][]streamtest.Step{good}}}, map[string]time.Duration{"t0": time.Second},
			"role hello", 0, 0, []int{0, 1}, []string{"t0#1", "t1#2"}, []Spent{{Input: 7, Output: 3}}},
		"nobody": {[]*fake{{scripts: [][]streamtest.Step{good}}, {scripts: [][]streamtest.Step{good}}}, map[string]time.Duration{"t0": 9 * time.Second, "t1": 2 * time.Second},
			"", providers.RateLimited, 2 * time.Second, []int{0, 0}, []string{"t0#1", "t1#2"}, nil},
		"after a failure, elsewhere": {[]*fake{{scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamFailed))}}, {scripts: [][]streamtest.Step{good}}}, nil,
			"role hello", 0, 0, []int{1, 1}, []string{"t0#1", "t1#2"}, []Spent{{}, {Input: 7, Output: 3}}},
		"after a failure, not elsewhere": {[]*fake{{scripts: [][]streamtest.Step{fails(upstream(providers.UpstreamFailed)), good}}, {scripts: [][]streamtest.Step{good}}},
			map[string]time.Duration{"t1": time.Second}, "role hello", 0, 0, []int{2, 0}, []string{"t0#1", "t1#2", "t0#3"}, []Spent{{}, {Input: 7, Output: 3}}},
		"cut": {[]*fake{{scripts: [][]streamtest.Step{append(slices.Clone(done), streamtest.Step{Err: upstream(providers.Truncated)})}}}, nil,
			"role hello", providers.Truncated, 0, []int{1}, []string{"t0#1"}, []Spent{{Output: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &doorman{refuse: c.refuse}
				opt := options()
				opt.Gate = d
				out, kind, retry := counted(t, opt, poolOf(c.targets...))
				if out != c.want || kind != c.kind || retry != c.retry {
					t.Errorf("got %q, kind %v, retry after %v", out, kind, retry)
				}
				for i, f := range c.targets {
					if f.calls != c.calls[i] {
						t.Errorf("target %d was called %d times, want %d", i, f.calls, c.calls[i])
					}
				}
				if !slices.Equal(d.asked, c.asked) || !slices.Equal(d.spent, c.spent) || d.open != 0 {
					t.Errorf("asked %v, spent %v, %d open", d.asked, d.spent, d.open)
				}
			})
		})
	}
}

// counted runs one answer as a relay does, which counts what flows.
func counted(t *testing.T, opt Options, p *Pool) (out string, kind providers.ErrorKind, retry time.Duration) {
	t.Helper()
	prog := streaming.NewProgress(time.Now())
	for batch, err := range New(onePool{p}, opt).Stream(t.Context(), &providers.Request{Model: "m", Stream: true}, prog) {
		if e := providers.AsError(err); e != nil {
			kind, retry = e.Kind, e.RetryAfter
		}
		prog.Count(batch, streaming.Uptime())
		for _, ev := range batch {
			if ev.Kind != streaming.Meta {
				out += string(ev.Raw) + " "
			}
		}
	}
	return strings.TrimSpace(out), kind, retry
}

// TestGateNotBlamed: a refusal takes nothing from the retry budget and cools nobody.
func TestGateNotBlamed(t *testing.T) {
	d := &doorman{refuse: map[string]time.Duration{"t0": time.Hour}}
	opt := options()
	opt.Gate, opt.Budget = d, Budget{}
	p := poolOf(&fake{scripts: [][]streamtest.Step{done}})
	for range 5 {
		if _, kind, retry := counted(t, opt, p); kind != providers.RateLimited || retry != time.Hour {
			t.Fatalf("kind %v, retry after %v", kind, retry)
		}
	}
	if p.Targets[0].state().cool(uptime()) {
		t.Error("the target is cooled")
	}
	d.refuse = nil
	if out, _, _ := counted(t, opt, p); out == "" {
		t.Error("no answer once the gate is open")
	}
}

// TestGatePanic: an attempt that panics is let go.
func TestGatePanic(t *testing.T) {
	d := &doorman{}
	opt := options()
	opt.Gate = d
	func() {
		defer func() { _ = recover() }()
		counted(t, opt, poolOf(&fake{scripts: [][]streamtest.Step{script(meta, streamtest.Step{Panic: "boom"})}}))
		t.Error("no panic")
	}()
	if d.open != 0 || len(d.spent) != 1 {
		t.Errorf("%d open, %d let go", d.open, len(d.spent))
	}
}

func TestPlaces(t *testing.T) {
	p := NewPlaces(map[string]int{"a": 2, "b": 0})
	try := func(upstream string) (func(Spent), error) {
		return p.Acquire(context.Background(), &Try{Target: &Target{Upstream: upstream}})
	}
	first, err := try("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := try("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := try("a"); providers.AsError(err) == nil || providers.AsError(err).Kind != providers.RateLimited || providers.AsError(err).RetryAfter <= 0 {
		t.Fatalf("the third: %v", err)
	}
	if n := p.Running("a"); n != 2 {
		t.Errorf("%d run", n)
	}
	first(Spent{})
	if _, err := try("a"); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	for range 10 {
		for _, name := range []string{"b", "c"} {
			if _, err := try(name); err != nil {
				t.Errorf("%s has no bound: %v", name, err)
			}
		}
	}
}

// TestPlacesRace: never more than the bound.
func TestPlacesRace(t *testing.T) {
	p := NewPlaces(map[string]int{"a": 3})
	var all sync.WaitGroup
	var held atomic.Int64
	for range 8 {
		all.Go(func() {
			for range 500 {
				if release, err := p.Acquire(context.Background(), &Try{Target: &Target{Upstream: "a"}}); err == nil {
					if n := held.Add(1); n > 3 {
						t.Errorf("%d run", n)
					}
					held.Add(-1)
					release(Spent{})
				}
			}
		})
	}
	all.Wait()
	if n := p.Running("a"); n != 0 {
		t.Errorf("%d run at the end", n)
	}
}

// TestGates: all must agree; what the first gave is given back when a later one refuses.
func TestGates(t *testing.T) {
	yes, no := &doorman{}, &doorman{refuse: map[string]time.Duration{"x": time.Second}}
	try := &Try{Target: &Target{Name: "x"}}
	if _, err := Gates(yes, no).Acquire(context.Background(), try); err == nil || yes.open != 0 {
		t.Errorf("error %v, %d open", err, yes.open)
	}
	release, err := Gates(yes, yes).Acquire(context.Background(), try)
	if err != nil || yes.open != 2 {
		t.Fatalf("error %v, %d open", err, yes.open)
	}
	if release(Spent{Output: 5}); yes.open != 0 || yes.spent[len(yes.spent)-1].Output != 5 {
		t.Errorf("%d open, spent %v", yes.open, yes.spent)
	}
	if _, err := Gates().Acquire(context.Background(), try); err != nil {
		t.Error(err)
	}
	if e := sooner(errors.New("x"), &providers.Error{RetryAfter: 1}); providers.AsError(e) == nil {
		t.Error("an error that tells when to try again is better than one that does not")
	}
}
