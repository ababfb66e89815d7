package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/providers/providertest/wall"
	"sluice/ratelimit/ratelimittest/redistest"
)

// issued is a key as the command line and the admin API show it.
type issued struct {
	ID, Name, State, Secret, Source string
	Version                         uint64
	Models                          []string
	Limits                          []map[string]any
	ReadOnly                        bool `json:"read_only"`
}

// keyCLI runs `sluice key` over a configuration of its own, as an operator would.
type keyCLI struct{ config string }

func newKeyCLI(t testing.TB, config string) keyCLI {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return keyCLI{file}
}

func (k keyCLI) run(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	code = run(ctx, append([]string{"--config", k.config, "key"}, args...), nil, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

// must runs a command that succeeds and prints JSON.
func (k keyCLI) must(t testing.TB, args ...string) (i issued) {
	t.Helper()
	out, errs, code := k.run(t, append(args, "--json")...)
	if code != exitOK {
		t.Fatalf("key %s: exit code %d\n%s", args, code, errs)
	}
	if err := json.Unmarshal([]byte(out), &i); err != nil {
		t.Fatalf("key %s: %v in %s", args, err, out)
	}
	return i
}

const testPepper = "[auth]\npepper = \"a pepper that all the gateways of a test have\"\n"

// as has the gateway's requests carry another key.
func (g *gatewayUnderTest) as(key string) *gatewayUnderTest {
	c := *g
	c.Key = key
	return &c
}

// longAnswer is an answer that runs for as long as anybody looks.
const longAnswer = "tokens=100000,delay=20ms"

// issue creates a key by the gateway's admin API, with adminTestToken.
func (g *gatewayUnderTest) issue(t testing.TB, body string) (k issued) {
	t.Helper()
	if err := json.Unmarshal([]byte(g.wantAdmin(t, http.StatusCreated, "POST", "/admin/api/keys", body, withToken...)), &k); err != nil {
		t.Fatal(err)
	}
	return k
}

// TestIssuedKeyAtReplicas: what is created at one gateway is used at another; what is revoked
// there is refused here within a second, and what runs with it ends truthfully.
func TestIssuedKeyAtReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	base, _ := wall.Start(t)
	config := limited(base, overRedis(server.Addr, testPepper)) + adminTables
	a, b := bootProcess(t, config), bootProcess(t, config)
	cli := newKeyCLI(t, config)
	k := a.issue(t, `{"name":"app","limits":[{"requests_per_day":100}]}`)
	if _, err := auth.ParseToken(k.Secret); err != nil {
		t.Fatalf("%q: %v", k.Secret, err)
	}
	a, b = a.as(k.Secret), b.as(k.Secret)
	b.eventually(t, "the key is good at B", func() bool {
		return b.do(t, http.MethodGet, "/models", "").status == http.StatusOK
	})
	if got := a.chat(t, wallModel("replica-a", ""), ""); got.status != http.StatusOK {
		t.Fatalf("at A: %d %s", got.status, got.body)
	}
	stream := b.openStream(t.Context(), t, chatBody(wallModel("revoked-sse", longAnswer), true, ""))
	defer stream.Body.Close()
	readOne(t, stream.Body)
	sock := b.dial(t)
	sock.create(t, "s", wallModel("revoked-ws", longAnswer), "")
	sock.expect(t, "accepted", "s")
	sock.expect(t, "chunk", "s")

	began := time.Now()
	a.wantAdmin(t, http.StatusOK, "POST", "/admin/api/keys/"+k.ID+"/disable", "", withToken...)
	b.eventually(t, "B refuses the key", func() bool { return b.do(t, http.MethodGet, "/models", "").status == http.StatusForbidden })
	t.Logf("B refused after %v", time.Since(began))
	rest, err := io.ReadAll(stream.Body)
	took := time.Since(began)
	if err != nil || !strings.Contains(string(rest), `"code":"key_revoked"`) || strings.Contains(string(rest), "[DONE]") {
		t.Errorf("the stream ended with %v after %v: ...%s", err, took, rest[max(0, len(rest)-300):])
	}
	if took > 10*time.Second {
		t.Errorf("the stream ran for %v", took)
	}
	t.Logf("the streams ended after %v", took)
	told := false
	for m := sock.next(t); ; m = sock.next(t) {
		told = told || m.fault.Code == "key_revoked"
		if m.close != 0 {
			if m.close != 1008 || !told {
				t.Errorf("closed with %d, told: %t", m.close, told)
			}
			break
		}
	}
	cli.must(t, "enable", k.ID)
	b.eventually(t, "the key is good again", func() bool { return b.do(t, http.MethodGet, "/models", "").status == http.StatusOK })
	cli.must(t, "delete", k.ID)
	for _, g := range []*gatewayUnderTest{a, b} {
		g.eventually(t, "the deleted key is refused", func() bool { return g.do(t, http.MethodGet, "/models", "").status == http.StatusUnauthorized })
	}
}

// TestTicketsAreSpentEverywhere: a ticket of one gateway is good at another, once, and dies
// with its key.
func TestTicketsAreSpentEverywhere(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	base, _ := wall.Start(t)
	config := limited(base, overRedis(server.Addr, testPepper))
	a, b := boot(t, config), boot(t, config)
	cli := newKeyCLI(t, config)
	k := cli.must(t, "create", "app")
	a, b = a.as(k.Secret), b.as(k.Secret)
	ticket := func() string {
		t.Helper()
		var answer struct{ Ticket string }
		got := ""
		a.eventually(t, "A makes a ticket", func() bool {
			got = a.do(t, http.MethodPost, "/tickets", "").body
			return strings.Contains(got, `"ticket":"`)
		})
		if err := json.Unmarshal([]byte(got), &answer); err != nil {
			t.Fatal(err)
		}
		return "Sec-WebSocket-Protocol: sluice-ticket." + answer.Ticket
	}
	const plain, noKey = "Sec-WebSocket-Protocol: sluice.v1", "Authorization: "
	first := ticket()
	b.eventually(t, "B knows the key", func() bool { return b.do(t, http.MethodGet, "/models", "").status == http.StatusOK })
	if c, res := b.handshake(t, chatPath, plain, first, noKey); c == nil {
		t.Fatalf("B refused a ticket of A with %d", res.StatusCode)
	}
	for name, g := range map[string]*gatewayUnderTest{"A": a, "B": b} {
		if c, res := g.handshake(t, chatPath, plain, first, noKey); c != nil || res.StatusCode != http.StatusForbidden {
			t.Errorf("%s took the ticket a second time", name)
		}
	}
	if c, res := b.handshake(t, chatPath, plain, ticket()); c != nil || res.StatusCode != http.StatusBadRequest {
		t.Error("a ticket and a key together are taken")
	}
	late := ticket()
	cli.must(t, "rotate", k.ID)
	b.eventually(t, "the old secret is refused", func() bool { return b.do(t, http.MethodGet, "/models", "").status == http.StatusUnauthorized })
	if c, res := b.handshake(t, chatPath, plain, late, noKey); c != nil || res.StatusCode != http.StatusForbidden {
		t.Error("a ticket outlives its secret")
	}
}

// TestKeyCLIOnOneNode: the command line opens the file when no gateway runs, and speaks to
// the one that does.
func TestKeyCLIOnOneNode(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	config := limited(base, fmt.Sprintf("[data]\ndir = %q\n", t.TempDir()))
	cli := newKeyCLI(t, config)
	offline := cli.must(t, "create", "offline", "--model", "wall:*", "--limit", "requests_per_day=3,burst=3", "--expires", "30d", "--meta", "ticket=A-1")
	g := boot(t, config)
	if a := g.as(offline.Secret).chat(t, wallModel("cli", ""), ""); a.status != http.StatusOK || a.header.Get("X-Ratelimit-Remaining-Requests") != "2" {
		t.Errorf("%d, %v: %s", a.status, a.header, a.body)
	}
	online := cli.must(t, "create", "online")
	if a := g.as(online.Secret).do(t, http.MethodGet, "/models", ""); a.status != http.StatusOK {
		t.Errorf("at once: %d %s", a.status, a.body)
	}
	out, errs, code := cli.run(t, "list")
	for _, want := range []string{online.ID, offline.ID, "test ", "wall:*", "burst=3,requests_per_day=3", "config.toml"} {
		if !strings.Contains(out, want) || code != exitOK {
			t.Errorf("%q is not listed (%d):\n%s%s", want, code, out, errs)
		}
	}
	if out, _, _ := cli.run(t, "show", offline.ID); !strings.Contains(out, "2 of 3") || !strings.Contains(out, "A-1") || strings.Contains(out, offline.Secret[20:]) {
		t.Errorf("shown:\n%s", out)
	}
	cli.must(t, "edit", offline.ID, "--limit", "requests_per_day=100")
	if a := g.as(offline.Secret).chat(t, wallModel("cli", ""), ""); a.header.Get("X-Ratelimit-Limit-Requests") != "100" {
		t.Errorf("the new limit is not in force at once: %v", a.header)
	}
	toml, _, code := cli.run(t, "export")
	if code != exitOK || !strings.Contains(toml, offline.ID) || strings.Contains(toml, offline.Secret[20:]) {
		t.Errorf("exported (%d):\n%s", code, toml)
	}
	if code := g.Stop(); code != exitOK {
		t.Fatalf("the gateway ended with %d", code)
	}
	file := filepath.Join(t.TempDir(), "keys.toml")
	if err := os.WriteFile(file, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := cli.run(t, "import", file); code != exitOK || !strings.Contains(out, "2 the same") {
		t.Errorf("imported (%d): %s%s", code, out, errs)
	}
	for args, want := range map[string]int{"show nobody": exitFailure, "create": exitUsage, "rotate x --overlap y": exitUsage, "edit " + online.ID: exitUsage, "disable test": exitFailure, "create x --limit requests=1": exitFailure} {
		if _, errs, code := cli.run(t, strings.Fields(args)...); code != want || !strings.HasPrefix(errs, "sluice: ") {
			t.Errorf("key %s: exit code %d, want %d\n%s", args, code, want, errs)
		}
	}
}

// TestIssuedKeySurvivesKill: a gateway is killed while keys are created; those that were
// shown are there.
func TestIssuedKeySurvivesKill(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	config := limited(base, fmt.Sprintf("[data]\ndir = %q\n", t.TempDir()))
	g := bootProcess(t, config)
	cli := newKeyCLI(t, config)
	var made []issued
	for alive := true; alive && len(made) < 1000; {
		if len(made) == 12 { // from now on, somewhere between a write and its reply
			go func() { _ = syscall.Kill(g.PID, syscall.SIGKILL) }()
		}
		out, _, code := cli.run(t, "create", "k", "--json")
		if code == exitOK {
			var k issued
			if err := json.Unmarshal([]byte(out), &k); err != nil {
				t.Fatal(err)
			}
			made = append(made, k)
		}
		select {
		case <-g.done:
			alive = false
		default:
			alive = code == exitOK
		}
	}
	<-g.done
	g.stopped = true
	again := boot(t, config)
	for _, k := range made {
		if a := again.as(k.Secret).do(t, http.MethodGet, "/models", ""); a.status != http.StatusOK {
			t.Errorf("%s was shown and is lost: %d", k.ID, a.status)
		}
	}
	if len(made) < 12 {
		t.Errorf("only %d keys were made", len(made))
	}
}

// TestKeyExpires: an expiry ends what runs, by the clock alone.
func TestKeyExpires(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	config := limited(base, fmt.Sprintf("[data]\ndir = %q\n", t.TempDir()))
	cli := newKeyCLI(t, config)
	g := boot(t, config)
	k := cli.must(t, "create", "short")
	stream := g.as(k.Secret).openStream(t.Context(), t, chatBody(wallModel("expires", longAnswer), true, ""))
	defer stream.Body.Close()
	readOne(t, stream.Body)
	cli.must(t, "edit", k.ID, "--expires", "1s")
	rest, err := io.ReadAll(stream.Body)
	if err != nil || !strings.Contains(string(rest), `"code":"key_revoked"`) {
		t.Errorf("%v: ...%s", err, rest[max(0, len(rest)-300):])
	}
	if a := g.as(k.Secret).do(t, http.MethodGet, "/models", ""); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "api_key_expired") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestStaticKeyTakenOut: what runs with a key that a reload takes out of the configuration
// ends, and what runs with others goes on.
func TestStaticKeyTakenOut(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	const stays = "\n[[keys]]\nname = \"test\"\nkey = \"" + testKey + "\"\n"
	r := bootReloadable(t, overWall(base, stays+"[[keys]]\nname = \"leaked\"\nkey = \"sk-leaked\"\n"), false)
	open := func(key, name string) *http.Response {
		t.Helper()
		res := r.as(key).openStream(t.Context(), t, chatBody(wallModel(name, longAnswer), true, ""))
		t.Cleanup(func() { _ = res.Body.Close() })
		readOne(t, res.Body)
		return res
	}
	leaked, other := open("sk-leaked", "leaked"), open(testKey, "other")
	r.to(t, overWall(base, stays))
	rest, err := io.ReadAll(leaked.Body)
	if err != nil || !strings.Contains(string(rest), `"code":"key_revoked"`) {
		t.Errorf("%v: ...%s", err, rest[max(0, len(rest)-300):])
	}
	if a := r.as("sk-leaked").do(t, http.MethodGet, "/models", ""); a.status != http.StatusUnauthorized {
		t.Errorf("%d %s", a.status, a.body)
	}
	readOne(t, other.Body)
}
