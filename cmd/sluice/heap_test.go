package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestGCPercent(t *testing.T) {
	for _, c := range []struct {
		headroom, roots int64
		want            int
	}{
		{64 << 20, 4 << 20, 1600}, {64 << 20, 64 << 20, 100}, {64 << 20, 1 << 30, 100}, {64 << 20, 0, 6400}, {64 << 20, 32 << 20, 200},
	} {
		if got := gcPercent(c.headroom, c.roots); got != c.want {
			t.Errorf("headroom %d, roots %d: %d, want %d", c.headroom, c.roots, got, c.want)
		}
	}
}

// The tuner follows a heap up and down.
func TestHeapTunerFollows(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	tuner := &heapTuner{headroom: 1 << 30, percent: defaultGCPercent}
	runtime.GC()
	tuner.adjust()
	small := tuner.percent
	ballast := make([]byte, 512<<20)
	runtime.GC()
	tuner.adjust()
	if small <= 2*tuner.percent || tuner.percent > 200 {
		t.Errorf("%d %% for a small heap, %d %% for one of 512 MiB, with 1 GiB of headroom", small, tuner.percent)
	}
	runtime.KeepAlive(ballast)
}
