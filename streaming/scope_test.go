package streaming

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errWhy = errors.New("why")

// TestScopeEnds looks at a scope, a scope below it and contexts of the standard library
// between and below, for every way in which they end.
func TestScopeEnds(t *testing.T) {
	type key struct{}
	type tree struct {
		root       context.CancelCauseFunc
		top, under Scope
	}
	for name, tc := range map[string]struct {
		end           func(*tree)
		top, under    error
		alreadyBefore bool
	}{
		"parent":             {func(x *tree) { x.root(errWhy) }, errWhy, errWhy, false},
		"parent, bare":       {func(x *tree) { x.root(nil) }, context.Canceled, context.Canceled, false},
		"itself":             {func(x *tree) { x.top.Cancel(errWhy) }, errWhy, errWhy, false},
		"itself, bare":       {func(x *tree) { x.top.Cancel(nil) }, context.Canceled, context.Canceled, false},
		"below":              {func(x *tree) { x.under.Cancel(errWhy) }, nil, errWhy, false},
		"the first counts":   {func(x *tree) { x.top.Cancel(errWhy); x.root(nil) }, errWhy, errWhy, false},
		"below, then itself": {func(x *tree) { x.under.Cancel(errWhy); x.top.Cancel(nil) }, context.Canceled, errWhy, false},
		"before it began":    {func(x *tree) { x.root(errWhy) }, errWhy, errWhy, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var x tree
				parent, cancel := context.WithCancelCause(context.Background())
				defer cancel(nil)
				x.root = cancel
				if tc.alreadyBefore {
					tc.end(&x)
				}
				x.top.Begin(parent)
				defer x.top.Cancel(nil)
				between, stop := context.WithCancel(context.WithValue(&x.top, key{}, "v"))
				defer stop()
				x.under.Begin(between)
				defer x.under.Cancel(nil)
				leaf, stop := context.WithTimeout(&x.under, time.Hour)
				defer stop()
				if !tc.alreadyBefore {
					tc.end(&x)
				}
				synctest.Wait()
				for what, c := range map[string]struct {
					ctx  context.Context
					want error
				}{"top": {&x.top, tc.top}, "between": {between, tc.top}, "under": {&x.under, tc.under}, "leaf": {leaf, tc.under}} {
					if got := context.Cause(c.ctx); got != c.want || (c.ctx.Err() != nil) != (c.want != nil) {
						t.Errorf("%s ended with %v (%v), want %v", what, got, c.ctx.Err(), c.want)
					}
					select {
					case <-c.ctx.Done():
						if c.want == nil {
							t.Errorf("%s is done", what)
						}
					default:
						if c.want != nil {
							t.Errorf("%s is not done", what)
						}
					}
				}
				if x.under.Value(key{}) != "v" {
					t.Error("a value was lost")
				}
			})
		})
	}
}

// TestScopeAfterFunc runs each function once, after the end, unless it was stopped before.
func TestScopeAfterFunc(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scope
		s.Begin(context.Background())
		var mu sync.Mutex
		ran := map[string]int{}
		note := func(name string) func() {
			return func() { mu.Lock(); defer mu.Unlock(); ran[name]++ }
		}
		stop := s.AfterFunc(note("stopped"))
		s.AfterFunc(note("first"))
		s.AfterFunc(note("second"))
		context.AfterFunc(&s, note("through context"))
		if !stop() || stop() {
			t.Error("stop told the wrong thing")
		}
		if ctx := context.Context(&s); ctx.Err() != nil {
			t.Error(ctx.Err())
		}
		s.Cancel(errWhy)
		late := s.AfterFunc(note("late"))
		synctest.Wait()
		if late() {
			t.Error("a function that has run was stopped")
		}
		mu.Lock()
		defer mu.Unlock()
		for _, name := range []string{"first", "second", "through context", "late"} {
			if ran[name] != 1 {
				t.Errorf("%s ran %d times", name, ran[name])
			}
		}
		if len(ran) != 4 {
			t.Errorf("%v", ran)
		}
	})
}

// TestScopeDeadline tells the nearer of its own end and the parent's.
func TestScopeDeadline(t *testing.T) {
	far, stop := context.WithTimeout(context.Background(), time.Hour)
	defer stop()
	for _, own := range []time.Duration{0, time.Minute, 2 * time.Hour} {
		var s Scope
		s.Begin(far)
		if own > 0 {
			s.EndBy(time.Now().Add(own))
		}
		want, _ := far.Deadline()
		if own == time.Minute {
			want = s.end
		}
		if got, ok := s.Deadline(); !ok || !got.Equal(want) {
			t.Errorf("%v: %v, %v", own, got, ok)
		}
		s.Cancel(nil)
	}
	var s Scope
	s.Begin(context.Background())
	if _, ok := s.Deadline(); ok {
		t.Error("a deadline out of nowhere")
	}
}

// TestScopeRace ends scopes from several sides at once.
func TestScopeRace(t *testing.T) {
	for range 200 {
		parent, cancel := context.WithCancelCause(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { cancel(errWhy) })
		var top, under Scope
		top.Begin(parent)
		under.Begin(&top)
		ended := make(chan struct{})
		under.AfterFunc(func() { close(ended) })
		wg.Go(func() { top.Cancel(errWhy) })
		wg.Go(func() { under.Cancel(errWhy) })
		<-ended
		wg.Wait()
		if under.Err() != errWhy {
			t.Fatal(under.Err())
		}
	}
}

// BenchmarkScope is what two levels and a function to run cost, against the same with package context.
func BenchmarkScope(b *testing.B) {
	b.Run("scope", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			parent, cancel := context.WithCancel(context.Background())
			var top, under Scope
			top.Begin(parent)
			under.Begin(&top)
			stop := under.AfterFunc(func() {})
			stop()
			under.Cancel(nil)
			top.Cancel(nil)
			cancel()
		}
	})
	b.Run("context", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			parent, cancel := context.WithCancel(context.Background())
			top, endTop := context.WithCancelCause(parent)
			under, endUnder := context.WithCancelCause(top)
			stop := context.AfterFunc(under, func() {})
			stop()
			endUnder(nil)
			endTop(nil)
			cancel()
		}
	})
}
