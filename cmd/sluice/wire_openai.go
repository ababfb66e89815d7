package main

import (
	"slices"

	"sluice/providers/kit"
	"sluice/providers/openai"
)

// profiles are the names of openai's profiles in the configuration.
var profiles = map[string]openai.Profile{"": openai.Plain, "mii": openai.MII}

func newOpenAI(c *Config, u *Upstream, m maker) adapter {
	o := openai.Options{
		Upstream: newUpstream(c, u, m), APIKey: u.APIKey.Reveal(), Auth: u.Auth,
		Organization: u.Organization, Project: u.Project, AskUsage: true,
		Profile: profiles[u.Profile], Think: thinkOf(u.OpenAI.Think), EOS: u.OpenAI.EOS, Drop: u.Unsupported == "drop", Prefill: u.OpenAI.Prefill.Bytes(),
		MaxEvent: int(c.Sizes.UpstreamEvent), MaxAnswer: int(c.Sizes.Answer),
	}
	if o.Profile == openai.MII && len(o.EOS) == 0 {
		o.EOS = knownEOS()
	}
	return openai.New(o)
}

// knownEOS are the marks by which models of the built-in chat templates end a turn. Which
// model a server has is not known before it is asked, and its template may be its own.
func knownEOS() (all []string) {
	for _, name := range kit.BuiltIn() {
		if t, err := kit.NamedTemplate(name); err == nil {
			all = append(all, t.EOS...)
			all = append(all, slices.DeleteFunc(slices.Clone(t.Stops), func(s string) bool { return s[0] != '<' })...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
