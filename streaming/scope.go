package streaming

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Scope is a context for one answer or one attempt of it: it ends with its parent, or by
// Cancel with an error that says why. It does what context.WithCancelCause does for a
// part of the cost, which counts where every request needs several: scopes below it, and
// functions to run at the end, are kept without a channel and a map at each level.
//
// Err is the cause itself, so context.Cause tells it here and in every context below.
type Scope struct {
	parent context.Context
	end    time.Time // what is told of it; zero: that of the parent

	mu    sync.Mutex
	err   error
	done  chan struct{}             // made when first asked for
	leave interface{ gone(*Scope) } // the parent's hold on this scope
	below []*Scope                  // that end with it
	after []hook
	ids   uint64
	room  struct { // what most scopes need of below and after
		below [1]*Scope
		after [1]hook
	}
}

// hook is a function that waits for the end of a scope.
type hook struct {
	id  uint64
	run func()
}

// foreign is a parent of the context package.
type foreign struct{ stop func() bool }

func (f foreign) gone(*Scope) { f.stop() }

// Begin puts a zero Scope below parent. It must be called once, before all else, and whoever
// called it must Cancel the scope in the end.
func (s *Scope) Begin(parent context.Context) {
	s.parent = parent
	s.below, s.after = s.room.below[:0], s.room.after[:0]
	if above, ok := parent.(*Scope); ok {
		above.take(s)
		return
	}
	if parent.Done() == nil {
		return
	}
	stop := context.AfterFunc(parent, func() { s.Cancel(context.Cause(parent)) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave = foreign{stop}
}

// take holds a scope that nobody else knows yet.
func (s *Scope) take(child *Scope) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		child.err = s.err
		return
	}
	child.leave = s
	s.below = append(s.below, child)
}

func (s *Scope) gone(child *Scope) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.below, child); i >= 0 {
		s.below = slices.Delete(s.below, i, i+1)
	}
}

// EndBy tells those below when the scope will be cancelled at the latest, which is up to the
// caller. It must be called before the scope is handed on.
func (s *Scope) EndBy(at time.Time) { s.end = at }

// Cancel ends the scope. The first call counts; a nil cause is context.Canceled. It never
// blocks, and may be called from any goroutine.
func (s *Scope) Cancel(cause error) {
	if cause == nil {
		cause = context.Canceled
	}
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = cause
	below, after, leave := s.below, s.after, s.leave
	s.below, s.after, s.leave = nil, nil, nil
	if s.done != nil {
		close(s.done)
	}
	s.mu.Unlock()
	for _, child := range below {
		child.Cancel(cause)
	}
	for _, h := range after {
		go h.run()
	}
	if leave != nil {
		leave.gone(s)
	}
}

// AfterFunc is context.AfterFunc for this scope; contexts made by that package use it too.
func (s *Scope) AfterFunc(f func()) (stop func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		go f()
		return func() bool { return false }
	}
	s.ids++
	id := s.ids
	s.after = append(s.after, hook{id, f})
	return func() bool { return s.forget(id) }
}

// forget reports whether it came before the end.
func (s *Scope) forget(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.after, func(h hook) bool { return h.id == id })
	if i < 0 {
		return false
	}
	s.after = slices.Delete(s.after, i, i+1)
	return true
}

// Done implements context.Context.
func (s *Scope) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
		if s.err != nil {
			close(s.done)
		}
	}
	return s.done
}

// Err is nil until the scope has ended, then why it has.
func (s *Scope) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Deadline implements context.Context.
func (s *Scope) Deadline() (time.Time, bool) {
	end, ok := s.parent.Deadline()
	if s.end.IsZero() || ok && end.Before(s.end) {
		return end, ok
	}
	return s.end, true
}

// Value implements context.Context. The context package looks for its own nearest context
// by a pointer to an integer; there is none between this scope and what is below it, and the
// parent's would tell the parent's cause.
func (s *Scope) Value(key any) any {
	if _, internal := key.(*int); internal {
		return nil
	}
	return s.parent.Value(key)
}
