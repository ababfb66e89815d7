package anthropic

import (
	"context"
	"encoding/json"

	"sluice/providers"
)

// What the API has for every model or for none, and what can be left out.
const (
	does    = providers.ChatRoute | providers.CompletionsRoute | providers.Tools | providers.ToolMessages
	doesNot = providers.EmbeddingsRoute | providers.ModerationsRoute | providers.ResponsesRoute | providers.OtherRoutes | providers.Tensors |
		providers.Audio | providers.JSONObject | providers.Logprobs | providers.Choices | providers.Suffix
	leavesOut = providers.JSONObject | providers.JSONSchema | providers.Logprobs | providers.Choices | providers.Suffix | providers.Reasoning
)

// Capabilities implements router.Capable: the model's name tells.
func (t target) Capabilities(context.Context, providers.Feature) providers.Capabilities { return t.can }

func (t target) capabilities() providers.Capabilities {
	can := providers.Capabilities{Kind: upstreamKind, Yes: does, No: doesNot}
	r := t.rules()
	line, v, known := parseModel(t.model)
	old := known && line == "" && v < 300 // from before the lines, and images and tools
	for _, own := range []struct {
		f   providers.Feature
		has bool
	}{
		{providers.JSONSchema, r.native || r.byTool && r.forced},
		{providers.Reasoning, r.thinking != noThinking},
		{providers.Vision, !old},
		{providers.Prefill, !known || continues(line, v)},
	} {
		switch {
		case !own.has:
			can.No |= own.f
			can.Model |= own.f
		case known:
			can.Yes |= own.f
		}
	}
	if old {
		can.Yes &^= providers.Tools | providers.ToolMessages
		can.No |= providers.Tools | providers.ToolMessages
		can.Model |= providers.Tools | providers.ToolMessages
	}
	if t.opt.Drop {
		can.Dropped = leavesOut
	}
	return can
}

// continues reports whether an answer may begin with what the caller says: not since 4.6,
// nor in the lines that began later.
func continues(line string, v version) bool {
	return v < 406 && line != "fable" && line != "mythos"
}

// Told reads what the list says of a model; most of its words are about this API's own
// features.
func (p *Provider) Told(m *providers.Model) (can providers.Capabilities) {
	type flag struct {
		Supported *bool `json:"supported"`
	}
	var e struct {
		Capabilities struct {
			Images   flag `json:"image_input"`
			PDF      flag `json:"pdf_input"`
			Thinking flag `json:"thinking"`
		} `json:"capabilities"`
	}
	if json.Unmarshal(m.Raw, &e) != nil {
		return can
	}
	for f, says := range map[providers.Feature]flag{
		providers.Vision: e.Capabilities.Images, providers.Files: e.Capabilities.PDF, providers.Reasoning: e.Capabilities.Thinking,
	} {
		switch {
		case says.Supported == nil:
		case *says.Supported:
			can.Yes |= f
		default:
			can.No |= f
		}
	}
	can.Model = can.No
	return can
}
