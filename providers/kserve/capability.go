package kserve

import (
	"context"

	"sluice/providers"
)

// leavesOut is what can be left out of a request.
const leavesOut = providers.Tools | providers.JSONObject | providers.JSONSchema | providers.Logprobs | providers.Choices | providers.Reasoning | providers.Suffix

// Capabilities implements router.Capable: the declared schema tells. A model without one
// takes tensors; who sends it anything else is told what to do by the adapter.
func (t target) Capabilities(context.Context, providers.Feature) providers.Capabilities {
	can := providers.Capabilities{Kind: kind, Yes: providers.Tensors, No: providers.ModerationsRoute | providers.ResponsesRoute | providers.OtherRoutes}
	if t.opt.Drop {
		can.Dropped = leavesOut
	}
	if m := t.models[t.model]; m != nil {
		can = can.With(m.capabilities())
	}
	return can
}

func (m *Model) capabilities() providers.Capabilities {
	images := m.takesImages()
	can := providers.Capabilities{Yes: providers.ChatRoute}
	set := func(f providers.Feature, yes bool) {
		if yes {
			can.Yes |= f
		} else {
			can.No |= f
		}
	}
	set(providers.Vision, images)
	set(providers.CompletionsRoute, !images)
	set(providers.EmbeddingsRoute, m.output(AsEmbedding) != nil)
	if m.Decoupled {
		can.No |= providers.Tensors // one answer cannot hold what it gives
	}
	can.Model = can.No
	set(providers.Audio|providers.Files, false)
	set(providers.Choices, false)
	for _, p := range []struct {
		features providers.Feature
		param    string
	}{
		{providers.Tools, "tools"}, {providers.Logprobs, "logprobs"}, {providers.Suffix, "suffix"},
		{providers.Reasoning, "reasoning_effort"}, {providers.JSONSchema, "response_format"},
	} {
		set(p.features, m.generates() && m.takesParam(p.param))
	}
	set(providers.JSONObject, !m.generates() || m.takesParam("response_format"))
	if m.generates() && m.Template != nil {
		set(providers.Prefill, true)
		set(providers.ToolMessages, false)
	}
	return can
}

// takesParam reports whether an input comes from a parameter.
func (m *Model) takesParam(name string) bool {
	for i := range m.Inputs {
		if in := &m.Inputs[i]; in.Source == FromParam && in.Param == name {
			return true
		}
	}
	return false
}
