package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// installLimit bounds fetching one set of packages.
const installLimit = 5 * time.Minute

// notInstalled ends the test of a library that cannot be had: a failure where CI=true.
func notInstalled(t *testing.T, what string, err error, output []byte) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v\n%s", what, err, output)
	}
	t.Skipf("SKIPPED, THIS CLIENT IS NOT PROVEN: %s: %v\n%s", what, err, output)
}

// clientEnv is the environment of this process without what libraries would take as
// their settings.
func clientEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(strings.ToUpper(v), "=")
		return strings.HasPrefix(name, "OPENAI_") || strings.HasPrefix(name, "LANGCHAIN_") || strings.HasPrefix(name, "LANGSMITH_") ||
			strings.HasSuffix(name, "_PROXY")
	})
}

// installing serialises what shares a folder in this process, and guards uninstallable.
var (
	installing    sync.Mutex
	uninstallable = map[string]installFailure{} // by folder: what failed is not tried once more
)

type installFailure struct {
	err    error
	output []byte
}

// installed returns a folder that install has filled, made anew when one of the
// files that say what belongs into it, or the tool, has changed. It is filled under
// another name, so that it is whole or not there.
func installed(t *testing.T, name, tool string, files []string, install func(ctx context.Context, dir string) ([]byte, error)) string {
	t.Helper()
	installing.Lock()
	defer installing.Unlock()
	hash := sha256.New()
	fmt.Fprintln(hash, tool, runtime.GOOS, runtime.GOARCH)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		hash.Write(text)
	}
	cache, err := filepath.Abs(filepath.Join(repoRoot, ".cache", "clients"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, name+"-"+hex.EncodeToString(hash.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(cache, name+"-unfinished-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	failure, tried := uninstallable[dir]
	if !tried {
		ctx, cancel := context.WithTimeout(t.Context(), installLimit)
		defer cancel()
		failure.output, failure.err = install(ctx, fresh)
		uninstallable[dir] = failure
	}
	if failure.err != nil {
		notInstalled(t, "installing "+name, failure.err, failure.output)
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // else somebody else was quicker
			t.Fatal(err)
		}
	}
	return dir
}

// toolVersion asks a tool for its version.
func toolVersion(t *testing.T, command ...string) string {
	t.Helper()
	output, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		notInstalled(t, strings.Join(command, " "), err, output)
	}
	return strings.TrimSpace(string(output))
}

// nodeClient runs a script of testdata/clients/node. Scripts find their packages
// from where they stand, so they are copied beside them.
func nodeClient(script string) func(*testing.T) []string {
	return func(t *testing.T) []string {
		t.Helper()
		const source = "testdata/clients/node/"
		lock := []string{source + "package.json", source + "package-lock.json"}
		dir := installed(t, "node", toolVersion(t, "node", "--version"), lock, func(ctx context.Context, dir string) ([]byte, error) {
			for _, file := range lock {
				if err := copyClientFile(filepath.Join(dir, filepath.Base(file)), file); err != nil {
					return nil, err
				}
			}
			npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1")
			npm.Dir = dir
			npm.WaitDelay = time.Second
			return npm.CombinedOutput()
		})
		here, err := os.MkdirTemp(dir, "run-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(here) })
		for _, file := range []string{"tasks.mjs", script} {
			if err := copyClientFile(filepath.Join(here, file), source+file); err != nil {
				t.Fatal(err)
			}
		}
		return []string{"node", filepath.Join(here, script)}
	}
}

func copyClientFile(to, from string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

// pythonClient runs testdata/clients/python/client.py.
func pythonClient(mode string) func(*testing.T) []string {
	return func(t *testing.T) []string {
		t.Helper()
		const source = "testdata/clients/python/"
		dir := installed(t, "python", toolVersion(t, "python3", "--version"), []string{source + "requirements.txt"},
			func(ctx context.Context, dir string) ([]byte, error) {
				if output, err := exec.CommandContext(ctx, "python3", "-m", "venv", dir).CombinedOutput(); err != nil {
					return output, err
				}
				pip := exec.CommandContext(ctx, filepath.Join(dir, "bin", "python"), "-m", "pip", "install", "--quiet",
					"--disable-pip-version-check", "--retries=1", "--requirement", source+"requirements.txt")
				pip.WaitDelay = time.Second
				return pip.CombinedOutput()
			})
		return []string{filepath.Join(dir, "bin", "python"), "-B", source + "client.py", mode}
	}
}

// goClient builds a program of the module in testdata/clients/go, with the
// versions of one of its mod files.
func goClient(program, modfile string) func(*testing.T) []string {
	return func(t *testing.T) []string {
		t.Helper()
		installing.Lock() // one compiler at a time is enough
		defer installing.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), installLimit)
		defer cancel()
		binary := filepath.Join(t.TempDir(), "client")
		goTool := func(args ...string) ([]byte, error) {
			command := exec.CommandContext(ctx, "go", args...)
			command.Dir = "testdata/clients/go"
			command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
			command.WaitDelay = time.Second
			return command.CombinedOutput()
		}
		if output, err := goTool("mod", "download", "-modfile="+modfile); err != nil {
			notInstalled(t, "fetching the modules of "+modfile, err, output)
		}
		if output, err := goTool("build", "-modfile="+modfile, "-o", binary, program); err != nil {
			t.Fatalf("building %s: %v\n%s", program, err, output)
		}
		return []string{binary}
	}
}

// cutWhenSilent stands before a server, as balancers do, and closes a connection on
// which nothing has come back for so long. It returns the base URL to use instead.
func cutWhenSilent(t *testing.T, baseURL string, silence time.Duration) string {
	t.Helper()
	host, path, _ := strings.Cut(strings.TrimPrefix(baseURL, "http://"), "/")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { passUntilSilent(client, host, silence) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		all.Wait()
	})
	return "http://" + listener.Addr().String() + "/" + path
}

// passUntilSilent carries one connection, for as long as the server says something.
func passUntilSilent(client net.Conn, host string, silence time.Duration) {
	defer client.Close()
	server, err := net.Dial("tcp", host)
	if err != nil {
		return
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(server, client)
		_ = server.Close() // no client closes before it has its answer, unless it leaves
	}()
	buffer := make([]byte, 32<<10)
	for {
		_ = server.SetReadDeadline(time.Now().Add(silence))
		n, err := server.Read(buffer)
		if n > 0 {
			if _, err := client.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = client.Close()
	_ = server.Close()
	<-sent
}
