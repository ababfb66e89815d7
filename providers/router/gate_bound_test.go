package router

import (
	"testing"

	"sluice/providers"
)

// TestPlacesBound changes bounds while attempts run: those go on, and count.
func TestPlacesBound(t *testing.T) {
	p := NewPlaces(map[string]int{"a": 1})
	try := func(upstream string) func(Spent) {
		release, err := p.Acquire(t.Context(), &Try{Target: &Target{Upstream: upstream}})
		if e := providers.AsError(err); err != nil && (e == nil || e.Kind != providers.RateLimited) {
			t.Fatal(err)
		}
		return release
	}
	first := try("a")
	if first == nil || try("a") != nil {
		t.Fatal("the bound of 1 does not hold")
	}
	p.Bound(map[string]int{"a": 2, "b": 1})
	second := try("a")
	if second == nil || try("a") != nil || try("b") == nil || try("b") != nil {
		t.Fatal("the new bounds do not hold")
	}
	p.Bound(map[string]int{"a": 1})
	first(Spent{})
	if try("a") != nil || try("b") == nil || try("b") == nil {
		t.Fatal("one more than the lowered bound runs, or one without a bound is refused")
	}
	second(Spent{})
	if p.Running("a") != 0 || try("a") == nil {
		t.Errorf("%d run, and there is no place", p.Running("a"))
	}
}
