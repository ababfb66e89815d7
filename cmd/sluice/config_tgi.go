package main

import (
	"strings"

	"sluice/providers/kit"
)

// TGI is what an upstream of kind "tgi" has beyond others.
type TGI struct {
	Template      string     `toml:"template" doc:"How conversations become prompts: chatml, llama2, llama3, mistral, alpaca, vicuna, raw, or the path of a file in the language of Go's text/template (docs/adapters.md)."`
	TemplateStops []string   `toml:"template_stops" doc:"Marks that end a turn in a template of your own: nothing behind one is answered, and no message may contain one."`
	Think         string     `toml:"think" oneof:"off,split,begun" doc:"Whether <think> blocks are told apart as reasoning; begun: the template opens the block"`
	Images        bool       `toml:"images" doc:"Whether the model sees images, which travel inside the prompt."`
	Parameters    JSONObject `toml:"parameters" example:"'{ \"max_new_tokens\": 1024 }'" doc:"The server's parameters for every call, as a JSON object; what a caller asks for goes before them."`

	template *kit.Template // what Template names, once validated
}

func (g *TGI) setDefaults() {
	*g = TGI{Template: "chatml", TemplateStops: []string{}, Think: defaultThink}
}

// validateTGI reads the template of an upstream of kind "tgi".
func (d *decoder) validateTGI(at string, u *Upstream) {
	u.TGI.template = d.chatTemplate(at+".tgi.template", u.TGI.Template, u.TGI.TemplateStops)
}

// chatTemplate finds a chat template by its name, or reads it from a file.
func (d *decoder) chatTemplate(path, name string, stops []string) *kit.Template {
	var t *kit.Template
	var err error
	if !strings.ContainsAny(name, `/\.`) {
		t, err = kit.NamedTemplate(name)
	} else {
		var text []byte
		if text, err = d.readFile(path, d.resolve(path, name), maxTemplate); err == nil {
			t, err = kit.ParseTemplate(name, string(text), stops)
		}
	}
	if err != nil {
		d.failAt(path, "%s", err)
	}
	return t
}

// defaultThink is one for all kinds: what callers find in content must not depend on the
// protocol that their model is reached by.
const defaultThink = "split"

// thinkOf is nil when thoughts stay in the text.
func thinkOf(how string) *kit.Think {
	if how == "off" {
		return nil
	}
	return &kit.Think{Begun: how == "begun"}
}
