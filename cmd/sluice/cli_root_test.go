package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cli is one run of the command line in a directory of its own.
type cli struct {
	environ []string
	stdin   string
	ctx     context.Context
	serve   func(context.Context, *Config, serveOptions, io.Writer) int
}

func (c cli) run(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	if c.ctx == nil {
		c.ctx = t.Context()
	}
	if c.serve == nil {
		c.serve = func(context.Context, *Config, serveOptions, io.Writer) int {
			t.Error("serve is called")
			return exitFailure
		}
	}
	var out, errOut bytes.Buffer
	a := &app{environ: c.environ, stdin: strings.NewReader(c.stdin), stdout: &out, stderr: &errOut, serve: c.serve}
	code = a.run(c.ctx, args)
	return code, out.String(), errOut.String()
}

func TestCLIHelp(t *testing.T) {
	dir, err := filepath.Abs("testdata/config/help")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for name, args := range map[string][]string{
		"root": nil, "serve": {"serve"}, "check-config": {"check-config"}, "config": {"config"},
		"config-print": {"config", "print"}, "config-init": {"config", "init"}, "chat": {"chat"},
		"bench": {"bench"}, "healthcheck": {"healthcheck"}, "version": {"version"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := cli{}.run(t, append(args, "--help")...)
			if code != exitOK || stderr != "" {
				t.Errorf("exit %d, stderr %q", code, stderr)
			}
			golden(t, filepath.Join(dir, name+".txt"), stdout)
		})
	}
}

func TestCLIExitCodes(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"good.toml": "[log]\nlevel = \"warn\"\n", "bad.toml": "[log]\nlevle = 1\n[demo]\nenabled = 1\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		args   string
		env    string
		code   int
		stdout string
		stderr string
	}{
		{"check-config", "", 0, "no file, the defaults: valid (0 upstreams, 0 model names, 0 keys)\n", ""},
		{"check-config good.toml", "", 0, "good.toml: valid", ""},
		{"validate -c good.toml", "", 0, "good.toml: valid", ""},
		{"check-config", "SLUICE_CONFIG=good.toml", 0, "good.toml: valid", ""},
		{"check-config -c good.toml", "SLUICE_CONFIG=bad.toml", 0, "good.toml: valid", ""},
		{"check-config good.toml", "SLUICE_LOGS=1", 0, "good.toml: valid", "warning: env SLUICE_LOGS: logs: unknown key; did you mean log?"},
		{"check-config --strict good.toml", "SLUICE_LOGS=1", 2, "", "env SLUICE_LOGS: logs: unknown key"},
		{"check-config bad.toml", "", 2, "", "bad.toml:2:1: log.levle: unknown key; did you mean level?"},
		{"check-config bad.toml", "", 2, "", "bad.toml:4:11: demo.enabled: want true or false, got an integer"},
		{"check-config absent.toml", "", 2, "", "absent.toml: cannot read the configuration: no such file"},
		{"check-config -c good.toml bad.toml", "", 2, "", "name the file once"},
		{"check-config a b", "", 2, "", "See 'sluice check-config --help'."},
		{"check-config --set nonsense", "", 2, "", "--set wants section.key=value"},
		{"check-config --log-level loud", "", 2, "", `flag --log-level: log.level: "loud"`},
		{"check-config --listen 0.0.0.0:1", "", 2, "", "flag --listen: server.listen: 0.0.0.0:1 is reachable"},
		{"check-config --demo=false", "", 2, "", "flag --demo: demo.enabled: there is nothing to serve"},
		{"serv", "", 2, "", "Did you mean this?"},
		{"--nonsense", "", 2, "", "unknown flag: --nonsense"},
		{"serve extra", "", 2, "", "See 'sluice serve --help'."},
		{"serve -c bad.toml", "", 2, "", "unknown key"},
		{"-c bad.toml", "", 2, "", "unknown key"},
		{"config", "", 0, "init        Write", ""},
		{"config print --defaults --effective", "", 2, "", "none of the others"},
		{"config print -c bad.toml", "", 2, "", "unknown key"},
		{"config print -c good.toml", "", 0, `level = "warn" # good.toml:2:1`, ""},
		{"config print --log-format json", "", 0, `format = "json" # flag --log-format`, ""},
		{"config print --defaults", "", 0, "# The configuration of sluice.", ""},
		{"config print --defaults --json", "", 0, `"source": "default"`, ""},
		{"config init -", "", 0, "# The configuration of sluice.", ""},
		{"config init no/such/dir.toml", "", 1, "", "no such file"},
		{"version", "", 0, "sluice ", ""},
		{"--version", "", 0, "sluice ", ""},
		{"completion bash", "", 0, "bash completion", ""},
		{"__complete --log-level ", "", 0, "warn\n", ""},
		{"__complete --set ", "", 0, "timeouts.first_token=\n", ""},
		{"__complete config ", "", 0, "print\t", ""},
		{"bench --streams 0", "", 2, "", "--streams must be"},
		{"bench --duration 2h", "", 2, "", "--duration must be"},
		{"bench --stream-tokens 0", "", 2, "", "--stream-tokens must be"},
		{"chat --url nonsense hello", "", 2, "", "--url wants an address"},
		{"healthcheck --url nonsense", "", 1, "", "--url wants an address"},
		{"healthcheck -c bad.toml", "", 1, "", "the configuration is invalid"},
		{"healthcheck --listen 127.0.0.1:0", "", 1, "", "name the server with --url"},
	} {
		args := strings.Split(tc.args, " ")
		code, stdout, stderr := cli{environ: []string{tc.env}}.run(t, args...)
		if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) {
			t.Errorf("%s %v: exit %d (want %d)\nstdout: %s\nstderr: %s", tc.env, args, code, tc.code, stdout, stderr)
		}
		if code != 0 && !strings.HasPrefix(tc.args, "__") && stdout != "" {
			t.Errorf("%v failed and wrote to stdout: %s", args, stdout)
		}
	}
}

