package main

import (
	"runtime"

	"sluice/providers/kit/pixels"
	"sluice/providers/kserve"
)

func newKServe(c *Config, u *Upstream, version string) adapter {
	k := &u.KServe
	limits := pixels.Limits{Pixels: int64(k.MaxPixels), Decoders: k.Decoders, Memory: int64(k.DecodeMemory), Waiting: k.DecodeQueue}
	if limits.Decoders == 0 {
		limits.Decoders = runtime.GOMAXPROCS(0)
	}
	return kserve.New(kserve.Options{
		Upstream: withKey(newUpstream(c, u, version), u), GRPC: k.Transport == "grpc", Binary: k.BinaryTensors, PlainStreams: k.Streams == "plain",
		Models: k.schemas, Images: pixels.NewPool(limits), MaxImages: k.MaxImages, Drop: u.Unsupported == "drop",
		MaxEvent: int(c.Sizes.UpstreamEvent), MaxAnswer: int(c.Sizes.Answer),
	})
}
