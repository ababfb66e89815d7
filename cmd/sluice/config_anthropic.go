package main

// Anthropic is what an upstream of kind "anthropic" has beyond others.
type Anthropic struct {
	Version        string   `toml:"version" doc:"Sent as anthropic-version. From 2026-10-21 on the API refuses temperature, top_p and top_k: they are left out then."`
	Betas          []string `toml:"betas" doc:"Sent as anthropic-beta."`
	MaxTokens      int      `toml:"max_tokens" min:"0" doc:"Bound on the answers of callers who set none, which the API demands; 0 is as much as the model has, 8192 for models it does not know."`
	Thinking       string   `toml:"thinking" oneof:"auto,adaptive,budget,off" doc:"How reasoning_effort is asked for: \"adaptive\" with an effort, \"budget\" as a number of tokens, \"auto\" by the model's name"`
	ThinkingLow    int      `toml:"thinking_low" min:"1024" doc:"Tokens of thinking for the efforts low ..."`
	ThinkingMedium int      `toml:"thinking_medium" min:"1024" doc:"... medium ..."`
	ThinkingHigh   int      `toml:"thinking_high" min:"1024" doc:"... and high, where a model is given a number. Half of an answer's own bound is the most."`
	ThinkingMemory Size     `toml:"thinking_memory" max:"1GiB" doc:"Thinking kept for callers who come back with a tool's result, which the API wants to see again; the oldest goes first. 0 is none."`
	Sampling       string   `toml:"sampling" oneof:"auto,send,drop" doc:"Whether temperature, top_p and top_k are sent; \"auto\" goes by version and model"`
	Structured     string   `toml:"structured_output" oneof:"auto,native,tool,off" doc:"How a JSON schema is enforced: by the API itself, or as the input of a tool that must be called; \"auto\" goes by the model"`
}

func (a *Anthropic) setDefaults() {
	*a = Anthropic{
		Version: "2023-06-01", Betas: []string{}, Thinking: "auto", Sampling: "auto", Structured: "auto",
		ThinkingLow: 2048, ThinkingMedium: 8192, ThinkingHigh: 24576, ThinkingMemory: 16 * mib,
	}
}
