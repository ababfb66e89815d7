package main

import (
	"runtime"

	"sluice/providers/kit/pixels"
	"sluice/providers/kserve"
)

func newKServe(c *Config, u *Upstream, m maker) adapter {
	k := &u.KServe
	return kserve.New(kserve.Options{
		Upstream: withKey(newUpstream(c, u, m), u), GRPC: k.Transport == "grpc", Binary: k.BinaryTensors, PlainStreams: k.Streams == "plain",
		Models: k.schemas, Images: imagePool(c).WithPixels(int64(k.MaxPixels)), MaxImages: k.MaxImages, Drop: u.Unsupported == "drop",
		MaxEvent: int(c.Sizes.UpstreamEvent), MaxAnswer: int(c.Sizes.Answer),
	})
}

// imagePool is what all upstreams decode images with: each has some bounds for itself,
// and what is held in memory is a matter of the process. The largest bounds hold.
func imagePool(c *Config) *pixels.Pool {
	var limits pixels.Limits
	var first *KServe
	for i := range c.Upstreams {
		k := &c.Upstreams[i].KServe
		if c.Upstreams[i].Kind != "kserve" {
			continue
		}
		if first == nil {
			first = k
		}
		decoders := k.Decoders
		if decoders == 0 {
			decoders = runtime.GOMAXPROCS(0)
		}
		limits.Decoders, limits.Memory, limits.Waiting = max(limits.Decoders, decoders), max(limits.Memory, int64(k.DecodeMemory)), max(limits.Waiting, k.DecodeQueue)
	}
	if first.images == nil {
		first.images = pixels.NewPool(limits)
	}
	return first.images
}
