package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// asGateway, when set, makes the test binary be the gateway: a child process
// for what needs one (signals, descriptors), with the race detector of its parent.
const asGateway = "TEST_BINARY_IS_THE_GATEWAY"

func TestMain(m *testing.M) {
	if os.Getenv(asGateway) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// testKey is what a gateway under test accepts unless its configuration has keys.
const testKey = "sk-test"

// patience bounds every wait for something that must happen. It is no part of
// what is measured: where a test means "soon", it says how soon.
const patience = 20 * time.Second

// gatewayUnderTest is a gateway that runs until the test ends.
type gatewayUnderTest struct {
	URL      string // of the API, with /v1
	AdminURL string
	Key      string
	Client   *http.Client // keeps its connections to itself
	PID      int          // of the child, 0 in this process

	logs    *logBuffer
	end     func() // asks it to stop
	done    chan struct{}
	code    int // after done
	stopped bool
}

// boot serves a configuration in this process, on free loopback ports. Unless
// the text says otherwise, testKey is accepted and a drain has no delay. When the
// test ends the gateway must stop with exit code 0, so that whatever a test leaves
// running in it fails the test; Stop asks for it earlier.
func boot(t testing.TB, tomlText string) *gatewayUnderTest {
	t.Helper()
	return bootWith(t, bootArgs(t, tomlText))
}

// bootWith is boot with a command line of the test's own.
func bootWith(t testing.TB, args []string) *gatewayUnderTest {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g := newGatewayUnderTest(cancel)
	go func() {
		defer close(g.done)
		g.code = run(ctx, args, nil, strings.NewReader(""), io.Discard, g.logs)
	}()
	g.await(t)
	return g
}

// bootProcess is boot in a child process, which Signal reaches.
func bootProcess(t testing.TB, tomlText string, environ ...string) *gatewayUnderTest {
	t.Helper()
	return bootProcessWith(t, bootArgs(t, tomlText), environ...)
}

// bootProcessWith is bootProcess with a command line of the test's own.
func bootProcessWith(t testing.TB, args []string, environ ...string) *gatewayUnderTest {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), asGateway+"=1"), environ...)
	g := newGatewayUnderTest(func() { _ = cmd.Process.Signal(os.Interrupt) })
	cmd.Stderr = g.logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.PID = cmd.Process.Pid
	go func() {
		defer close(g.done)
		_ = cmd.Wait() // its code tells all
		g.code = cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		select {
		case <-g.done:
		default:
			_ = cmd.Process.Kill()
			<-g.done
		}
	})
	g.await(t)
	return g
}

func newGatewayUnderTest(end func()) *gatewayUnderTest {
	return &gatewayUnderTest{
		Key: testKey, Client: &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}},
		logs: &logBuffer{changed: make(chan struct{})}, end: end, done: make(chan struct{}),
	}
}

// bootArgs writes the configuration to a file of the test's.
func bootArgs(t testing.TB, tomlText string) []string {
	t.Helper()
	if !strings.Contains(tomlText, "[[keys]]") {
		tomlText += "\n[[keys]]\nname = \"test\"\nkey = \"" + testKey + "\"\n"
	}
	if !strings.Contains(tomlText, "[drain]") {
		tomlText += "\n[drain]\ndelay = \"0s\"\ntimeout = \"5s\"\n"
	}
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(tomlText), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--config", file, "--set", "server.listen=127.0.0.1:0", "--set", "server.admin_listen=127.0.0.1:0"}
}

// await waits until the gateway listens, and takes its addresses from its log.
func (g *gatewayUnderTest) await(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for g.URL == "" {
		seen := g.logs.next()
		for _, line := range g.logs.lines() {
			switch line["msg"] {
			case "admin":
				g.AdminURL = line["url"]
			case "listening":
				g.URL = line["url"]
			}
		}
		if g.URL != "" {
			break
		}
		select {
		case <-seen:
		case <-g.done:
			t.Fatalf("the gateway ended with code %d:\n%s", g.code, g.Logs())
		case <-ctx.Done():
			t.Fatalf("the gateway does not listen:\n%s", g.Logs())
		}
	}
	t.Cleanup(func() {
		early := g.stopped
		if code := g.Stop(); !early && code != exitOK {
			t.Errorf("the gateway ended with code %d:\n%s", code, g.Logs())
		}
	})
}

// Logs returns what the gateway has written so far.
func (g *gatewayUnderTest) Logs() string { return g.logs.String() }

// Stop drains the gateway and returns its exit code.
func (g *gatewayUnderTest) Stop() int {
	g.Client.CloseIdleConnections()
	if !g.stopped {
		g.stopped = true
		g.end()
	}
	return g.Wait()
}

// Wait returns the exit code once the gateway has ended by itself; -2 when it does not.
func (g *gatewayUnderTest) Wait() int {
	g.stopped = true
	select {
	case <-g.done:
		return g.code
	case <-time.After(2 * patience):
		return -2
	}
}

// Signal sends a signal to a child process.
func (g *gatewayUnderTest) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	p, err := os.FindProcess(g.PID)
	if err == nil {
		err = p.Signal(sig)
	}
	if err != nil {
		t.Fatalf("signalling the gateway: %v", err)
	}
}

// logBuffer collects lines of log/slog's text form.
type logBuffer struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and renewed at every write
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// next is closed when something is written after this call.
func (l *logBuffer) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// lines returns the complete lines as attributes.
func (l *logBuffer) lines() []map[string]string {
	var out []map[string]string
	text := l.String()
	for line := range strings.SplitSeq(text[:strings.LastIndexByte(text, '\n')+1], "\n") {
		if line != "" {
			out = append(out, attributes(line))
		}
	}
	return out
}

// attributes reads one line of key=value, the value quoted where it must be.
func attributes(line string) map[string]string {
	out := map[string]string{}
	for line != "" {
		key, rest, ok := strings.Cut(line, "=")
		if !ok {
			break
		}
		value, after, _ := strings.Cut(rest, " ")
		if quoted, err := strconv.QuotedPrefix(rest); err == nil {
			value, _ = strconv.Unquote(quoted)
			after = strings.TrimPrefix(rest[len(quoted):], " ")
		}
		out[key], line = value, after
	}
	return out
}

// awaitLine waits for a line of the log that match accepts.
func (g *gatewayUnderTest) awaitLine(t testing.TB, what string, match func(map[string]string) bool) map[string]string {
	t.Helper()
	late := time.After(patience)
	for {
		next := g.logs.next()
		for _, line := range g.logs.lines() {
			if match(line) {
				return line
			}
		}
		select {
		case <-next:
		case <-late:
			t.Fatalf("no log line of %s:\n%s", what, g.Logs())
		}
	}
}

// accessLine waits for the access line of the answer for a model.
func (g *gatewayUnderTest) accessLine(t testing.TB, model string) map[string]string {
	t.Helper()
	return g.awaitLine(t, fmt.Sprintf("an answer of %s", model), func(l map[string]string) bool { return l["msg"] == "answer" && l["model"] == model })
}
