package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// golden compares with a file, or writes it when UPDATE_GOLDEN is set.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs\n--- got\n%s\n--- want\n%s", file, got, want)
	}
}

// loadText loads a configuration from text, with an environment and --set
// arguments.
func loadText(t testing.TB, text string, environ []string, sets ...string) (*Config, []string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadConfig(optionsFor(t, path, environ, sets))
}

func optionsFor(t testing.TB, path string, environ, sets []string) loadOptions {
	t.Helper()
	o := loadOptions{Path: path, Environ: environ, Kinds: knownKinds()}
	for _, arg := range sets {
		s, err := flagSetting(arg)
		if err != nil {
			t.Fatal(err)
		}
		o.Flags = append(o.Flags, s)
	}
	return o
}

func mustLoad(t testing.TB, text string, environ []string, sets ...string) *Config {
	t.Helper()
	cfg, _, err := loadText(t, text, environ, sets...)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return cfg
}

// TestConfigErrors runs every testdata/config/errors/*.toml. Comments at its
// top set the stage (env:, flag:, strict); beside it stands what must be said.
func TestConfigErrors(t *testing.T) {
	dir, err := filepath.Abs("testdata/config/errors")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.toml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	t.Chdir(dir)
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var environ, sets []string
			strict := false
			for line := range strings.Lines(string(data)) {
				line = strings.TrimSuffix(line, "\n")
				if v, ok := strings.CutPrefix(line, "# env: "); ok {
					environ = append(environ, v)
				}
				if v, ok := strings.CutPrefix(line, "# flag: "); ok {
					sets = append(sets, v)
				}
				strict = strict || line == "# strict"
			}
			o := optionsFor(t, name, environ, sets)
			o.Strict = strict
			_, _, err = loadConfig(o)
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "hidden") {
				t.Errorf("a secret is shown:\n%v", err)
			}
			golden(t, strings.TrimSuffix(name, ".toml")+".want", err.Error()+"\n")
		})
	}
}

