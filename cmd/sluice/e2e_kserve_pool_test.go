package main

import "testing"

// TestOneImagePool: upstreams decode with one pool, as large as the largest asks for;
// gateways with a configuration of their own have their own.
func TestOneImagePool(t *testing.T) {
	upstream := func(kind string, decoders, queue int, memory Size) Upstream {
		return Upstream{Kind: kind, KServe: KServe{Decoders: decoders, DecodeQueue: queue, DecodeMemory: memory}}
	}
	c := &Config{Upstreams: []Upstream{upstream("openai", 9, 9, 9*mib), upstream("kserve", 2, 7, 3*mib), upstream("kserve", 5, 1, 2*mib)}}
	pool := imagePool(c)
	if imagePool(c) != pool {
		t.Error("each asks for a pool of its own")
	}
	if got := pool.Limits(); got.Decoders != 5 || got.Waiting != 7 || got.Memory != int64(3*mib) {
		t.Errorf("%+v", got)
	}
	if other := imagePool(&Config{Upstreams: []Upstream{upstream("kserve", 1, 1, mib)}}); other == pool {
		t.Error("two configurations share a pool")
	}
}
