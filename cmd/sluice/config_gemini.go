package main

// Gemini is what an upstream of kind "gemini" has beyond others.
type Gemini struct {
	Thinking        string `toml:"thinking" oneof:"auto,level,budget,off" doc:"How reasoning_effort is asked for: \"level\" as a word, \"budget\" as a number of tokens, \"auto\" by the model's name"`
	ThinkingLow     int    `toml:"thinking_low" min:"1" doc:"Tokens of thinking for the efforts low ..."`
	ThinkingMedium  int    `toml:"thinking_medium" min:"1" doc:"... medium ..."`
	ThinkingHigh    int    `toml:"thinking_high" min:"1" doc:"... and high, where a model is given a number."`
	SignatureMemory Size   `toml:"signature_memory" max:"1GiB" doc:"Signatures of function calls kept for callers who come back with a function's result; the oldest goes first. 0 is none."`
	Safety          string `toml:"safety" oneof:",BLOCK_LOW_AND_ABOVE,BLOCK_MEDIUM_AND_ABOVE,BLOCK_ONLY_HIGH,BLOCK_NONE,OFF" doc:"Threshold of every category of harm; \"\" leaves Google's own"`
	FetchURLs       bool   `toml:"fetch_urls" doc:"Whether callers may name any http(s) address of an image, which Google then fetches (Vertex AI and newer models do). Addresses at Google itself are not among them."`
	NamedFiles      bool   `toml:"named_files" doc:"Whether callers may name what Google keeps: gs:// addresses, files of the Files API, cached_content. Google reads them with this upstream's credential, so every caller reads what the account can read."`
}

func (g *Gemini) setDefaults() {
	*g = Gemini{Thinking: "auto", ThinkingLow: 1024, ThinkingMedium: 8192, ThinkingHigh: 24576, SignatureMemory: 4 * mib}
}
