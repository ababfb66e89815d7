package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/handlers/auth"
	"sluice/providers/providertest/wall"
)

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