func TestCLIServe(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range [][]string{{}, {"serve"}} {
		called := false
		c := cli{environ: []string{"SLUICE_NONSENSE=1"}, serve: func(_ context.Context, cfg *Config, o serveOptions, stderr io.Writer) int {
			called = true
			if cfg.Server.Listen != "127.0.0.1:9" || len(o.Warnings) != 1 || o.Version == "" || stderr == nil {
				t.Errorf("got %+v, %+v", cfg.Server, o)
			}
			return exitDrained
		}}
		code, _, stderr := c.run(t, append(args, "--listen", "127.0.0.1:9")...)
		if !called || code != exitDrained || stderr != "" {
			t.Errorf("%v: called %v, exit %d, stderr %q", args, called, code, stderr)
		}
	}
}

func TestCLIConfigInit(t *testing.T) {
	t.Chdir(t.TempDir())
	code, _, stderr := cli{}.run(t, "config", "init")
	if code != 0 || !strings.Contains(stderr, "wrote config.toml") {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	info, err := os.Stat("config.toml")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if code, stdout, stderr := (cli{}).run(t, "check-config"); code != 0 || !strings.HasPrefix(stdout, "config.toml: valid") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if err := os.WriteFile("config.toml", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr = cli{}.run(t, "config", "init")
	if data, _ := os.ReadFile("config.toml"); code != 1 || string(data) != "mine" || !strings.Contains(stderr, "--force") {
		t.Errorf("exit %d: %s; the file holds %q", code, stderr, data)
	}
	if code, _, stderr = (cli{}).run(t, "config", "init", "--force"); code != 0 {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if data, _ := os.ReadFile("config.toml"); string(data) != defaultFileText() {
		t.Error("--force does not overwrite")
	}
}

func TestCLIVersionJSON(t *testing.T) {
	code, stdout, _ := cli{}.run(t, "version", "--json")
	var b build
	if err := json.Unmarshal([]byte(stdout), &b); code != 0 || err != nil || b.Version == "" || b.Go == "" {
		t.Errorf("exit %d, %v: %s", code, err, stdout)
	}
}

func TestCLIHealthcheck(t *testing.T) {
	t.Chdir(t.TempDir())
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "draining")
	}))
	listen := strings.TrimPrefix(srv.URL, "http://")
	for _, args := range [][]string{{"--listen", listen}, {"--url", srv.URL}, {"--url", srv.URL + "/readyz"}} {
		if code, _, stderr := (cli{}).run(t, append([]string{"healthcheck"}, args...)...); code != 0 || stderr != "" {
			t.Errorf("%v: exit %d: %s", args, code, stderr)
		}
	}
	status = http.StatusServiceUnavailable
	if code, _, stderr := (cli{}).run(t, "healthcheck", "--listen", listen); code != 1 || !strings.Contains(stderr, "503") || !strings.Contains(stderr, "draining") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	srv.Close()
	if code, _, stderr := (cli{}).run(t, "healthcheck", "--listen", listen); code != 1 || !strings.Contains(stderr, "no server answers") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestOwnURL(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:1": "http://127.0.0.1:1", ":2": "http://127.0.0.1:2", "0.0.0.0:3": "http://127.0.0.1:3",
		"[::]:4": "http://[::1]:4", "[::1]:5": "http://[::1]:5", "10.0.0.1:6": "http://10.0.0.1:6",
	} {
		cfg := defaultConfig()
		cfg.Server.Listen = listen
		if got, err := ownURL(cfg); got != want || err != nil {
			t.Errorf("%s: got %s, %v", listen, got, err)
		}
	}
}
