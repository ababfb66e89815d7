package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestConfigFileIsCommitted keeps the file at the root of the repository equal
// to what the binary documents.
func TestConfigFileIsCommitted(t *testing.T) {
	golden(t, "../../config.toml", defaultFileText())
}

// TestConfigDefaultsRoundTrip loads the documented file and finds defaults.
func TestConfigDefaultsRoundTrip(t *testing.T) {
	cfg := mustLoad(t, defaultFileText(), nil)
	want := defaultConfig()
	want.file, want.text, want.sources = cfg.file, cfg.text, cfg.sources
	if !reflect.DeepEqual(normal(cfg), normal(want)) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

// normal makes empty lists equal to absent ones.
func normal(c *Config) Config {
	out := *c
	if len(out.Server.TrustedProxies) == 0 {
		out.Server.TrustedProxies = nil
	}
	return out
}

// TestConfigEveryKeyIsDocumented checks that each key has a comment above it
// in the default file, of at most two lines for keys.
func TestConfigEveryKeyIsDocumented(t *testing.T) {
	lines := strings.Split(defaultFileText(), "\n")
	found := map[string]bool{}
	keyLine := regexp.MustCompile(`^(?:#|#   )?([a-z0-9_]+) = `)
	for i, line := range lines {
		m := keyLine.FindStringSubmatch(line)
		if m == nil || found[m[1]] {
			continue
		}
		if _, ofTarget := fieldOf(reflect.TypeFor[Target](), m[1]); ofTarget && !strings.HasPrefix(lines[i-1], "# ") {
			continue // told at targets
		}
		found[m[1]] = true
		if !strings.HasPrefix(lines[i-1], "# ") || len(lines[i-1]) < 5 {
			t.Errorf("%q has no comment above it", line)
		}
		if len(line) > 140 || len(lines[i-1]) > 100 {
			t.Errorf("line %d is too long", i+1)
		}
	}
	for _, path := range keyPaths() {
		if name := path[strings.LastIndexByte(path, '.')+1:]; !found[name] && !strings.HasPrefix(path, "models.0.targets") {
			t.Errorf("%s is not documented", path)
		}
	}
}

// TestConfigExamplesAreValid takes the # of the example lines away.
func TestConfigExamplesAreValid(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"camera.key", "azure.key"} {
		if err := os.WriteFile(filepath.Join(dir, "secrets", name), []byte("k-"+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := regexp.MustCompile(`(?m)^#([^ \n])`).ReplaceAllString(defaultFileText(), "$1")
	path := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := loadConfig(optionsFor(t, path, []string{"APP_KEY=app-key", "OPENAI_API_KEY=openai-key", "DEPLOY_TOKEN=" + strings.Repeat("t", minAdminToken)}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Keys) != 3 || len(cfg.Upstreams) != 4 || len(cfg.Models) != 2 || len(cfg.Models[1].Targets) != 2 {
		t.Errorf("%d keys, %d upstreams, %d models", len(cfg.Keys), len(cfg.Upstreams), len(cfg.Models))
	}
}

// TestConfigEffective prints values of every layer and shape.
func TestConfigEffective(t *testing.T) {
	t.Chdir("testdata/config")
	o := optionsFor(t, "effective.toml", []string{
		"SLUICE_LOG__LEVEL=debug", "UPSTREAM_TOKEN=sk-hidden-env", "SLUICE_UPSTREAMS__1__HEADERS__X_ENV=sk-hidden-header",
	}, []string{"server.listen=127.0.0.1:9999", "upstreams.1.api_key=sk-hidden-flag"})
	cfg, _, err := loadConfig(o)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := cfg.EffectiveJSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"effective.want": cfg.EffectiveText(), "effective.json": string(asJSON)} {
		if strings.Contains(text, "hidden") {
			t.Errorf("%s shows a secret:\n%s", name, text)
		}
		golden(t, name, text)
	}
	var decoded map[string]any
	if err := json.NewDecoder(bytes.NewReader(asJSON)).Decode(&decoded); err != nil {
		t.Error(err)
	}
	// What is printed is TOML that loads again, the masks apart.
	secretFile, err := filepath.Abs("hush.key")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`hash = "***"`, `hash = "`+hashPrefix+strings.Repeat("0", 64)+`"`,
		`"***"`, `"x"`, `"hush.key"`, `'`+secretFile+`'`).Replace(cfg.EffectiveText())
	again := mustLoad(t, text, nil)
	if again.Upstreams[0].BaseURL != cfg.Upstreams[0].BaseURL || again.Log.Level != "debug" {
		t.Errorf("got %+v", again)
	}
}
