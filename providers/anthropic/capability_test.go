package anthropic

import (
	"testing"

	"sluice/providers"
)

func TestCapabilitiesByName(t *testing.T) {
	for _, c := range []struct {
		model  string
		change func(*Options)
		yes    providers.Feature // of those below
		no     providers.Feature
	}{
		{"claude-sonnet-4-5-20250929", nil, providers.Vision | providers.JSONSchema | providers.Reasoning | providers.Prefill | providers.Tools, 0},
		{"claude-opus-4-6", nil, providers.Vision | providers.JSONSchema | providers.Reasoning | providers.Tools, providers.Prefill},
		{"claude-fable-1", nil, providers.Vision | providers.JSONSchema | providers.Reasoning | providers.Tools, providers.Prefill},
		{"claude-3-5-haiku-latest", nil, providers.Vision | providers.JSONSchema | providers.Prefill | providers.Tools, providers.Reasoning},
		{"claude-2.1", nil, providers.JSONSchema | providers.Prefill, providers.Vision | providers.Tools | providers.Reasoning},
		{"another", nil, providers.Tools, 0},
		{"claude-sonnet-4-5", func(o *Options) { o.Thinking, o.Structured = "off", "off" }, providers.Vision | providers.Prefill | providers.Tools, providers.Reasoning | providers.JSONSchema},
	} {
		o := options("http://up.test")
		if c.change != nil {
			c.change(&o)
		}
		can := newTarget(o, c.model).Capabilities(t.Context(), 0)
		const judged = providers.Vision | providers.JSONSchema | providers.Reasoning | providers.Prefill | providers.Tools
		if can.Yes&judged != c.yes || can.No&judged != c.no || !can.No.Has(doesNot) || !can.Model.Has(c.no) || can.Dropped != 0 {
			t.Errorf("%s: yes %s, no %s", c.model, can.Yes, can.No)
		}
	}
	o := options("http://up.test")
	o.Drop = true
	if can := newTarget(o, "claude-opus-4-6").Capabilities(t.Context(), 0); can.Dropped.Has(providers.Audio) || !can.Dropped.Has(providers.Choices) {
		t.Errorf("leaves out %s", can.Dropped)
	}
}

func TestTold(t *testing.T) {
	for raw, want := range map[string]providers.Capabilities{
		`{"id":"m","capabilities":{"image_input":{"supported":true},"pdf_input":{"supported":false},"thinking":{"supported":true,"types":{}},"batch":{"supported":true}}}`: {
			Yes: providers.Vision | providers.Reasoning, No: providers.Files, Model: providers.Files},
		`{"id":"m","capabilities":null}`:               {},
		`{"id":"m","capabilities":{"image_input":{}}}`: {},
		`{"id":"m","capabilities":["vision"]}`:         {},
	} {
		if got := new(Provider).Told(&providers.Model{Raw: []byte(raw)}); got != want {
			t.Errorf("%s: %+v, want %+v", raw, got, want)
		}
	}
}
