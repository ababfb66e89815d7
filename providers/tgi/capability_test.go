package tgi

import (
	"testing"

	"sluice/providers"
)

func TestCapabilitiesAsConfigured(t *testing.T) {
	const judged = providers.ChatRoute | providers.Prefill | providers.Vision | providers.Tools | providers.JSONSchema
	for _, c := range []struct {
		change  func(*Options)
		no      providers.Feature
		dropped bool
	}{
		{func(*Options) {}, providers.Vision | providers.Tools, false},
		{func(o *Options) { o.Images = true }, providers.Tools, false},
		{func(o *Options) { o.Template, o.Images = nil, true }, providers.ChatRoute | providers.Prefill | providers.Vision | providers.Tools, false},
		{func(o *Options) { o.Drop = true }, providers.Vision | providers.Tools, true},
	} {
		can := newTarget(t, "http://up.test", c.change).Capabilities(t.Context(), 0)
		if can.No&judged != c.no || can.Yes&judged != judged&^c.no || can.Dropped.Has(providers.Tools) != c.dropped || can.Dropped.Has(providers.Vision) {
			t.Errorf("yes %s, no %s, leaves out %s", can.Yes, can.No, can.Dropped)
		}
	}
	for raw, want := range map[string]providers.Feature{
		`{"model_id":"m","model_pipeline_tag":"text-generation"}`: providers.Vision, `{"model_id":"m","model_pipeline_tag":"image-text-to-text"}`: 0, `{"model_id":"m"}`: 0,
	} {
		if can := new(Provider).Told(&providers.Model{Raw: []byte(raw)}); can.No != want || can.Yes != 0 {
			t.Errorf("%s tells %+v", raw, can)
		}
	}
}
