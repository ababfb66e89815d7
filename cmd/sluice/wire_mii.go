package main

import "sluice/providers/mii"

// generations are the names of mii's versions in the configuration.
var generations = map[string]mii.Generation{"current": mii.Current, "0.1": mii.V01, "0.0": mii.V00, "legacy": mii.Legacy}

func newMII(c *Config, u *Upstream, by maker) adapter {
	m := &u.MII
	return mii.New(mii.Options{
		Upstream: withKey(newUpstream(c, u, by), u), Generation: generations[m.Generation],
		REST: m.Transport == "rest", Deployment: m.Deployment, Template: m.template, EOS: m.endMarks(),
		MaxNewTokens: m.MaxNewTokens, MaxNewTokensLimit: m.MaxNewTokensLimit, Temperature: m.Temperature, TopP: m.TopP,
		MaxPrompt: int(m.MaxPrompt), MaxCalls: m.MaxCalls, Think: thinkOf(m.Think), Drop: u.Unsupported == "drop",
		MaxEvent: int(c.Sizes.UpstreamEvent), MaxAnswer: int(c.Sizes.Answer),
	})
}