func TestConfigNoFile(t *testing.T) {
	t.Chdir(t.TempDir())
	cfg, warnings, err := loadConfig(optionsFor(t, "", nil, nil))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("load: %v, %v", err, warnings)
	}
	if cfg.File() != "" || len(cfg.sources) != 0 {
		t.Errorf("file %q, sources %v", cfg.File(), cfg.sources)
	}
	want := defaultConfig()
	want.sources = cfg.sources
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got %+v", cfg)
	}

	if err := os.WriteFile("config.toml", []byte("[log]\nlevel = \"warn\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err = loadConfig(optionsFor(t, "", nil, nil))
	if err != nil || cfg.File() != "config.toml" || cfg.Log.Level != "warn" {
		t.Errorf("./config.toml is not read: %+v, %v", cfg, err)
	}

	for _, path := range []string{"absent.toml", t.TempDir()} {
		_, _, err = loadConfig(optionsFor(t, path, nil, nil))
		var ce *ConfigError
		if !errors.As(err, &ce) || !strings.HasPrefix(err.Error(), path+": cannot read the configuration: ") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestConfigTooLarge(t *testing.T) {
	_, _, err := loadText(t, strings.Repeat("#", maxDocument+1), nil)
	if err == nil || !strings.Contains(err.Error(), "larger than 1MiB") {
		t.Errorf("got %v", err)
	}
}

func TestConfigManyProblemsAreCut(t *testing.T) {
	var b strings.Builder
	b.WriteString("[server]\n")
	for i := range 3 * maxProblems {
		fmt.Fprintf(&b, "k%d = 1\n", i)
	}
	_, _, err := loadText(t, b.String(), nil)
	var ce *ConfigError
	if !errors.As(err, &ce) || len(ce.Problems) != maxProblems || !strings.Contains(err.Error(), "(and 100 more problems)") {
		t.Errorf("got %v", err)
	}
}

func TestConfigPrecedence(t *testing.T) {
	file := "[log]\nlevel = \"warn\"\n"
	env := []string{"SLUICE_LOG__LEVEL=error"}
	for _, tc := range []struct {
		name, file string
		env, sets  []string
		want, from string
	}{
		{"default", "", nil, nil, "info", "default"},
		{"file", file, nil, nil, "warn", "config.toml:2:1"},
		{"environment", file, env, nil, "error", "env SLUICE_LOG__LEVEL"},
		{"flag", file, env, []string{"log.level=debug"}, "debug", "flag --set log.level"},
		{"later flag", file, env, []string{"log.level=debug", "log.level=info"}, "info", "flag --set log.level"},
		{"no file", "", env, nil, "error", "env SLUICE_LOG__LEVEL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := mustLoad(t, tc.file, tc.env, tc.sets...)
			from := strings.TrimPrefix(cfg.Source("log.level").String(), filepath.Dir(cfg.File())+"/")
			if cfg.Log.Level != tc.want || from != tc.from {
				t.Errorf("got %q from %q, want %q from %q", cfg.Log.Level, from, tc.want, tc.from)
			}
		})
	}
}

// TestConfigOverrides sets values of every shape from outside the file.
func TestConfigOverrides(t *testing.T) {
	file := `
[[upstreams]]
name = "a"
base_url = "http://a.example/v1"
api_key_file = "not/there"
[[upstreams]]
name = "b"
base_url = "http://b.example/v1"
headers = { X-Keep = "1" }
`
	cfg := mustLoad(t, file, []string{
		"SLUICE_SERVER__TRUSTED_PROXIES=10.0.0.0/8, 192.168.1.1",
		"SLUICE_CORS__ORIGINS=[]",
		"SLUICE_SIZES__BODY=1MiB",
		"SLUICE_SIZES__BODY_VISION=2097152",
		"SLUICE_RETRY__BUDGET_PER_SECOND=0.5",
		"SLUICE_UPSTREAMS__0__API_KEY=from-env",
		"SLUICE_UPSTREAMS__0__HTTP2=false",
		"SLUICE_UPSTREAMS__1__HEADERS__X_TEAM=blue",
		"SLUICE_UPSTREAMS__3__NAME=d", "SLUICE_UPSTREAMS__3__BASE_URL=http://d.example/v1",
		"SLUICE_UPSTREAMS__2__NAME=c", "SLUICE_UPSTREAMS__2__BASE_URL=http://c.example/v1",
		`SLUICE_MODELS=[{ name = "m", targets = [{ upstream = "a" }] }]`,
	},
		"upstreams[1].query={ api-version = \"$x\" }",
		"upstreams.1.first_token_timeout=7s",
		"models.0.targets.0.weight=5",
	)
	a, b := cfg.Upstreams[0], cfg.Upstreams[1]
	for _, tc := range []struct {
		name      string
		got, want any
	}{
		{"list", fmt.Sprint(cfg.Server.TrustedProxies), "[10.0.0.0/8 192.168.1.1/32]"},
		{"empty list", len(cfg.CORS.Origins), 0},
		{"size", cfg.Sizes.Body, mib},
		{"plain size", cfg.Sizes.BodyVision, 2 * mib},
		{"float", cfg.Retry.BudgetPerSecond, 0.5},
		{"secret over a file", a.APIKey.Reveal(), "from-env"},
		{"the weaker twin is gone", a.APIKeyFile, ""},
		{"bool", a.HTTP2, false},
		{"header", b.Headers["x-team"].Reveal(), "blue"},
		{"header of the file", b.Headers["X-Keep"].Reveal(), "1"},
		{"inline table, not expanded", b.Query["api-version"].Reveal(), "$x"},
		{"optional", b.FirstTokenTimeout.Std().String(), "7s"},
		{"unset optional", a.FirstTokenTimeout == nil, true},
		{"new elements", cfg.Upstreams[2].Name + cfg.Upstreams[3].Name, "cd"},
		{"defaults of a new element", cfg.Upstreams[3].IdleConns, 256},
		{"whole list", cfg.Models[0].Targets[0], Target{Upstream: "a", Weight: 5}},
		{"source", cfg.Source("upstreams[1].first_token_timeout").String(), "flag --set upstreams.1.first_token_timeout"},
	} {
		if !reflect.DeepEqual(tc.got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, tc.got, tc.want)
		}
	}
}

func TestConfigUnknownEnvironment(t *testing.T) {
	env := []string{
		"SLUICE_SERVER__LISTN=x", "SLUICE_FOO=x", "SLUICE_CONFIG=x", "SLUICE_KEY=x", "OTHER=x",
		"SLUICE_SERVICE_HOST=10.0.0.1", "SLUICE_ADMIN_SERVICE_PORT_HTTP=1", "SLUICE_PORT_80_TCP=x",
		"SLUICE_USED=127.0.0.1:7",
	}
	cfg, warnings, err := loadText(t, "[server]\nlisten = \"${SLUICE_USED}\"\n", env)
	if err != nil || cfg.Server.Listen != "127.0.0.1:7" {
		t.Fatalf("load: %v", err)
	}
	want := []string{
		"env SLUICE_FOO: foo: unknown key",
		"env SLUICE_SERVER__LISTN: server.listn: unknown key; did you mean listen?",
	}
	if !reflect.DeepEqual(warnings, want) {
		t.Errorf("got %q", warnings)
	}
}

func TestConfigExpand(t *testing.T) {
	lookup := lookupIn([]string{"A=1", "EMPTY=", "NEST=${A}"})
	for _, tc := range []struct{ in, want, err string }{
		{"plain", "plain", ""},
		{"${A}", "1", ""},
		{"x${A}y${A}z", "x1y1z", ""},
		{"${EMPTY}", "", ""},
		{"${NO:-d}", "d", ""},
		{"${EMPTY:-d}", "d", ""},
		{"${NO:-}", "", ""},
		{"${NO:-a:b c}", "a:b c", ""},
		{"${A:-d}", "1", ""},
		{"${A:?m}", "1", ""},
		{"${NEST}", "${A}", ""},
		{"${NEST:-d}", "${A}", ""},
		{"$$", "$", ""},
		{"$${A}", "${A}", ""},
		{"$$$${A}", "$${A}", ""},
		{"$A cost 5$", "$A cost 5$", ""},
		{"${NO}", "", "NO is not set"},
		{"${NO:?ask the admin}", "", "NO is not set: ask the admin"},
		{"${EMPTY:?}", "", "it is required"},
		{"${A", "", "without its }"},
		{"${}", "", "want ${VAR}"},
		{"${A B}", "", "want ${VAR}"},
		{"${A:+x}", "", "want ${VAR}"},
	} {
		got, _, err := expand(tc.in, lookup)
		if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: got %q, %v", tc.in, got, err)
		}
	}
}

