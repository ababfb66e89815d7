package mii

import (
	"context"

	"sluice/providers"
)

// capabilities are those of every deployment: prompts go in, text comes out.
const (
	does      = providers.ChatRoute | providers.CompletionsRoute | providers.Choices | providers.Prefill
	doesNot   = ^does & providers.All
	leavesOut = providers.Tools | providers.JSONObject | providers.JSONSchema | providers.Logprobs | providers.Reasoning | providers.Suffix
)

// Capabilities implements router.Capable; nothing has to be asked for.
func (t target) Capabilities(context.Context, providers.Feature) providers.Capabilities {
	can := providers.Capabilities{Kind: kind, Yes: does, No: doesNot}
	if t.opt.Drop {
		can.Dropped = leavesOut
	}
	return can
}
