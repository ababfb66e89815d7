// Package tokens knows how many tokens a request may take before it has run: those of
// its prompt, and the most that may be generated for it.
package tokens

import (
	"sluice/providers"
	"sluice/ratelimit"
)

// Model is how requests of some models are estimated.
type Model struct {
	Models []string // globs of names as callers give them; see ratelimit.Fits
	// Count counts the tokens of a text; nil goes by its length in bytes.
	Count       func(text string) int
	MaxOutput   int64 // most tokens that one answer can have; 0: unknown
	ImageTokens int64 // of any image; 0: by its size
}

// Estimator estimates requests. It is safe for concurrent use.
type Estimator struct {
	models []Model
	usual  usual
}

// New returns an estimator. For a model the first of models that fits it holds.
func New(models []Model) *Estimator { return &Estimator{models: models} }

func (e *Estimator) model(name string) *Model {
	for i := range e.models {
		for _, g := range e.models[i].Models {
			if ratelimit.Fits(g, name) {
				return &e.models[i]
			}
		}
	}
	return &Model{}
}

// Prompt estimates the tokens of a request's prompt, images included.
func (e *Estimator) Prompt(req *providers.Request) int64 {
	m := e.model(req.Model)
	if m.Count == nil {
		n := req.PromptEstimate()
		if mayHaveImages(req.Body) {
			n += read(req, m).images
		}
		return n
	}
	r := read(req, m)
	return r.tokens + r.images
}

// unheard is what an answer is taken to need before there is anything to go by.
const unheard = 1024

// Output is the most that may be generated for a request of a caller: what the caller
// declared, else what is usual for the caller and the model.
func (e *Estimator) Output(req *providers.Request, key string) (most int64, declared bool) {
	switch req.Op {
	case providers.Chat, providers.Completions, providers.Responses:
	default:
		return 0, true
	}
	choices := int64(max(req.Choices, 1))
	most = req.MaxTokens()
	if declared = most > 0; !declared {
		most = e.usual.p90(req.Model, key, unheard) * choices
	}
	if m := e.model(req.Model); m.MaxOutput > 0 {
		most = min(most, m.MaxOutput*choices)
	}
	return most, declared
}

// Learn notes how many tokens a complete answer had whose caller declared no cap.
func (e *Estimator) Learn(req *providers.Request, key string, output int64) {
	if output > 0 {
		e.usual.add(req.Model, key, output/int64(max(req.Choices, 1)))
	}
}
