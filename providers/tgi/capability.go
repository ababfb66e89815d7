package tgi

import (
	"context"
	"encoding/json"

	"sluice/providers"
)

// What the server's native API has, and what it has not but can be left out.
const (
	does      = providers.CompletionsRoute | providers.JSONObject | providers.JSONSchema | providers.Logprobs
	inChat    = providers.ChatRoute | providers.Prefill
	leavesOut = providers.Tools | providers.Choices | providers.Reasoning | providers.Suffix
)

// Capabilities implements router.Capable; the configuration says what the server does not.
func (t target) Capabilities(context.Context, providers.Feature) providers.Capabilities {
	can := providers.Capabilities{Kind: kind, Yes: does, No: providers.All &^ (does | inChat | providers.Vision)}
	if t.opt.Drop {
		can.Dropped = leavesOut
	}
	for _, own := range []struct {
		f   providers.Feature
		has bool
	}{{inChat, t.opt.Template != nil}, {providers.Vision, t.opt.Template != nil && t.opt.Images}} {
		if own.has {
			can.Yes |= own.f
		} else {
			can.No |= own.f
			can.Model |= own.f
		}
	}
	return can
}

// Told reads the answer of /info.
func (p *Provider) Told(m *providers.Model) (can providers.Capabilities) {
	var info struct {
		Pipeline string `json:"model_pipeline_tag"`
	}
	_ = json.Unmarshal(m.Raw, &info) // Models has read it
	if info.Pipeline == "text-generation" {
		can.No, can.Model = providers.Vision, providers.Vision
	}
	return can
}
