package router

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming/streamtest"
)

// lister lists after a delay.
type lister struct {
	ids   []string
	after time.Duration
	err   error
	calls int
}

func (l *lister) Models(ctx context.Context) ([]providers.Model, error) {
	l.calls++
	select {
	case <-time.After(l.after):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var out []providers.Model
	for _, id := range l.ids {
		out = append(out, providers.Model{ID: id})
	}
	return out, l.err
}

func up(name string, l *lister, declared ...string) Upstream {
	u := Upstream{Name: name, Models: declared, Target: func(string) providers.Provider { return &fake{scripts: [][]streamtest.Step{done}} }}
	if l != nil {
		u.Lister = l
	}
	return u
}

func ids(models []providers.Model) (out []string) {
	for _, m := range models {
		out = append(out, m.ID)
	}
	return out
}

func TestModelsAreAUnion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &lister{ids: []string{"late"}, after: time.Hour}
		c := NewCatalog([]*Pool{{Model: "assistant"}}, []Upstream{
			up("a", &lister{ids: []string{"m1", "shared"}}), up("b", &lister{ids: []string{"shared", "m2"}}),
			up("c", nil, "declared", "glob-*"), up("d", &lister{ids: []string{"kept", "hidden"}}, "kept"), up("slow", slow),
		}, 3*time.Second, 30*time.Second)
		start := time.Now()
		got := ids(c.Models(t.Context()))
		if want := []string{"assistant", "m1", "shared", "m2", "declared", "kept"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("a slow upstream held the list up for %v", took)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
	})
}

// A list that is known is given at once, and renewed beside the caller.
func TestListIsRenewedBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lister{ids: []string{"m"}}
		c := NewCatalog(nil, []Upstream{up("a", l)}, 3*time.Second, 30*time.Second)
		c.Models(t.Context())
		l.after, l.ids = 2*time.Second, []string{"m", "new"}
		time.Sleep(31 * time.Second)
		start := time.Now()
		if got := ids(c.Models(t.Context())); len(got) != 1 || time.Since(start) != 0 {
			t.Errorf("%v after %v", got, time.Since(start))
		}
		time.Sleep(3 * time.Second)
		if got := ids(c.Models(t.Context())); len(got) != 2 || l.calls != 2 {
			t.Errorf("%v after %d calls", got, l.calls)
		}
	})
}

func TestResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &Pool{Model: "assistant", Targets: []*Target{{Name: "a/x"}}}
		c := NewCatalog([]*Pool{pool}, []Upstream{
			up("a", &lister{ids: []string{"m1", "both", "org/m:x"}}), up("b", &lister{ids: []string{"both"}}),
			up("g", nil, "gpt-*"), up("k", &lister{ids: []string{"hidden"}}, "kept"),
		}, time.Second, 30*time.Second)
		for model, want := range map[string]string{
			"assistant": "a/x", "m1": "a/m1", "both": "a/both b/both", "org/m:x": "a/org/m:x", "gpt-4o": "g/gpt-4o", "kept": "k/kept",
		} {
			p, err := c.Resolve(t.Context(), model)
			if err != nil {
				t.Errorf("%s: %v", model, err)
				continue
			}
			var names []string
			for _, target := range p.Targets {
				names = append(names, target.Name)
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("%s: %s, want %s", model, got, want)
			}
			if again, _ := c.Resolve(t.Context(), model); again != p {
				t.Errorf("%s: a second pool, with a budget of its own", model)
			}
		}
		_, err := c.Resolve(t.Context(), "asistant")
		if e := providers.AsError(err); e == nil || e.Kind != providers.ModelNotFound || !strings.Contains(e.Message, "assistant") {
			t.Errorf("got %v", err)
		}
		if _, err := c.Resolve(t.Context(), "hidden"); err == nil {
			t.Error("a model that its upstream does not declare was served")
		}
	})
}

func TestUnknownWhileAnUpstreamIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCatalog(nil, []Upstream{up("a", &lister{err: errors.New("refused")})}, time.Second, 30*time.Second)
		_, err := c.Resolve(t.Context(), "m")
		if e := providers.AsError(err); e == nil || e.Kind != providers.Unreachable || e.Target != "a" {
			t.Errorf("got %v: a model may exist on a server that cannot be asked", err)
		}
	})
}

// A dead upstream is waited for once; after that only by who would fail otherwise,
// and not more often than lists are renewed.
func TestDeadUpstreamIsWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := &lister{after: time.Hour}
		c := NewCatalog(nil, []Upstream{up("a", &lister{ids: []string{"m"}}), up("dead", dead)}, 3*time.Second, 30*time.Second)
		takes := func(what string, want time.Duration, do func()) {
			t.Helper()
			start := time.Now()
			do()
			if took := time.Since(start); took != want {
				t.Errorf("%s took %v, want %v", what, took, want)
			}
		}
		list := func() { c.Models(t.Context()) }
		unknown := func() {
			_, err := c.Resolve(t.Context(), "other")
			if e := providers.AsError(err); e == nil || e.Kind != providers.Unreachable || e.Target != "dead" {
				t.Errorf("got %v", err)
			}
		}
		takes("the first calls", 3*time.Second, func() {
			var wg sync.WaitGroup
			wg.Go(list)
			wg.Go(unknown)
			wg.Wait()
		})
		takes("a list after it", 0, list)
		takes("an unknown model", 0, unknown)
		if dead.calls != 1 {
			t.Errorf("asked %d times within a second of its failure", dead.calls)
		}
		time.Sleep(10 * time.Second)
		takes("an unknown model, asked beside", 0, unknown)
		synctest.Wait()
		if dead.calls != 2 {
			t.Errorf("asked %d times, want once more beside the caller", dead.calls)
		}
		time.Sleep(time.Minute)
		takes("a list, long after", 0, list)
		time.Sleep(time.Minute)
		takes("a known model, long after", 0, func() {
			if _, err := c.Resolve(t.Context(), "m"); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Minute)
		takes("an unknown model, long after", 3*time.Second, unknown)
		dead.after, dead.ids = 0, []string{"other"}
		time.Sleep(time.Minute)
		takes("a model of a server that came up", 0, func() {
			if _, err := c.Resolve(t.Context(), "other"); err != nil {
				t.Error(err)
			}
		})
	})
}
