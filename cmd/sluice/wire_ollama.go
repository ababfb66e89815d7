package main

import (
	"sluice/providers/ollama"
	"sluice/providers/upstream"
)

func newOllama(c *Config, u *Upstream, m maker) adapter {
	return ollama.New(ollama.Options{
		Upstream: withKey(newUpstream(c, u, m), u), KeepAlive: string(u.Ollama.KeepAlive), ModelOptions: u.Ollama.Options.Bytes(),
		Think: thinkOf(u.Ollama.Think), Raw: u.Ollama.Raw, Drop: u.Unsupported == "drop", MaxEvent: int(c.Sizes.UpstreamEvent), MaxAnswer: int(c.Sizes.Answer),
	})
}

// withKey adds the credential as auth says it is sent.
func withKey(o upstream.Options, u *Upstream) upstream.Options {
	key := u.APIKey.Reveal()
	switch {
	case key == "" || u.Auth == "none":
	case u.Auth == "api-key":
		o.Header.Set("Api-Key", key)
	default:
		o.Header.Set("Authorization", "Bearer "+key)
	}
	return o
}
