package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"sluice/handlers/auth/store"
)

func overrides(t testing.TB, s *store.Store) *store.Overrides {
	t.Helper()
	o, err := s.Overrides(t.Context(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func mustOverride(t testing.TB, o *store.Overrides, path, value string) store.Override {
	t.Helper()
	_, is, err := o.Set(t.Context(), store.Override{Path: path, Value: value, By: "ada", Note: "why"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func paths(o *store.Overrides) string {
	var all []string
	for _, item := range o.All().Items {
		all = append(all, item.Path+"="+item.Value)
	}
	return strings.Join(all, " ")
}

// testOverrides sets, replaces and removes, and finds all of it again in a store that was
// closed.
func testOverrides(t *testing.T, p Place) {
	s := p.Open(t, Options(t))
	o := overrides(t, s)
	if set := o.All(); set.Version != 0 || len(set.Items) != 0 {
		t.Errorf("at first: %+v", set)
	}
	mustOverride(t, o, "b", "1")
	first := mustOverride(t, o, "a", "true")
	if first.Version != 2 || first.At.IsZero() || first.By != "ada" || first.Note != "why" {
		t.Errorf("set %+v", first)
	}
	was, is, err := o.Set(t.Context(), store.Override{Path: "a", Value: "false", By: "bob"}, first.Version)
	if err != nil || was != first || is.Version != 3 || is.By != "bob" {
		t.Errorf("replaced %+v by %+v: %v", was, is, err)
	}
	if _, _, err := o.Set(t.Context(), store.Override{Path: "a", Value: "true"}, first.Version); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an old version: %v", err)
	}
	if _, err := o.Remove(t.Context(), "a", first.Version); !errors.Is(err, store.ErrConflict) {
		t.Errorf("removing an old version: %v", err)
	}
	if _, err := o.Remove(t.Context(), "c", 0); !errors.Is(err, store.ErrNoOverride) {
		t.Errorf("removing what is not there: %v", err)
	}
	for name, item := range map[string]store.Override{"no path": {Value: "1"}, "long": {Path: "a", Value: strings.Repeat("1", 2000)}} {
		var bad store.Problems
		if _, _, err := o.Set(t.Context(), item, 0); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o = overrides(t, open(t, p, Options(t)))
	defer o.Close()
	if got := paths(o); got != "a=false b=1" {
		t.Errorf("found %q again", got)
	}
	if got, ok := o.All().Get("a"); !ok || got != is {
		t.Errorf("found %+v, was %+v", got, is)
	}
	if was, err := o.Remove(t.Context(), "a", is.Version); err != nil || was != is || paths(o) != "b=1" {
		t.Errorf("removed %+v: %v, left %q", was, err, paths(o))
	}
}

// testOverrideEdits edits different paths at the same time: no edit is lost.
func testOverrideEdits(t *testing.T, p Place) {
	o := overrides(t, open(t, p, Options(t)))
	defer o.Close()
	const writers, each = 4, 5
	var wg sync.WaitGroup
	var done sync.Map
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				path := fmt.Sprintf("p%d.%d", w, i)
				_, _, err := o.Set(t.Context(), store.Override{Path: path, Value: "1"}, 0)
				if err != nil && !errors.Is(err, store.ErrConflict) {
					t.Error(err)
				}
				done.Store(path, err == nil)
			}
		})
	}
	wg.Wait()
	set, want := o.All(), 0
	done.Range(func(path, ok any) bool {
		if _, there := set.Get(path.(string)); there != ok.(bool) {
			t.Errorf("%s: written %t, there %t", path, ok, there)
		}
		if ok.(bool) {
			want++
		}
		return true
	})
	if want == 0 || len(set.Items) != want || set.Version != uint64(want) {
		t.Errorf("%d edits, version %d with %d", want, set.Version, len(set.Items))
	}
}
