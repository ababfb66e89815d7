package main

import "sluice/providers/tgi"

func newTGI(c *Config, u *Upstream, m maker) adapter {
	return tgi.New(tgi.Options{
		Upstream: withKey(newUpstream(c, u, m), u), Template: u.TGI.template, Think: thinkOf(u.TGI.Think),
		Images: u.TGI.Images, Parameters: u.TGI.Parameters.Bytes(), Drop: u.Unsupported == "drop",
		MaxEvent: int(c.Sizes.UpstreamEvent), MaxAnswer: int(c.Sizes.Answer),
	})
}
