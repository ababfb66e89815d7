package kserve

import (
	"testing"

	"sluice/providers"
	"sluice/providers/kit"
)

func TestCapabilitiesOfSchemas(t *testing.T) {
	template := &kit.Template{}
	for name, c := range map[string]struct {
		model   *Model
		yes, no providers.Feature
	}{
		"not declared": {nil, providers.Tensors, 0},
		"classes of images": {&Model{Inputs: []Input{{Source: FromImage}}, Outputs: []Output{{Meaning: AsClasses}}},
			providers.ChatRoute | providers.Vision | providers.JSONObject, providers.CompletionsRoute | providers.EmbeddingsRoute | providers.Tools | providers.JSONSchema},
		"vectors of texts": {&Model{Inputs: []Input{{Source: FromText}}, Outputs: []Output{{Meaning: AsEmbedding}}},
			providers.ChatRoute | providers.CompletionsRoute | providers.EmbeddingsRoute, providers.Vision},
		"text": {&Model{Template: template, Inputs: []Input{{Source: FromText}, {Source: FromParam, Param: "logprobs"}}, Outputs: []Output{{Meaning: AsText}}},
			providers.ChatRoute | providers.CompletionsRoute | providers.Prefill | providers.Logprobs,
			providers.EmbeddingsRoute | providers.Vision | providers.JSONObject | providers.ToolMessages | providers.Choices | providers.Audio},
		"text, any number of times": {&Model{Decoupled: true, Inputs: []Input{{Source: FromText}}, Outputs: []Output{{Meaning: AsText}}},
			providers.ChatRoute, providers.Tensors},
	} {
		p := &Provider{models: map[string]*Model{}}
		if c.model != nil {
			p.models["m"] = c.model
		}
		can := p.Target("m").(target).Capabilities(t.Context(), 0)
		if !can.Yes.Has(c.yes|providers.Tensors&^c.no) || !can.No.Has(c.no|providers.ResponsesRoute) || can.Yes&can.No != 0 || c.model == nil && can.Yes != c.yes {
			t.Errorf("%s: yes %s, no %s", name, can.Yes, can.No)
		}
	}
}
