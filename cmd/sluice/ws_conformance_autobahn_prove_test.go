//go:build prove

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/streaming"
)

// autobahn is the version of Autobahn's test suite whose own client is run.
const autobahn = "autobahntestsuite==25.10.1"

// wstest is the suite's command, started from a folder that is not Python's own.
const wstest = "import site, sys; site.addsitedir(sys.argv.pop(1)); from autobahntestsuite.wstest import run; run()"

// TestAutobahn runs Autobahn's own client, where a Python 2 that it needs can be had:
// AUTOBAHN_PYTHON names one that is not found. What echoes is the gateway's end of a
// connection without the gateway behind it. Cases in which nothing is to be echoed run
// against the gateway itself, but for those about invalid UTF-8, to which it has a
// word to say before it closes. Other tests wait meanwhile, since cases have a second.
func TestAutobahn(t *testing.T) {
	python := python2(t)
	dir := installed(t, "autobahn", python+" "+autobahn, nil, func(ctx context.Context, dir string) ([]byte, error) {
		return exec.CommandContext(ctx, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", dir, autobahn).CombinedOutput()
	})
	t.Run("echo", func(t *testing.T) {
		s := httptest.NewServer(http.HandlerFunc(echo))
		defer s.Close()
		// Binary messages are not echoed, compression is not offered.
		n := runAutobahn(t, python, dir, s.URL, []string{"*"}, []string{"1.2.*", "9.2.*", "9.4.*", "9.6.*", "9.8.*", "12.*", "13.*"})
		if n < 266 {
			t.Errorf("only %d cases were run", n)
		}
	})
	t.Run("gateway", func(t *testing.T) {
		g := boot(t, "[log]\naccess = \"off\"\n")
		n := runAutobahn(t, python, dir, g.URL+chatPath, []string{
			"2.*", "3.1", "3.5", "3.6", "3.7", "4.1.1", "4.1.2", "4.2.1", "4.2.2", "5.1", "5.2", "5.9", "5.10", "5.11", "5.12", "5.13", "5.14", "5.16", "5.17", "5.18",
			"7.1.2", "7.1.3", "7.1.4", "7.1.5", "7.3.*", "7.5.*", "7.7.*", "7.9.*", "7.13.*",
		}, []string{})
		if n < 65 {
			t.Errorf("only %d cases were run", n)
		}
	})
}

// runAutobahn runs cases of the suite in a folder against a URL and returns how many.
func runAutobahn(t *testing.T, python, dir, url string, cases, except []string) int {
	t.Helper()
	out := t.TempDir()
	spec, err := json.Marshal(map[string]any{
		"outdir": out, "cases": cases, "exclude-cases": except, "exclude-agent-cases": map[string]any{},
		"servers": []any{map[string]any{"agent": "sluice", "url": "ws" + strings.TrimPrefix(url, "http"), "protocols": []string{"sluice.v1", "openai-insecure-api-key." + testKey}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(out, "spec.json")
	if err := os.WriteFile(file, spec, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-c", wstest, dir, "--mode", "fuzzingclient", "--spec", file)
	cmd.Dir = out
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said[max(0, len(said)-2000):])
	}
	return readAutobahn(t, filepath.Join(out, "index.json"))
}

// echo is the end of a connection as the gateway has it, and sends back what it reads.
func echo(w http.ResponseWriter, r *http.Request) {
	s, err := streaming.Upgrade(context.Background(), w, r, http.Header{}, streaming.SocketOptions{Write: patience, MaxMessage: 32 << 20, Queue: 64 << 20})
	if err != nil {
		return
	}
	lane := s.Lane()
	for {
		msg, err := s.Read()
		switch {
		case errors.Is(err, streaming.ErrNotUTF8):
			s.Close(streaming.CloseBadData, "not UTF-8", err)
		case err != nil:
			return
		default:
			lane.Post(msg)
		}
	}
}

func python2(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("AUTOBAHN_PYTHON"), "python2.7", "python2", "pypy", "pypy2"} {
		bin, err := exec.LookPath(name)
		if name != "" && err == nil && exec.Command(bin, "-c", "import sys, pip; assert sys.version_info[0] == 2").Run() == nil {
			return bin
		}
	}
	t.Skip("SKIPPED, THIS CLIENT IS NOT PROVEN: Autobahn's needs Python 2 with pip; its cases are in TestWebSocketConformance too")
	return ""
}

// readAutobahn wants no verdict worse than "informational", but in group 6.4, which
// would like invalid UTF-8 refused before the end of its message.
func readAutobahn(t *testing.T, index string) int {
	t.Helper()
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	var report map[string]map[string]struct{ Behavior, BehaviorClose string }
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for id, c := range report["sluice"] {
		counts[c.Behavior]++
		good := []string{"OK", "INFORMATIONAL"}
		if strings.HasPrefix(id, "6.4.") {
			good = append(good, "NON-STRICT")
		}
		if !slices.Contains(good, c.Behavior) || !slices.Contains(good, c.BehaviorClose) {
			t.Errorf("case %s: %s, close %s", id, c.Behavior, c.BehaviorClose)
		}
	}
	t.Log(fmt.Sprint(counts))
	return len(report["sluice"])
}
