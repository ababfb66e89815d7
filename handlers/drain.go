package handlers

import (
	"context"
	"sync"

	"sluice/streaming"
)

// Drain is the way from serving to the end: first the readiness check fails while
// everything is served, then new answers are refused, then what still runs is cut.
// It is safe for concurrent use.
type Drain struct {
	base context.Context
	cut  context.CancelCauseFunc

	mu       sync.Mutex
	lame     bool
	refusing bool
	running  int
	idle     chan struct{} // closed when refusing and nothing runs
}

// NewDrain returns a gate that is open. Contexts of requests must descend from Base.
func NewDrain() *Drain {
	d := &Drain{idle: make(chan struct{})}
	d.base, d.cut = context.WithCancelCause(context.Background())
	return d
}

// Base is the ancestor of every request's context; Cut ends it.
func (d *Drain) Base() context.Context { return d.base }

// Ready reports whether a balancer should send requests.
func (d *Drain) Ready() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.lame
}

// Lame makes the readiness check fail.
func (d *Drain) Lame() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lame = true
}

// Enter admits an answer; each that is admitted must Leave.
func (d *Drain) Enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refusing {
		return false
	}
	d.running++
	return true
}

// Leave ends an answer.
func (d *Drain) Leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running--; d.running == 0 && d.refusing {
		close(d.idle)
	}
}

// Refuse admits nothing more. The channel closes when nothing runs any longer.
func (d *Drain) Refuse() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lame = true
	if !d.refusing {
		d.refusing = true
		if d.running == 0 {
			close(d.idle)
		}
	}
	return d.idle
}

// Running counts the answers under way.
func (d *Drain) Running() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running
}

// Cut ends every running answer with a truthful error.
func (d *Drain) Cut() { d.cut(streaming.ErrDraining) }
