package main

import (
	"sluice/providers/kit"
	"sluice/providers/mii"
)

// generations are the names of mii's versions in the configuration.
var generations = map[string]mii.Generation{"current": mii.Current, "0.1": mii.V01, "0.0": mii.V00, "legacy": mii.Legacy}

func newMII(c *Config, u *Upstream, version string) adapter {
	m := &u.MII
	o := mii.Options{
		Upstream: withKey(newUpstream(c, u, version), u), Generation: generations[m.Generation],
		REST: m.Transport == "rest", Deployment: m.Deployment, Template: m.template, EOS: m.endMarks(),
		MaxNewTokens: m.MaxNewTokens, MaxNewTokensLimit: m.MaxNewTokensLimit, Temperature: m.Temperature, TopP: m.TopP,
		MaxPrompt: int(m.MaxPrompt), MaxCalls: m.MaxCalls, Drop: u.Unsupported == "drop",
		MaxEvent: int(c.Sizes.UpstreamEvent), MaxAnswer: int(c.Sizes.Answer),
	}
	if m.Think != "off" {
		o.Think = &kit.Think{Begun: m.Think == "begun"}
	}
	return mii.New(o)
}
