package main

import "sluice/providers/anthropic"

func newAnthropic(c *Config, u *Upstream, m maker) adapter {
	a := &u.Anthropic
	return anthropic.New(anthropic.Options{
		Upstream: newUpstream(c, u, m), APIKey: u.APIKey.Reveal(), Auth: u.Auth, Version: a.Version, Betas: a.Betas,
		MaxTokens: int64(a.MaxTokens), Thinking: a.Thinking, Sampling: a.Sampling, Structured: a.Structured, Memory: int(a.ThinkingMemory),
		Budgets: anthropic.Budgets{Low: int64(a.ThinkingLow), Medium: int64(a.ThinkingMedium), High: int64(a.ThinkingHigh)},
		Drop:    u.Unsupported == "drop", MaxEvent: int(c.Sizes.UpstreamEvent), MaxAnswer: int(c.Sizes.Answer),
	})
}
