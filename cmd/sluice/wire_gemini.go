package main

import "sluice/providers/gemini"

func newGemini(c *Config, u *Upstream, m maker) adapter {
	g := &u.Gemini
	return gemini.New(gemini.Options{
		Upstream: newUpstream(c, u, m), APIKey: u.APIKey.Reveal(), Auth: u.Auth,
		Thinking: g.Thinking, Budgets: gemini.Budgets{Low: int64(g.ThinkingLow), Medium: int64(g.ThinkingMedium), High: int64(g.ThinkingHigh)},
		Memory: int(g.SignatureMemory), Safety: g.Safety, FetchURLs: g.FetchURLs, NamedFiles: g.NamedFiles,
		Drop: u.Unsupported == "drop", MaxEvent: int(c.Sizes.UpstreamEvent), MaxAnswer: int(c.Sizes.Answer),
	})
}
