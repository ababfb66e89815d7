package main

import (
	"bufio"
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// This file states the house rules of DESIGN.md: which room may know which, where
// third parties come in, and what stands nowhere in the repository.

const (
	repoRoot = "../.."
	module   = "sluice"
)

// arrows say what each room may import of ours, beside its own folders. A room is
// a folder at the top, or one level below it under cmd and providers. "/..." means
// with everything below.
var arrows = map[string][]string{
	"cmd/sluice":             {"handlers/...", "providers/...", "streaming/...", "ratelimit/...", "web/..."},
	"cmd/bench":              {},
	"cmd/wall":               {"providers/providertest/..."},
	"handlers":               {"providers", "streaming/...", "ratelimit/...", "web"},
	"providers":              {"streaming/..."},
	"providers/router":       {"providers", "streaming/..."},
	"providers/kit":          {"providers", "streaming/..."},
	"providers/upstream":     {"providers"},
	"providers/providertest": {"providers", "streaming/..."},
	"providers/*":            {"providers", "providers/kit/...", "providers/upstream", "streaming/..."}, // every other one is an adapter
	"ratelimit":              {},
	"streaming":              {},
	"web":                    {},
}

// kits serve tests: any test may import them, and of the rest only those listed.
var kits = map[string][]string{
	"streaming/streamtest":          {"streaming/streamtest"},
	"providers/providertest":        {"providers/providertest", "cmd/wall"},
	"providers/kserve/kservetest":   {},
	"ratelimit/ratelimittest":       {"ratelimit/ratelimittest"},
	"ratelimit/ledger/ledgertest":   {},
	"handlers/auth/store/storetest": {},
}

// doors say in which files a third party may be imported. A pattern without a
// slash is about the name of the file alone.
var doors = map[string][]string{
	"github.com/cenkalti/backoff/v4":      {"providers/router/*.go"},
	"github.com/chromedp/chromedp":        {"cmd/sluice/browser_*_test.go"},
	"github.com/fsnotify/fsnotify":        {"cmd/sluice/reload_watch.go"},
	"github.com/gorilla/websocket":        {"streaming/ws*.go", "cmd/bench/*.go", "cmd/bench/*/*.go", "*_test.go"},
	"github.com/labstack/echo/v4":         {"handlers/*.go"},
	"github.com/pelletier/go-toml/v2":     {"cmd/sluice/config*.go", "handlers/auth/store/toml.go"},
	"github.com/prometheus/client_golang": {"handlers/observe.go"},
	"github.com/redis/go-redis/v9":        {"ratelimit/redis.go", "ratelimit/ledger/redis*.go", "handlers/auth/store/redis*.go", "ratelimit/ratelimittest/redistest/redis.go", "cmd/sluice/wire_redis.go", "*_test.go"},
	"github.com/sashabaranov/go-openai":   {"cmd/sluice/cli_*.go", "providers/*/whole.go", "*_test.go"},
	"github.com/spf13/cobra":              {"cmd/sluice/cli_*.go"},
	"github.com/tiktoken-go/tokenizer":    {"handlers/tokens/tokenizer.go"},
	"github.com/tmaxmax/go-sse":           {"*_test.go"},
	"go.etcd.io/bbolt":                    {"ratelimit/ledger/bolt*.go", "handlers/auth/store/bolt*.go"},
	"go.uber.org/goleak":                  {"*_test.go"},
	"golang.org/x/crypto":                 {"handlers/auth/password.go", "handlers/auth/cheap_test.go"},
	"golang.org/x/image":                  {"providers/kit/pixels/*.go"},
	"golang.org/x/sys":                    {"cmd/bench/proc/*.go", "cmd/sluice/cli_admin_linux.go"},
	"google.golang.org/grpc":              {"providers/kit/rpc/*.go", "providers/mii/*.go", "providers/mii/wire/*.go", "providers/kserve/*.go", "providers/kserve/*/*.go"},
	"google.golang.org/protobuf":          {"*_test.go", "providers/mii/*.go", "providers/mii/wire/*.go", "providers/kserve/*.go", "providers/kserve/*/*.go"},
	"pgregory.net/rapid":                  {"ratelimit/ratelimittest/*.go", "ratelimit/ledger/ledgertest/*.go", "*_test.go"},
}

// goFile is one source file, whatever its build tags.
type goFile struct {
	path    string // below the root, with slashes
	imports []string
	text    []byte
}

func (f goFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// walkRepo calls visit for every file that belongs to the repository; paths have slashes.
func walkRepo(t *testing.T, visit func(name string, text []byte)) {
	t.Helper()
	skip := []string{".git", ".cache", ".venv", "bin", "node_modules", "__pycache__"}
	err := filepath.WalkDir(repoRoot, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skip, d.Name()):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		rel, err := filepath.Rel(repoRoot, name)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(name)
		if err == nil {
			visit(filepath.ToSlash(rel), text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// goFiles are the files of the module, tests and all build tags included.
func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	walkRepo(t, func(name string, text []byte) {
		if !strings.HasSuffix(name, ".go") || strings.Contains(name, "testdata/") {
			return
		}
		ast, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		f := goFile{path: name, text: text}
		for _, spec := range ast.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			f.imports = append(f.imports, p)
		}
		files = append(files, f)
	})
	if len(files) < 50 {
		t.Fatalf("found only %d Go files below %s", len(files), repoRoot)
	}
	return files
}

// ours strips the module from an import path.
func ours(imported string) (pkg string, ok bool) { return strings.CutPrefix(imported, module+"/") }

// within reports whether a package is one that the pattern names.
func within(pkg, pattern string) bool {
	root, below := strings.CutSuffix(pattern, "/...")
	return pkg == root || below && strings.HasPrefix(pkg, root+"/")
}

func withinAny(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return within(pkg, p) })
}

// mayImport lists what a package may import of ours; ok is false outside every room.
func mayImport(pkg string) (patterns []string, ok bool) {
	parts := strings.Split(pkg, "/")
	room := parts[0]
	if len(parts) > 1 && (room == "cmd" || room == "providers") {
		room += "/" + parts[1]
	}
	patterns, ok = arrows[room]
	if !ok && strings.HasPrefix(room, "providers/") {
		patterns, ok = arrows["providers/*"], true
	}
	if room != "providers" {
		patterns = append(slices.Clone(patterns), room+"/...")
	}
	return patterns, ok
}

func TestArrows(t *testing.T) {
	for _, f := range goFiles(t) {
		pkg := path.Dir(f.path)
		may, ok := mayImport(pkg)
		if !ok {
			t.Errorf("%s stands in no room of DESIGN.md: move it into one, or give the room a row in arrows and a place in DESIGN.md", f.path)
			continue
		}
		for _, imported := range f.imports {
			if to, ok := ours(imported); ok {
				checkArrow(t, f, pkg, to, may)
			}
		}
	}
}

func checkArrow(t *testing.T, f goFile, from, to string, may []string) {
	t.Helper()
	for kit, users := range kits {
		if !within(to, kit+"/...") {
			continue
		}
		if !f.isTest() && !slices.ContainsFunc(users, func(u string) bool { return within(from, u+"/...") }) {
			t.Errorf("%s imports %s, which is for tests: only _test.go files may", f.path, to)
		}
		return
	}
	if !withinAny(to, may) {
		t.Errorf("%s imports %s, a new arrow: %s may import %s of ours. Define an interface where it is used and wire it in cmd/sluice; "+
			"tests over several rooms live in cmd/sluice. If the design is to change, change arrows and DESIGN.md together.",
			f.path, to, from, strings.Join(may, " "))
	}
}

func TestDoors(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, imported := range f.imports {
			if _, own := ours(imported); own || !strings.Contains(strings.Split(imported, "/")[0], ".") {
				continue
			}
			checkDoor(t, f, imported)
		}
	}
}

