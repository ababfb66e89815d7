package handlers

import (
	"maps"
	"sync"
	"sync/atomic"
)

// labels are the values of up to three labels.
type labels [3]string

// children remembers what a vector of metrics gave for labels: the vector itself hashes
// them under a lock each time. It is as small as the vector is. Safe for concurrent use.
type children[T any] struct {
	make  func(values ...string) T
	n     int // labels of the vector
	known atomic.Pointer[map[labels]T]
	mu    sync.Mutex
}

func newChildren[T any](n int, vector func(values ...string) T) *children[T] {
	c := &children[T]{make: vector, n: n}
	c.known.Store(&map[labels]T{})
	return c
}

// of returns the metric for the values of the vector's labels; places that it has not are "".
func (c *children[T]) of(a, b, d string) T {
	l := labels{a, b, d}
	if child, ok := (*c.known.Load())[l]; ok {
		return child
	}
	return c.add(a, b, d)
}

// add stays out of of, whose labels it would put on the heap.
//
//go:noinline
func (c *children[T]) add(a, b, d string) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := labels{a, b, d}
	more := maps.Clone(*c.known.Load())
	child := c.make(l[:c.n]...)
	more[l] = child
	c.known.Store(&more)
	return child
}
