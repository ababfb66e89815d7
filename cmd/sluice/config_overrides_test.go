package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth/store"
)

const layered = `
[[keys]]
name = "app"
key = "sk-app"
[[upstreams]]
name = "a.b"
base_url = "http://127.0.0.1:1"
[[upstreams]]
name = "c"
base_url = "http://127.0.0.1:2"
[[models]]
name = "gpt-4.1"
targets = [{ upstream = "a.b", model = "x/y-1.5", weight = 1 }, { upstream = "c" }]
[[limits]]
id = "per-key"
scope = "key"
tokens_per_minute = 1000
[log]
level = "warn"
`

func override1(path, value string) store.Override {
	return store.Override{Path: path, Value: value, By: "ada", At: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), Version: 1}
}

func mustOverridden(t *testing.T, text string, items ...store.Override) (*Config, []overrideState) {
	t.Helper()
	c, states, _, err := loadOverridden(&document{name: "config.toml", data: []byte(text)}, loadOptions{Kinds: knownKinds()}, items)
	if err != nil {
		t.Fatal(err)
	}
	return c, states
}

func TestOverridePath(t *testing.T) {
	for text, want := range map[string]string{
		"log.level":             "log.level",
		"upstreams.c.drained":   "upstreams.c.drained",
		"upstreams.a.b.drained": `upstreams."a.b".drained`,
		`models."gpt-4.1".targets."a.b/x/y-1.5".weight`: `models."gpt-4.1".targets."a.b/x/y-1.5".weight`,
		"models.gpt-4.1.targets.a.b/x/y-1.5.weight":     `models."gpt-4.1".targets."a.b/x/y-1.5".weight`,
		"models.m.targets.c/m.drained":                  `models.m.targets."c/m".drained`,
		"models.gpt-4.1.drained":                        `models."gpt-4.1".drained`,
		"limits.per-key.tokens_per_minute":              "limits.per-key.tokens_per_minute",
		`models."a\"b".drained`:                         `models."a\"b".drained`,
	} {
		p, err := parseOverridePath(text)
		if err != nil || p.String() != want {
			t.Errorf("%s: %s, %v", text, p, err)
			continue
		}
		if again, err := parseOverridePath(p.String()); err != nil || again.String() != want {
			t.Errorf("%s is read as %s: %v", p, again, err)
		}
	}
	for _, text := range []string{
		"", ".", "server.listen", "upstreams.c.api_key", "upstreams.c.base_url", "keys.app.key", "redis.url", "upstreams", "upstreams.c",
		"limits.per-key.scope", "limits.per-key.id", `models."m`, `models."m"x.drained`, `models."m".targets."t".upstream`, "models.m.targets.c/m.model", "admin.api",
	} {
		if p, err := parseOverridePath(text); err == nil {
			t.Errorf("%q is read as %s", text, p)
		}
	}
}

func TestOverrides(t *testing.T) {
	c, states := mustOverridden(t, layered,
		override1(`models."gpt-4.1".targets."a.b/x/y-1.5".weight`, "7"), override1(`models."gpt-4.1".targets."c/gpt-4.1".drained`, "true"),
		override1(`upstreams."a.b".drained`, "true"), override1("limits.per-key.tokens_per_minute", "5"), override1("log.level", `"debug"`), override1("retry.budget_percent", "2.5"))
	for _, s := range states {
		if s.Why != "" {
			t.Errorf("%s: %s", s.Path, s.Why)
		}
	}
	m := c.Models[0].Targets
	if m[0].Weight != 7 || m[1].Weight != 1 || m[0].Drained || !m[1].Drained || !c.Upstreams[0].Drained || c.Upstreams[1].Drained ||
		*c.Limits[0].TokensPerMinute != 5 || c.Log.Level != "debug" || c.Retry.BudgetPercent != 2.5 {
		t.Errorf("%+v", c)
	}
	for _, line := range []string{
		`level = "debug" # override by ada at 2026-11-01T12:00:00Z`, `tokens_per_minute = 5 # override by ada at 2026-11-01T12:00:00Z`,
		`budget_percent = 2.5 # override`, `format = "text" # default`, `scope = "key" # config.toml:`,
	} {
		if !strings.Contains(c.EffectiveText(), line) {
			t.Errorf("%s is not shown:\n%s", line, c.EffectiveText())
		}
	}
}

