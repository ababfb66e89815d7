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

// TestIssuedKeyAtReplicas: what is created at one gateway's store is used at another; what is
// revoked there is refused here within a second, and what runs with it ends truthfully.
func TestIssuedKeyAtReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	base, _ := wall.Start(t)
	config := limited(base, overRedis(server.Addr, testPepper))
	a, b := bootProcess(t, config), bootProcess(t, config)
	cli := newKeyCLI(t, config)
	k := cli.must(t, "create", "app", "--limit", "requests_per_day=100")
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
	cli.must(t, "disable", k.ID)
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

// TestKeyPermissions: what a key is not for is refused, and models that it may not use are not
// told of.
func TestKeyPermissions(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	config := limited(base, fmt.Sprintf("[data]\ndir = %q\n", t.TempDir()))
	cli := newKeyCLI(t, config)
	narrow := cli.must(t, "create", "narrow", "--model", "wall:*", "--route", "chat", "--transport", "sse", "--group", "staff", "--org", "acme").Secret
	socket := cli.must(t, "create", "socket", "--transport", "ws", "--model", "wall:*")
	g := boot(t, config).as(narrow)
	if a := g.chat(t, wallModel("allowed", ""), ""); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for name, c := range map[string]struct {
		path, body, code, param string
	}{
		"model":     {chatPath, chatBody("demo-echo", true, ""), "model_not_found", "model"},
		"no model":  {chatPath, chatBody("nobody-has-this", true, ""), "model_not_found", "model"},
		"transport": {chatPath, chatBody(wallModel("forbidden", ""), false, ""), "transport_not_allowed", ""},
		"route":     {"/completions", `{"model":"` + wallModel("forbidden", "") + `","prompt":"x","stream":true}`, "route_not_allowed", ""},
		"passed":    {"/audio/speech", `{"model":"` + wallModel("forbidden", "") + `","input":"x"}`, "route_not_allowed", ""},
		"infer":     {"/models/wall/infer", `{"inputs":[]}`, "route_not_allowed", ""},
	} {
		a := g.do(t, http.MethodPost, c.path, c.body)
		if e := a.refused(t, http.StatusForbidden); e.Code != c.code || e.Param != c.param {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	known, unknown := g.do(t, http.MethodPost, chatPath, chatBody("demo-echo", true, "")), g.do(t, http.MethodPost, chatPath, chatBody("demo-ech0", true, ""))
	if strings.ReplaceAll(unknown.body, "demo-ech0", "demo-echo") != known.body {
		t.Errorf("whether a model exists is told:\n%s\n%s", known.body, unknown.body)
	}
	if n := calls(w, "forbidden"); n > 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
	if a := g.do(t, http.MethodGet, "/models", ""); a.status != http.StatusOK || strings.Contains(a.body, "demo-echo") {
		t.Errorf("listed: %s", a.body)
	}
	if a := g.do(t, http.MethodGet, "/models/demo-echo", ""); a.status != http.StatusNotFound {
		t.Errorf("shown: %s", a.body)
	}
	if c, res := g.handshake(t, chatPath); c != nil || res.StatusCode != http.StatusForbidden {
		t.Error("a key for SSE alone opens a WebSocket")
	}
	if a := g.do(t, http.MethodPost, "/tickets", ""); a.status != http.StatusForbidden {
		t.Errorf("a ticket for nothing: %d", a.status)
	}
	sock := g.as(socket.Secret).dial(t)
	sock.create(t, "a", "demo-echo", "")
	if m := sock.expect(t, "error", "a"); m.fault.Code != "model_not_found" {
		t.Errorf("over WebSocket: %s", m.text)
	}
	cli.must(t, "edit", socket.ID, "--model", "demo-*")
	g.eventually(t, "the edit counts on the open connection", func() bool {
		sock.create(t, "b", wallModel("edited", "tokens=1"), "")
		for m := sock.next(t); ; m = sock.next(t) {
			if m.Type == "error" || m.Type == "done" {
				return m.fault.Code == "model_not_found"
			}
		}
	})
}

// TestBadCredentials: nobody learns more than that it is not a key.
func TestBadCredentials(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	config := limited(base, fmt.Sprintf("[data]\ndir = %q\n", t.TempDir()))
	cli := newKeyCLI(t, config)
	k, off, gone := cli.must(t, "create", "app"), cli.must(t, "create", "off"), cli.must(t, "create", "gone")
	cli.must(t, "disable", off.ID)
	cli.must(t, "delete", gone.ID)
	g := boot(t, config)
	id, err := auth.ParseKeyID(k.ID)
	if err != nil {
		t.Fatal(err)
	}
	wrong, unknown, offID := auth.TokenFor(id), auth.NewToken(), auth.KeyID([]byte(off.ID))
	wrongOff := auth.TokenFor(offID)
	var body string
	for name, key := range map[string]string{
		"wrong secret": wrong.Reveal(), "unknown id": unknown.Reveal(), "deleted": gone.Secret, "disabled, wrong secret": wrongOff.Reveal(), "other": "sk-x",
	} {
		a := g.as(key).do(t, http.MethodGet, "/models", "")
		if body == "" {
			body = a.body
		}
		if a.status != http.StatusUnauthorized || a.body != body || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	for name, c := range map[string]struct {
		key    string
		more   []string
		status int
	}{
		"cut off": {key: k.Secret[:40], status: http.StatusUnauthorized}, "disabled": {key: off.Secret, status: http.StatusForbidden},
		"two keys":  {key: k.Secret, more: []string{"Api-Key: " + testKey}, status: http.StatusBadRequest},
		"one twice": {key: k.Secret, more: []string{"Api-Key: " + k.Secret}, status: http.StatusOK},
		"api-key":   {key: "", more: []string{"Authorization: ", "Api-Key: " + k.Secret}, status: http.StatusOK},
	} {
		if a := g.as(c.key).do(t, http.MethodGet, "/models", "", c.more...); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if c, res := g.handshake(t, chatPath, "Sec-WebSocket-Protocol: sluice.v1", "Sec-WebSocket-Protocol: openai-insecure-api-key."+k.Secret); c != nil || res.StatusCode != http.StatusBadRequest {
		t.Error("two keys open a WebSocket")
	}
}

// TestOwnKey: GET /v1/key tells a caller of its own key, and of no other.
func TestOwnKey(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	config := limited(base, fmt.Sprintf("[data]\ndir = %q\n", t.TempDir()))
	cli := newKeyCLI(t, config)
	mine := cli.must(t, "create", "mine", "--org", "acme", "--user", "ann", "--limit", "requests_per_day=10", "--limit", "tokens_per_day=1000,scope=key_model,models=demo-*", "--expires", "2099-01-01")
	other := cli.must(t, "create", "other", "--org", "acme", "--user", "bob")
	g := boot(t, config)
	for range 3 {
		g.as(mine.Secret).chat(t, wallModel("own", ""), "")
		g.as(other.Secret).chat(t, wallModel("others", ""), "")
	}
	a := g.as(mine.Secret).do(t, http.MethodGet, "/key", "")
	var r struct {
		Object, ID, Name, Org, User string
		Issued                      bool
		ExpiresAt                   int64 `json:"expires_at"`
		Limits                      []level
		Usage                       []struct {
			Model string
			Calls int
			Start int64
		}
	}
	if err := json.Unmarshal([]byte(a.body), &r); err != nil || a.status != http.StatusOK || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v: %s", a.status, err, a.body)
	}
	if r.Object != "key" || r.ID != mine.ID || r.Name != "mine" || !r.Issued || r.Org != "acme" || r.User != "ann" || r.ExpiresAt != 4070995200 {
		t.Errorf("%s", a.body)
	}
	if len(r.Limits) < 2 || r.Limits[0].ID != "key.requests_per_day" || r.Limits[0].Remaining != "7" || r.Limits[0].Reset == 0 {
		t.Errorf("limits: %+v", r.Limits)
	}
	if len(r.Usage) != 1 || r.Usage[0].Calls != 3 || r.Usage[0].Start == 0 {
		t.Errorf("usage: %+v", r.Usage)
	}
	for _, secret := range []string{other.ID, "bob", "other", mine.Secret} {
		if strings.Contains(a.body, secret) {
			t.Errorf("%q is told: %s", secret, a.body)
		}
	}
	if a := g.do(t, http.MethodGet, "/key", ""); !strings.Contains(a.body, `"id":"test"`) || !strings.Contains(a.body, `"issued":false`) {
		t.Errorf("of a key of the configuration: %s", a.body)
	}
	if a := g.do(t, http.MethodGet, "/key", "", "Authorization: "); a.status != http.StatusUnauthorized {
		t.Errorf("without a key: %d", a.status)
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

// issuedTasks have libraries use keys that are issued: one that is within its limit, and one
// whose limit is spent.
func issuedTasks(t *testing.T, config string) []clientTask {
	t.Helper()
	cli := newKeyCLI(t, config)
	issue := func(name string) string {
		return cli.must(t, "create", name, "--limit", "requests_per_day=1", "--model", "wall*").Secret
	}
	model := wallModel("issued", "tokens=3")
	return []clientTask{
		{Name: "issued key", Op: "stream", APIKey: issue("good"), Model: model, Prompt: words, check: func(t *testing.T, _ *clientStage, r clientReport) {
			if n, err := wall.Verify("wall", strings.Join(r.Text, "")); r.Error != nil || n != 3 || err != nil {
				t.Errorf("%+v, %v", r, err)
			}
		}},
		{Name: "issued key over its limit", Op: "stream", APIKey: issue("spent"), Model: model, Prompt: words, check: func(t *testing.T, s *clientStage, r clientReport) {
			refusedWith(http.StatusTooManyRequests, "rate_limit_exceeded", "requests")(t, s, r)
			shown := strings.HasPrefix(s.client.name, "openai-node") || strings.HasPrefix(s.client.name, "openai-python")
			if e := r.Error; shown && (e == nil || e.Left != "0" || e.Full != "1") {
				t.Errorf("the headers say %+v", e)
			}
		}},
	}
}

// spendIssued uses up what the second of the tasks has.
func spendIssued(t *testing.T, g *gatewayUnderTest, tasks []clientTask) {
	t.Helper()
	if a := g.as(tasks[1].APIKey).do(t, http.MethodPost, chatPath, chatBody(tasks[1].Model, true, "")); a.status != http.StatusOK || a.header.Get("X-Ratelimit-Remaining-Requests") != "0" {
		t.Fatalf("%d %v: %s", a.status, a.header, a.body)
	}
}
