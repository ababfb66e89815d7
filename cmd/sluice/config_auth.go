package main

import (
	"fmt"
	"slices"
	"strings"

	"sluice/handlers/auth/store"
)

// Auth is the [auth] section.
type Auth struct {
	Store      string   `toml:"store" oneof:"auto,redis,file,off" doc:"Where issued keys are: \"auto\" is Redis when [redis] and a pepper are configured, else the file keys.db in data.dir, else memory until the gateway stops; \"off\" takes [[keys]] only"`
	Pepper     Secret   `toml:"pepper" group:"pepper" doc:"Secret under which keys are stored, at least 32 characters, the same at all gateways that share a Redis: openssl rand -hex 32. With another one all keys are dead. \"\": made once and kept in data.dir."`
	PepperFile string   `toml:"pepper_file" group:"pepper" example:"\"secrets/pepper.key\"" doc:"Or a file that holds it."`
	MaxStale   Duration `toml:"max_stale" min:"2s" doc:"How long keys are good while Redis is out of reach, and so how long a key that is revoked elsewhere may live on here."`
	Tries      int      `toml:"tries_per_minute" min:"0" max:"100000" doc:"Wrong API keys that a network (an IPv4 /24, an IPv6 /64) may send in a minute before it gets 429 in place of 401; right keys are never kept out. 0 is no bound."`
}

func (a *Auth) setDefaults() {
	*a = Auth{Store: "auto", Pepper: newSecret(""), MaxStale: 60 * minute, Tries: 10}
}

func (d *decoder) readAuthSecrets(a *Auth) {
	d.exclusive("auth", a.Pepper.IsSet(), "pepper", a.PepperFile != "", "pepper_file")
	d.secretFile("auth.pepper_file", a.PepperFile, &a.Pepper)
}

func (d *decoder) validateAuth(cfg *Config) {
	a := &cfg.Auth
	if a.Pepper.IsSet() && len(a.Pepper.Reveal()) < store.MinPepper {
		d.failAt(givenAs("auth", "pepper", a.PepperFile), "want at least %d characters: openssl rand -hex 32", store.MinPepper)
	}
	switch {
	case a.Store == "redis" && !cfg.Redis.configured():
		d.failAt("auth.store", "[redis] is not configured")
	case a.Store == "redis" && !a.Pepper.IsSet() && !d.bad["auth.pepper_file"]:
		d.failAt("auth.store", "auth.pepper is missing: keys in Redis are shared by all gateways, which need the same pepper (openssl rand -hex 32)")
	case a.Store == "file" && cfg.Data.Dir == "":
		d.failAt("auth.store", "data.dir is not configured: it is where the file would be")
	}
	for i := range cfg.Keys {
		d.validatePermissions(fmt.Sprintf("keys[%d]", i), cfg, &cfg.Keys[i])
	}
}

// keyTransports are the ways that answers travel.
var keyTransports = []string{"http", "sse", "ws"}

func (d *decoder) validatePermissions(at string, cfg *Config, k *Key) {
	d.validateGlobs(at+".models", k.Models)
	d.validateKnownModels(at+".models", cfg, k.Models)
	d.validateGlobs(at+".routes", k.Routes)
	for i, t := range k.Transports {
		if !slices.Contains(keyTransports, t) {
			d.failAt(fmt.Sprintf("%s.transports[%d]", at, i), "want one of %s", strings.Join(keyTransports, ", "))
		}
	}
	for i, g := range k.Groups {
		d.validateName(fmt.Sprintf("%s.groups[%d]", at, i), g)
	}
}