// TestOverridesIgnored leaves out what cannot be in force, and nothing else.
func TestOverridesIgnored(t *testing.T) {
	c, states := mustOverridden(t, layered,
		override1("upstreams.gone.drained", "true"), override1("limits.per-key.requests_per_hour", "1"), override1(`models."gpt-4.1".targets."c/other".weight`, "1"),
		override1(`models."gpt-4.1".targets."a.b/x/y-1.5".weight`, "0"), override1(`models."gpt-4.1".targets."c/gpt-4.1".weight`, "0"),
		override1("log.level", `"loud"`), override1("retry.tries", `"3"`), override1("retry.tries", "99"), override1("server.listen", `":1"`), override1("upstreams.c.drained", "true"))
	wants := []struct {
		stale bool
		why   string
	}{
		{true, `there is no "gone"`}, {true, `the limit "per-key" has no requests_per_hour`}, {true, `there is no "c/other"`},
		{false, ""}, {false, "must not all be 0"},
		{false, `want "debug", "info"`}, {false, "want an integer, got a string"}, {false, "at most 10"}, {false, "cannot be overridden"}, {false, ""},
	}
	for i, want := range wants {
		s := states[i]
		if s.Stale != want.stale || !strings.Contains(s.Why, want.why) || (s.Why == "") != (want.why == "") {
			t.Errorf("%s = %s: stale %t, %q", s.Path, s.Value, s.Stale, s.Why)
		}
	}
	if m := c.Models[0].Targets; m[0].Weight != 0 || m[1].Weight != 1 || c.Log.Level != "warn" || c.Retry.Tries != 3 || !c.Upstreams[1].Drained {
		t.Errorf("%+v", c)
	}
}

func TestOverrideText(t *testing.T) {
	for value, want := range map[string]string{"3": "3", "true": "true", `"info"`: `"info"`, "2.50": "2.5", "1e3": "1000", "-1": "-1", `"a\"b$"`: `"a\"b$$"`} {
		if got, err := overrideText([]byte(value)); err != nil || got != want {
			t.Errorf("%s: %s, %v", value, got, err)
		}
	}
	for _, value := range []string{"null", "[]", "{}", "", "x"} {
		if got, err := overrideText([]byte(value)); err == nil {
			t.Errorf("%s: %s", value, got)
		}
	}
}

// TestClosed checks text from elsewhere: neither the environment nor any file shows.
func TestClosed(t *testing.T) {
	const secret = "hunter2hunter2hunter2"
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/secret", []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	o := loadOptions{Kinds: knownKinds(), Environ: []string{"SECRET=" + secret, "SLUICE_LOG__LEVEL=" + secret}, Closed: true}
	check := func(text string) (*Config, error) {
		c, _, err := loadDocument(&document{name: "config.toml", data: []byte(text)}, o)
		return c, err
	}
	o.Environ = o.Environ[:1]
	for _, key := range []string{
		"[server]\nlisten = \"${SECRET}\"", "[server]\nadmin_listen = \"${SECRET:-x}\"", "[timeouts]\nconnect = \"${SECRET}\"",
		"[cors]\norigins = [\"${SECRET}\"]", "[log]\nlevel = \"${SECRET}\"", "[log]\naccess = \"${SECRET}\"", "[redis]\nurl = \"${SECRET}\"", "[redis]\ntls_ca = \"FILE\"",
		"[websocket]\nticket_secret_file = \"FILE\"", "[server]\ntls_cert = \"FILE\"\ntls_key = \"FILE\"", "[[keys]]\nname = \"${SECRET}\"\nkey_file = \"FILE\"",
		"[[upstreams]]\nname = \"a\"\nbase_url = \"${SECRET}\"\napi_key_file = \"FILE\"", "[[upstreams]]\nname = \"a\"\nkind = \"tgi\"\nbase_url = \"http://x\"\n[upstreams.tgi]\ntemplate = \"FILE\"",
		"[[models]]\nname = \"${SECRET}\"\ntargets = [{ upstream = \"demo\", model = \"${SECRET}\" }]", "[admin]\npassword_hash_file = \"FILE\"", "[auth]\npepper_file = \"FILE\"",
		"[[upstreams]]\nname = \"${SECRET}\"\nbase_url = \"http://x\"\n[[models]]\nname = \"m\"\ntargets = [{ upstream = \"${SECRET}\" }]",
	} {
		c, err := check(strings.ReplaceAll(key, "FILE", dir+"/secret"))
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if len(c.unchecked) == 0 || strings.Contains(c.EffectiveText(), secret) || len(c.reads) > 0 {
			t.Errorf("%s: unchecked %v, read %v", key, c.unchecked, c.reads)
		}
		if other, err := check(strings.ReplaceAll(key, "FILE", dir+"/none")); err != nil || len(other.unchecked) != len(c.unchecked) {
			t.Errorf("%s: it shows whether a file exists: %v", key, err)
		}
	}
	_, err := check("[server]\nlisten = \"${SECRET}\"\nidle_timeout = \"x\"\n[log]\nlevel = \"loud\"")
	if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "config.toml:3:16") || !strings.Contains(err.Error(), "config.toml:5:9") {
		t.Errorf("mistakes are not told: %v", err)
	}
}
