package main

// OpenAI is what an upstream of kind "openai" has beyond others.
type OpenAI struct {
	Think   string     `toml:"think" oneof:"off,split,begun" doc:"Whether <think> blocks are told apart as reasoning; begun: the prompt opens the block"`
	Prefill JSONObject `toml:"prefill_parameters" example:"'{ \"continue_final_message\": true, \"add_generation_prompt\": false }'" doc:"For servers that go on where a chat ends with a message of the assistant's only when they are told to (vLLM, SGLang): members that are added to such a chat, as a JSON object; what a caller sends goes before them."`
	EOS     []string   `toml:"eos" doc:"With profile = \"mii\": what the model ends with, which the server shows in streams and which is cut off; [] is what models are known for."`
}

func (o *OpenAI) setDefaults() { *o = OpenAI{Think: defaultThink, EOS: []string{}} }

// validateOpenAI refuses what would have no effect.
func (d *decoder) validateOpenAI(at string, u *Upstream) {
	if u.Kind != "openai" && u.Profile != "" {
		d.failAt(at+".profile", `only upstreams of kind "openai" have a profile, and this one is of kind %q`, u.Kind)
	}
	if u.OpenAI.Prefill != "" && (u.Kind != "openai" || u.Profile != "") {
		d.failAt(at+".openai.prefill_parameters", `it is of use with kind = "openai" and no profile only`)
	}
	if u.Profile == "" && len(u.OpenAI.EOS) > 0 {
		d.failAt(at+".openai.eos", `it is of use with profile = "mii" only`)
	}
}
