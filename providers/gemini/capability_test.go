package gemini

import (
	"testing"

	"sluice/providers"
)

func TestCapabilitiesByName(t *testing.T) {
	const judged = providers.Vision | providers.Tools | providers.Choices | providers.Reasoning
	for _, c := range []struct {
		model   string
		yes, no providers.Feature
	}{
		{"gemini-2.5-flash", judged, 0},
		{"models/gemini-3-pro-preview", judged, 0},
		{"gemini-2.0-flash", judged &^ providers.Reasoning, providers.Reasoning},
		{"gemini-embedding-001", 0, providers.Reasoning},
		{"gemma-3-27b-it", 0, providers.Reasoning},
		{"tunedModels/mine", providers.Reasoning, 0},
	} {
		can := newTarget(options("http://up.test"), c.model).Capabilities(t.Context(), 0)
		if can.Yes&judged != c.yes || can.No&judged != c.no || !can.No.Has(doesNot) {
			t.Errorf("%s: yes %s, no %s", c.model, can.Yes, can.No)
		}
	}
}

func TestTold(t *testing.T) {
	const text = providers.ChatRoute | providers.CompletionsRoute
	for raw, want := range map[string]providers.Capabilities{
		`{"name":"models/x","supportedGenerationMethods":["generateContent","countTokens"]}`: {Yes: text, No: providers.EmbeddingsRoute, Model: providers.EmbeddingsRoute},
		`{"name":"models/x","supportedGenerationMethods":["embedContent"]}`:                  {Yes: providers.EmbeddingsRoute, No: text, Model: text},
		`{"name":"models/x","supportedGenerationMethods":[]}`:                                {},
		`{"name":"models/x"}`: {}, `{"supportedGenerationMethods":7}`: {},
	} {
		if got := new(Provider).Told(&providers.Model{Raw: []byte(raw)}); got != want {
			t.Errorf("%s: %+v, want %+v", raw, got, want)
		}
	}
}
