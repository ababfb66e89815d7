package ratelimit

import (
	"context"
	"errors"
	"sync"
	"time"
)

// redisBatcher sends calls to Redis. One that finds a trip free leaves at once, on its caller's
// goroutine; those that come while all trips are under way leave together with the next.
type redisBatcher struct {
	send  func(context.Context, []*redisCall)
	limit time.Duration // of one trip
	width int           // trips at a time
	most  int           // calls of one trip; a group is not torn apart
	room  int           // groups that wait; beyond it they are turned away

	mu    sync.Mutex
	busy  int
	queue []*redisGroup
}

// redisGroup is what one caller sends.
type redisGroup struct {
	calls []*redisCall
	done  chan struct{} // closed when all calls have their outcome
	left  bool          // the caller did not wait; guarded by redisBatcher.mu
}

var (
	errQueue = errors.New("too many calls wait for Redis")
	errLeft  = errors.New("no answer in time")
)

// do returns when the calls have their outcome, and then nil. On an error nothing is known
// of them, and the caller may not touch them again.
func (b *redisBatcher) do(ctx context.Context, calls []*redisCall) error {
	b.mu.Lock()
	if b.busy < b.width {
		b.busy++
		b.mu.Unlock()
		b.trip(calls)
		b.next()
		return nil
	}
	if len(b.queue) >= b.room {
		b.mu.Unlock()
		return errQueue
	}
	g := &redisGroup{calls: calls, done: make(chan struct{})}
	b.queue = append(b.queue, g)
	b.mu.Unlock()
	select {
	case <-g.done:
		return nil
	case <-ctx.Done():
		b.mu.Lock()
		g.left = true
		b.mu.Unlock()
		return errors.Join(errLeft, context.Cause(ctx))
	}
}

// trip does not use a caller's context: the calls of others go with it.
func (b *redisBatcher) trip(calls []*redisCall) {
	ctx, cancel := context.WithTimeout(context.Background(), b.limit)
	defer cancel()
	b.send(ctx, calls)
}

// next gives the trip that has ended to those who wait.
func (b *redisBatcher) next() {
	b.mu.Lock()
	waiting := len(b.queue) > 0
	if !waiting {
		b.busy--
	}
	b.mu.Unlock()
	if waiting {
		go b.serve()
	}
}

func (b *redisBatcher) serve() {
	for {
		groups, calls := b.load()
		if len(groups) == 0 {
			return
		}
		b.trip(calls)
		for _, g := range groups {
			close(g.done)
		}
	}
}

// load takes from the queue what goes with one trip. When it takes nothing the trip is free.
func (b *redisBatcher) load() (groups []*redisGroup, calls []*redisCall) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for ; n < len(b.queue) && len(calls) < b.most; n++ {
		if g := b.queue[n]; !g.left {
			groups = append(groups, g)
			calls = append(calls, g.calls...)
		}
	}
	rest := copy(b.queue, b.queue[n:])
	clear(b.queue[rest:])
	b.queue = b.queue[:rest]
	if len(groups) == 0 {
		b.busy--
	}
	return groups, calls
}
