package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStoreKind: where keys are, and whether any are issued.
func TestStoreKind(t *testing.T) {
	const redis, pepper, data = "[redis]\nurl = \"redis://127.0.0.1:1\"\n", testPepper, "[data]\ndir = \"x\"\n"
	for text, want := range map[string]struct {
		kind         string
		issued, keep bool
	}{
		"": {storeMemory, true, false}, data: {storeFile, true, true}, redis: {storeMemory, false, false}, redis + data: {storeFile, false, false},
		redis + pepper: {storeRedis, true, true}, redis + data + pepper: {storeRedis, true, true},
		data + "[auth]\nstore = \"off\"\n":                              {storeFile, false, false},
		redis + data + "[auth]\nstore = \"file\"\n":                     {storeFile, true, true},
		redis + strings.Replace(pepper, "\n", "\nstore=\"redis\"\n", 1): {storeRedis, true, true},
	} {
		cfg, _, err := loadDocument(&document{name: "t.toml", data: []byte(text)}, loadOptions{Kinds: knownKinds()})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if kind, why := storeKind(cfg); kind != want.kind || (why == "") != want.issued || keepsKeys(cfg) != want.keep {
			t.Errorf("%s: %s, %q, %t", text, kind, why, keepsKeys(cfg))
		}
	}
}

// TestNoStaticKeys: with a place for issued keys the gateway may listen everywhere without
// any other key, and makes none up once there is one.
func TestNoStaticKeys(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("[server]\nlisten = \"0.0.0.0:0\"\nadmin_listen = \"\"\n[data]\ndir = \""+dir+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(args ...string) string {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		logs := &logBuffer{changed: make(chan struct{})}
		done := make(chan int, 1)
		go func() {
			done <- run(ctx, append([]string{"--config", file, "--set", "drain.delay=0s"}, args...), nil, strings.NewReader(""), &bytes.Buffer{}, logs)
		}()
		for deadline := time.After(patience); !strings.Contains(logs.String(), "msg=listening"); {
			select {
			case <-logs.next():
			case code := <-done:
				t.Fatalf("ended with %d:\n%s", code, logs)
			case <-deadline:
				t.Fatalf("does not listen:\n%s", logs)
			}
		}
		stop()
		if code := <-done; code != exitOK {
			t.Errorf("ended with %d:\n%s", code, logs)
		}
		return logs.String()
	}
	if logs := serve(); strings.Contains(logs, "made up") {
		t.Errorf("a key is made up for everybody:\n%s", logs)
	}
	local := []string{"--listen", "127.0.0.1:0"}
	if logs := serve(local...); !strings.Contains(logs, "this key was made up") {
		t.Errorf("no key to try with:\n%s", logs)
	}
	keyCLI{file}.must(t, "create", "a")
	if logs := serve(local...); strings.Contains(logs, "made up") {
		t.Errorf("a key is made up beside issued ones:\n%s", logs)
	}
}

// TestKeysInMemory: without a place for them keys are issued over the admin API, until the
// gateway stops.
func TestKeysInMemory(t *testing.T) {
	t.Parallel()
	g := boot(t, "[[admin.tokens]]\nname = \"ci\"\nrole = \"admin\"\ntoken = \"a-token-of-at-least-thirty-two-characters\"\n")
	cli := newKeyCLI(t, "")
	admin := []string{"--admin-url", g.AdminURL, "--admin-token", "a-token-of-at-least-thirty-two-characters"}
	k := cli.must(t, append([]string{"create", "a"}, admin...)...)
	if a := g.as(k.Secret).do(t, http.MethodGet, "/models", ""); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	for name, args := range map[string][]string{
		"nowhere": {"list"}, "wrong token": {"list", "--admin-url", g.AdminURL, "--admin-token", "x"}, "no gateway": {"list", "--admin-url", "http://127.0.0.1:1", "--admin-token", "x"},
	} {
		if _, errs, code := cli.run(t, args...); code != exitFailure || errs == "" {
			t.Errorf("%s: exit code %d, %s", name, code, errs)
		}
	}
	if _, _, code := cli.run(t, "list", "--admin-url", g.AdminURL); code != exitUsage {
		t.Errorf("without a token: exit code %d", code)
	}
}

func TestParseFields(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"90d": "2027-01-30 12:00:00 +0000 UTC", "12h": "2026-11-02 00:00:00 +0000 UTC", "2027-01-31": "2027-02-01 00:00:00 +0000 UTC", "2027-01-31T00:00:00Z": "2027-01-31 00:00:00 +0000 UTC",
		"never": "<nil>", "": "error", "-1h": "error", "soon": "error", "99999999d": "error", "2027-02-31": "error",
	} {
		at, err := parseExpiry(text, now)
		got := "<nil>"
		if t, ok := at.(time.Time); ok {
			got = t.String()
		}
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	l, err := parseLimit("requests_per_minute=1_000,burst=5,models=a|b*,scope=key_model,hard,usd_per_day=1.5")
	if err != nil || l["requests_per_minute"] != int64(1000) || l["hard"] != true || len(l["models"].([]string)) != 2 || l["usd_per_day"] != "1.5" {
		t.Errorf("%v, %v", l, err)
	}
	for _, bad := range []string{"x", "requests_per_minute=", "requests_per_minute=a", "burst=1,burst=2"} {
		if _, err := parseLimit(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestLimitsOfIssuedKeys: where keys are kept, a limit may be for names that no key of the
// configuration has.
func TestLimitsOfIssuedKeys(t *testing.T) {
	const limit = "[[limits]]\nid = \"l\"\nscope = \"org\"\nonly = [\"acme\"]\nrequests_per_day = 1\n"
	for text, good := range map[string]bool{limit: false, "[data]\ndir = \"x\"\n" + limit: true, "[data]\ndir = \"x\"\n[auth]\nstore = \"off\"\n" + limit: false} {
		if _, _, err := loadDocument(&document{name: "t.toml", data: []byte(text)}, loadOptions{Kinds: knownKinds()}); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}
