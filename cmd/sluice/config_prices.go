package main

import "fmt"

// Price is one [[prices]] table.
type Price struct {
	Models []string `toml:"models" example:"[\"gpt-4o-mini*\"]" doc:"Models as callers name them, or patterns; the first table that matches holds."`
	Input  *Dollars `toml:"input" min:"0" max:"1000000" example:"0.15" doc:"US dollars for a million tokens of prompts ..."`
	Cached *Dollars `toml:"cached_input" min:"0" max:"1000000" example:"0.075" doc:"... those of them that the upstream had in its cache; unset: the same as others ..."`
	Output *Dollars `toml:"output" min:"0" max:"1000000" example:"0.60" doc:"... and for a million tokens that were generated."`
}

// Estimate is one [[estimates]] table.
type Estimate struct {
	Models      []string `toml:"models" example:"[\"gpt-4o*\"]" doc:"Models as callers name them, or patterns; the first table that matches holds."`
	Tokenizer   string   `toml:"tokenizer" oneof:"bytes,o200k_base,cl100k_base" doc:"What counts the tokens of a prompt; bytes is their number divided by 3.3"`
	MaxOutput   int      `toml:"max_output" min:"0" max:"1000000000" doc:"Most tokens that the model generates; 0 is unknown."`
	ImageTokens int      `toml:"image_tokens" min:"0" max:"1000000" doc:"Tokens of one image; 0 goes by its size, at 85 and 170 for each tile of 512 x 512."`
}

func (e *Estimate) setDefaults() { e.Tokenizer = "bytes" }

// validatePrices checks [[prices]] and [[estimates]].
func (d *decoder) validatePrices(cfg *Config) {
	for i := range cfg.Prices {
		p, at := &cfg.Prices[i], fmt.Sprintf("prices[%d]", i)
		d.validateModelList(at+".models", p.Models)
		if p.Input == nil && !d.bad[at+".input"] {
			d.failAt(at+".input", "a price is required; 0 is free")
		}
		if p.Output == nil && !d.bad[at+".output"] {
			d.failAt(at+".output", "a price is required; 0 is free")
		}
	}
	for i := range cfg.Estimates {
		d.validateModelList(fmt.Sprintf("estimates[%d].models", i), cfg.Estimates[i].Models)
	}
}

func (d *decoder) validateModelList(at string, models []string) {
	if len(models) == 0 && !d.bad[at] {
		d.failAt(at, `name the models, such as ["gpt-4o*"]; ["*"] is all`)
	}
	d.validateGlobs(at, models)
}