func checkDoor(t *testing.T, f goFile, imported string) {
	t.Helper()
	for party, files := range doors {
		if !within(imported, party+"/...") {
			continue
		}
		for _, pattern := range files {
			name := f.path
			if !strings.Contains(pattern, "/") {
				name = path.Base(name)
			}
			if ok, err := path.Match(pattern, name); err != nil {
				t.Fatal(err)
			} else if ok {
				return
			}
		}
		t.Errorf("%s imports %s, whose door is %s: use it there, behind a type of ours, or widen doors and say why in DESIGN.md",
			f.path, imported, strings.Join(files, " "))
		return
	}
	t.Errorf("%s imports %s, which has no door yet: prefer the standard library; else give it a row in doors and a place in DESIGN.md", f.path, imported)
}

// TestBinary looks at what is linked into the gateway itself, indirectly too.
func TestBinary(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"/cmd/sluice").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"/streaming") {
		t.Fatalf("go list -deps does not name the streaming room: %d packages", len(deps))
	}
	for _, dep := range deps {
		pkg, own := ours(dep)
		_, kit := kits[pkg]
		if dep == "testing" || dep == "net/http/httptest" || own && (kit || withinAny(pkg, []string{"streaming/streamtest/...", "providers/providertest/...", "cmd/bench/...", "cmd/wall/..."})) {
			t.Errorf("the gateway links %s, which is for tests and measurements: find who imports it with go mod why or go list -deps -json", dep)
		}
	}
}

