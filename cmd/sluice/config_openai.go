package main

// OpenAI is what an upstream of kind "openai" has beyond others.
type OpenAI struct {
	Think string   `toml:"think" oneof:"off,split,begun" doc:"Whether <think> blocks are told apart as reasoning; begun: the prompt opens the block"`
	EOS   []string `toml:"eos" doc:"With profile = \"mii\": what the model ends with, which the server shows in streams and which is cut off; [] is what models are known for."`
}

func (o *OpenAI) setDefaults() { *o = OpenAI{Think: defaultThink, EOS: []string{}} }

// validateOpenAI refuses what would have no effect.
func (d *decoder) validateOpenAI(at string, u *Upstream) {
	if u.Kind != "openai" && u.Profile != "" {
		d.failAt(at+".profile", `only upstreams of kind "openai" have a profile, and this one is of kind %q`, u.Kind)
	}
	if u.Profile == "" && len(u.OpenAI.EOS) > 0 {
		d.failAt(at+".openai.eos", `it is of use with profile = "mii" only`)
	}
}
