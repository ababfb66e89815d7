package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// Go collects a heap when it has doubled. A gateway's live heap is a few megabytes,
// so under load it is collected all the time, at about a fifth of the CPU of a short
// request. Here a small heap may grow by a fixed headroom instead; one that is larger
// than the headroom doubles as ever.

var tuneOnce sync.Once

// tuneHeap sets the headroom for the whole process, once. An operator who has set
// GOGC is left alone, and so is a headroom of 0.
func tuneHeap(headroom int64) {
	if _, set := os.LookupEnv("GOGC"); set || headroom <= 0 {
		return
	}
	tuneOnce.Do(func() {
		t := &heapTuner{headroom: headroom, percent: defaultGCPercent}
		t.adjust()
		t.arm()
	})
}

const defaultGCPercent = 100

// gcPercent is the setting with which roots (what the collector counts: live heap,
// stacks, globals) are collected after the headroom.
func gcPercent(headroom, roots int64) int {
	return int(max(defaultGCPercent, headroom*100/max(roots, 1<<20)))
}

// heapTuner follows the live heap: it runs after every collection, in the
// finalizer's goroutine, and nowhere else.
type heapTuner struct {
	headroom int64
	percent  int
}

// sentinel is an object that every collection finds dead. Its pointer keeps it out of
// the allocator's shared tiny blocks.
type sentinel struct{ of *heapTuner }

func (t *heapTuner) arm() {
	runtime.SetFinalizer(&sentinel{t}, func(s *sentinel) {
		s.of.adjust()
		s.of.arm()
	})
}

// adjust stops the world for a moment, so it only does for a change that matters.
func (t *heapTuner) adjust() {
	p := gcPercent(t.headroom, gcRoots())
	if p*5 < t.percent*4 || p*4 > t.percent*5 {
		t.percent = p
		debug.SetGCPercent(p)
	}
}

func gcRoots() (bytes int64) {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(s)
	for i := range s {
		if s[i].Value.Kind() == metrics.KindUint64 {
			bytes += int64(s[i].Value.Uint64())
		}
	}
	return bytes
}
