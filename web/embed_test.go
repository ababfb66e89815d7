package web

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStatic looks at what is embedded: modules, and nothing that an editor left.
func TestStatic(t *testing.T) {
	files := 0
	err := fs.WalkDir(Static(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files++
			if path.Ext(name) != ".js" {
				t.Errorf("%s is served to browsers and has no test", name)
			}
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files: %v", files, err)
	}
}

// nodeLimit bounds the tests of the modules; they take about two seconds.
const nodeLimit = 2 * time.Minute

// TestModules runs the modules' own tests, which need node and nothing installed.
func TestModules(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, THE BROWSER'S MODULES ARE NOT TESTED: %v", err)
	}
	tests, err := filepath.Glob("testdata/*.test.js")
	if err != nil || len(tests) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), nodeLimit)
	defer cancel()
	node := exec.CommandContext(ctx, "node", append([]string{"--test", "--test-reporter=tap"}, tests...)...)
	node.WaitDelay = time.Second
	out, err := node.CombinedOutput()
	if err != nil {
		t.Fatalf("node --test: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "\n# pass ") || strings.Contains(string(out), "\n# pass 0\n") {
		t.Fatalf("no test has run:\n%s", out)
	}
}
