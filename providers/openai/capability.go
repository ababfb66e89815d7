package openai

import (
	"context"
	"encoding/json"
	"slices"

	"sluice/providers"
)

// Capabilities implements router.Capable. Without a profile it is only what the protocol
// has no counterpart for: what a model of the many servers that speak it can do is theirs
// to say.
func (t target) Capabilities(context.Context, providers.Feature) providers.Capabilities {
	if t.opt.Profile != MII {
		return providers.Capabilities{Kind: "openai", No: providers.Tensors}
	}
	can := providers.Capabilities{Kind: kindMII, Yes: doesMII, No: providers.All &^ doesMII}
	if t.opt.Drop {
		can.Dropped = leavesOutMII
	}
	return can
}

// entry is what some servers add to their list of models.
type entry struct {
	// Capabilities are names with booleans: this gateway's, Mistral's.
	Capabilities json.RawMessage `json:"capabilities"`
	// Architecture and Parameters are OpenRouter's; llama.cpp has the former too.
	Architecture struct {
		Input []string `json:"input_modalities"`
	} `json:"architecture"`
	Parameters []string `json:"supported_parameters"`
	// Fireworks says it in members of their own.
	Chat   *bool `json:"supports_chat"`
	Images *bool `json:"supports_image_input"`
	Tools  *bool `json:"supports_tools"`
}

// words are names of features beside this gateway's own.
var words = map[string]providers.Feature{
	"completion_chat": providers.ChatRoute, "function_calling": providers.Tools, "completion_fim": providers.Suffix,
	"structured_outputs": providers.JSONSchema, "response_format": providers.JSONObject,
	"image": providers.Vision, "file": providers.Files, // "audio" is a name of ours
}

func featureOf(word string) providers.Feature {
	if f, ok := words[word]; ok {
		return f
	}
	return providers.FeatureOf(word)
}

// Told reads what an entry of the list tells, in the words of those servers that tell
// something. Members of another form tell nothing.
func (p *Provider) Told(m *providers.Model) providers.Capabilities {
	var e entry
	var can providers.Capabilities
	if json.Unmarshal(m.Raw, &e) != nil && len(e.Capabilities) == 0 {
		return can
	}
	set := func(f providers.Feature, yes bool) {
		if yes {
			can.Yes |= f
		} else {
			can.No |= f
		}
	}
	var flags map[string]bool
	if json.Unmarshal(e.Capabilities, &flags) == nil {
		for name, yes := range flags {
			set(featureOf(name), yes)
		}
	}
	if in := e.Architecture.Input; len(in) > 0 {
		set(providers.Vision, slices.Contains(in, "image"))
		set(providers.Audio, slices.Contains(in, "audio"))
	}
	if len(e.Parameters) > 0 {
		set(providers.Tools, slices.Contains(e.Parameters, "tools"))
		for _, name := range e.Parameters {
			can.Yes |= featureOf(name)
		}
	}
	for _, own := range []struct {
		says *bool
		of   providers.Feature
	}{{e.Chat, providers.ChatRoute}, {e.Images, providers.Vision}, {e.Tools, providers.Tools}} {
		if own.says != nil {
			set(own.of, *own.says)
		}
	}
	can.Yes &^= can.No
	can.Model = can.No
	return can
}
