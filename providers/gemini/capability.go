package gemini

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"sluice/providers"
)

// What the API has for every model or for none, and what can be left out.
const (
	doesNot   = providers.ModerationsRoute | providers.ResponsesRoute | providers.OtherRoutes | providers.Tensors | providers.Suffix
	leavesOut = providers.Suffix | providers.Reasoning
	// ofGemini is what the models of that name do that answer; other makers' may.
	ofGemini = providers.ChatRoute | providers.CompletionsRoute | providers.Vision | providers.Audio | providers.Files | providers.Tools | providers.ToolMessages |
		providers.JSONObject | providers.JSONSchema | providers.Choices
)

// Capabilities implements router.Capable: the model's name tells.
func (t target) Capabilities(context.Context, providers.Feature) providers.Capabilities { return t.can }

func (t target) capabilities() providers.Capabilities {
	can := providers.Capabilities{Kind: kind, No: doesNot}
	name := strings.ToLower(t.model[strings.LastIndexByte(t.model, '/')+1:])
	if _, ok := parseVersion(name); ok && !strings.Contains(name, "embedding") {
		can.Yes |= ofGemini
	}
	if t.rules().thinking != noThinking {
		can.Yes |= providers.Reasoning
	} else {
		can.No |= providers.Reasoning
		can.Model |= providers.Reasoning
	}
	if t.opt.Drop {
		can.Dropped = leavesOut
	}
	return can
}

// Told reads which methods a model has. Not all of those that it has are always listed
// where none is.
func (p *Provider) Told(m *providers.Model) (can providers.Capabilities) {
	var e struct {
		Methods []string `json:"supportedGenerationMethods"`
	}
	if json.Unmarshal(m.Raw, &e) != nil || len(e.Methods) == 0 {
		return can
	}
	for _, f := range []struct {
		features providers.Feature
		methods  []string
	}{
		{providers.ChatRoute | providers.CompletionsRoute, []string{"generateContent"}},
		{providers.EmbeddingsRoute, []string{"embedContent", "batchEmbedContents"}},
	} {
		if slices.ContainsFunc(f.methods, func(m string) bool { return slices.Contains(e.Methods, m) }) {
			can.Yes |= f.features
		} else {
			can.No |= f.features
		}
	}
	can.Model = can.No
	return can
}