// TestConfigExpandsAfterParsing shows that a variable cannot bring in TOML.
func TestConfigExpandsAfterParsing(t *testing.T) {
	evil := "x\"\n[log]\nlevel = \"debug"
	_, _, err := loadText(t, "[server]\ntls_cert = \"${EVIL}\"\ntls_key = \"k\"\n", []string{"EVIL=" + evil})
	if err == nil || !strings.Contains(err.Error(), ":2:12: server.tls_cert: cannot load it") {
		t.Errorf("got %v", err)
	}
}

func TestConfigSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("unix", "s3cret\n")
	write("windows", "s3cret\r\n")
	write("bare", "s3cret")
	write("empty", "\n")
	write("two", "s3\ncret\n")
	write("large", strings.Repeat("x", maxSecretFile+1))
	for _, tc := range []struct{ file, err string }{
		{"unix", ""}, {"windows", ""}, {"bare", ""},
		{filepath.Join(dir, "bare"), ""},
		{"empty", "the file is empty"}, {"two", "no spaces, control"}, {"large", "larger than 64KiB"},
		{"absent", "no such file"},
	} {
		write("config.toml", "[[keys]]\nname = \"a\"\nkey_file = '"+tc.file+"'\n")
		cfg, _, err := loadConfig(optionsFor(t, filepath.Join(dir, "config.toml"), nil, nil))
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "cret\n") {
				t.Errorf("%s: %v", tc.file, err)
			}
			continue
		}
		if err != nil || cfg.Keys[0].Key.Reveal() != "s3cret" {
			t.Errorf("%s: %v", tc.file, err)
		}
	}
}

func TestConfigListenNeedsAKey(t *testing.T) {
	key := "[[keys]]\nname = \"a\"\nkey = \"k\"\n"
	for _, tc := range []struct {
		listen string
		open   bool
	}{
		{"127.0.0.1:1", false}, {"127.9.9.9:1", false}, {"[::1]:1", false}, {"localhost:1", false},
		{"[::ffff:127.0.0.1]:1", false},
		{":1", true}, {"0.0.0.0:1", true}, {"[::]:1", true}, {"10.1.2.3:1", true}, {"sluice.example:1", true},
	} {
		_, _, err := loadText(t, "", nil, "server.listen="+tc.listen)
		if (err != nil) != tc.open || err != nil && !strings.Contains(err.Error(), "[[keys]]") {
			t.Errorf("%s without a key: %v", tc.listen, err)
		}
		cfg := mustLoad(t, key, nil, "server.listen="+tc.listen)
		if cfg.ListensBeyondLoopback() != tc.open {
			t.Errorf("%s: beyond loopback is %v", tc.listen, !tc.open)
		}
	}
}

func TestConfigTLS(t *testing.T) {
	dir := t.TempDir()
	writePair(t, filepath.Join(dir, "a"))
	writePair(t, filepath.Join(dir, "b"))
	for _, tc := range []struct{ cert, key, err string }{
		{"a.crt", "a.key", ""},
		{"a.crt", "b.key", "server.tls_cert: cannot load it with server.tls_key: private key does not match"},
		{"a.crt", "", "server.tls_cert: server.tls_key is missing"},
		{"", "a.key", "server.tls_key: server.tls_cert is missing"},
		{"none", "a.key", "no such file"},
	} {
		path := filepath.Join(dir, "config.toml")
		text := fmt.Sprintf("[server]\ntls_cert = %q\ntls_key = %q\n", tc.cert, tc.key)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := loadConfig(optionsFor(t, path, nil, nil))
		switch {
		case tc.err != "":
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%+v: %v", tc, err)
			}
		case err != nil || cfg.Server.TLSCert != filepath.Join(dir, tc.cert):
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

// writePair writes a self-signed certificate to path.crt and path.key.
func writePair(t *testing.T, path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		path + ".crt": {Type: "CERTIFICATE", Bytes: cert}, path + ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeyDigest(t *testing.T) {
	plain, _ := Key{Key: newSecret("secret")}.Digest()
	hashed, ok := Key{Hash: newSecret("sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b")}.Digest()
	if !ok || plain != hashed {
		t.Errorf("%x and %x", plain, hashed)
	}
	for _, k := range []Key{{}, {Hash: newSecret("sha256:xx")}, {Hash: newSecret("md5:00")}} {
		if _, ok := k.Digest(); ok {
			t.Errorf("%q has a digest", k.Hash.Reveal())
		}
	}
}