// maxLines bounds a source file; tests may be longer.
const maxLines = 400

func TestFilesAreShort(t *testing.T) {
	generated := regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	for _, f := range goFiles(t) {
		if n := bytes.Count(f.text, []byte("\n")); n > maxLines && !f.isTest() && !generated.Match(f.text) {
			t.Errorf("%s has %d lines, more than %d: split it by what its parts know", f.path, n, maxLines)
		}
	}
}

// TestNobodySleeps keeps waiting visible: a timer that acts, a channel or a context.
// The load generator sleeps by trade: its pauses are the load.
func TestNobodySleeps(t *testing.T) {
	sleep := []byte("time." + "Sleep(")
	for _, f := range goFiles(t) {
		if !f.isTest() && !strings.HasPrefix(f.path, "cmd/bench/") && bytes.Contains(f.text, sleep) {
			t.Errorf("%s sleeps: use a timer, a channel or the context, so that cancelling ends the wait", f.path)
		}
	}
}

// unwanted are patterns that no file of the repository may match. They are written
// in pieces, or this file would match.
var unwanted = map[string]*regexp.Regexp{
	"a path of one machine":       regexp.MustCompile(`(^|[^\w.])/` + `(work|farm|root)/|[.]` + `library\b|\bshared` + `/[\w-]+\.md`),
	"the host of a registry":      regexp.MustCompile(`\b(g` + `cr|gh` + `cr|qu` + `ay|dock` + `er)\.io\b|registry\.` + `npmjs|proxy\.` + `golang\.org|python` + `hosted\.org|pypi` + `\.org`),
	"a left-over (finish it now)": regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME)\b`),
}

func TestUnwantedWords(t *testing.T) {
	walkRepo(t, func(name string, text []byte) {
		if bytes.IndexByte(text, 0) >= 0 || strings.HasSuffix(name, ".test") {
			return // not text
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		lines.Buffer(nil, len(text)+1)
		for n := 1; lines.Scan(); n++ {
			for what, pattern := range unwanted {
				if m := pattern.Find(lines.Bytes()); m != nil {
					t.Errorf("%s:%d: %q is %s; it does not belong into the repository", name, n, m, what)
				}
			}
		}
	})
}

// page reads a page at the root.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repoRoot, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages are what people read first.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, glob := range []string{"*.md", "docs/*.md"} {
		names, err := filepath.Glob(filepath.Join(repoRoot, glob))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			rel, err := filepath.Rel(repoRoot, name)
			if err != nil {
				t.Fatal(err)
			}
			found[filepath.ToSlash(rel)] = page(t, rel)
		}
	}
	if found["README.md"] == "" || found["DESIGN.md"] == "" {
		t.Fatal("README.md or DESIGN.md is missing")
	}
	return found
}

// TestPagesConfiguration loads every TOML block of the pages as it stands.
func TestPagesConfiguration(t *testing.T) {
	blocks := 0
	variable := regexp.MustCompile(`\$\{(\w+)`)
	fence := regexp.MustCompile("(?ms)^```toml\n(.*?)^```$")
	for name, text := range pages(t) {
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			blocks++
			var environ []string
			for _, v := range variable.FindAllStringSubmatch(block[1], -1) {
				environ = append(environ, v[1]+"=a-value-that-is-long-enough")
			}
			if _, warnings, err := loadText(t, block[1], environ); err != nil || len(warnings) > 0 {
				t.Errorf("%s: this block is not valid: %v %v\n%s", name, err, warnings, block[1])
			}
		}
	}
	if blocks == 0 {
		t.Error("no page shows any configuration")
	}
}

// TestPagesReferences checks what the pages point at: files, targets of make and
// sub-commands.
func TestPagesReferences(t *testing.T) {
	makefile := page(t, "Makefile")
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)\s]*)?\)`)
	target := regexp.MustCompile("(?m)(?:^|`)(?:\\$ )?make ([a-z]+)")
	command := regexp.MustCompile("(?m)(?:^|[`/(])sluice ([a-z][a-z-]+)")
	known := map[string]bool{"completion": true, "help": true}
	for _, c := range (&app{}).rootCommand().Commands() {
		known[c.Name()] = true
	}
	for name, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(repoRoot, filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, fmt.Sprintf("\n%s:", m[1])) {
				t.Errorf("%s tells to make %s, which the Makefile cannot", name, m[1])
			}
		}
		for _, m := range command.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s shows sluice %s, which is no sub-command", name, m[1])
			}
		}
	}
}
