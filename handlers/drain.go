package handlers

import (
	"context"
	"sync"
	"time"

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
	until    time.Time // when new answers will be refused
	refusing bool
	running  int
	idle     chan struct{} // closed when refusing and nothing runs
	guests   map[Guest]struct{}
	gone     chan struct{} // closed when refusing and no guest is left
}

// Guest is a connection that outlives its answers, and has to be told of a drain.
// Its methods must not wait.
type Guest interface {
	// GoingAway tells that new answers will be refused in so long.
	GoingAway(in time.Duration)
	// Refuse tells that they are.
	Refuse()
}

// NewDrain returns a gate that is open. Contexts of requests must descend from Base.
func NewDrain() *Drain {
	d := &Drain{idle: make(chan struct{}), gone: make(chan struct{}), guests: map[Guest]struct{}{}}
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

// Lame makes the readiness check fail, and tells the guests that new answers will be
// refused in so long.
func (d *Drain) Lame(in time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.lame {
		d.lame, d.until = true, time.Now().Add(in)
		for g := range d.guests {
			g.GoingAway(in)
		}
	}
}

// Join adds a guest, who learns at once what it has missed; leave takes it out.
func (d *Drain) Join(g Guest) (leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guests[g] = struct{}{}
	if d.lame {
		g.GoingAway(max(time.Until(d.until), 0))
	}
	if d.refusing {
		g.Refuse()
	}
	return func() { d.part(g) }
}

func (d *Drain) part(g Guest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.guests, g)
	d.emptied()
}

// emptied tells who waits that no guest is left. mu is held.
func (d *Drain) emptied() {
	if !d.refusing || len(d.guests) > 0 {
		return
	}
	select {
	case <-d.gone:
	default:
		close(d.gone)
	}
}

// Gone is closed when new answers are refused and no guest is left.
func (d *Drain) Gone() <-chan struct{} { return d.gone }

// Refusing reports whether new answers are refused.
func (d *Drain) Refusing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refusing
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
		for g := range d.guests {
			g.Refuse()
		}
		d.emptied()
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
