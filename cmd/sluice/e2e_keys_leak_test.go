package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/providers/providertest/wall"
)

// TestWrongKeysAreBounded: from a network that sends many wrong keys each further one is told
// 429, over HTTP and WebSocket; right ones are not, nor is anything else.
func TestWrongKeysAreBounded(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, limited(base, "[auth]\ntries_per_minute = 3\n"))
	for i := range 3 {
		if a := g.as(fmt.Sprint("sk-wrong-", i)).do(t, http.MethodGet, "/models", ""); a.status != http.StatusUnauthorized {
			t.Errorf("wrong key %d: %d %s", i, a.status, a.body)
		}
	}
	a := g.as("sk-wrong").do(t, http.MethodGet, "/key", "")
	if a.status != http.StatusTooManyRequests || !strings.Contains(a.body, `"too_many_tries"`) || a.header.Get("Retry-After") == "" || a.header.Get("X-Should-Retry") != "false" {
		t.Errorf("one more: %d %v %s", a.status, a.header, a.body)
	}
	if c, res := g.as("sk-wrong").handshake(t, chatPath, "Sec-WebSocket-Protocol: sluice.v1"); c != nil || res.StatusCode != http.StatusTooManyRequests {
		t.Error("a wrong key of a WebSocket is not counted")
	}
	if a := g.do(t, http.MethodGet, "/key", ""); a.status != http.StatusOK {
		t.Errorf("the right key: %d %s", a.status, a.body)
	}
	if a := g.as("").do(t, http.MethodGet, "/key", "", "Authorization: "); a.status != http.StatusUnauthorized {
		t.Errorf("no key: %d %s", a.status, a.body)
	}
}

// TestStaticKeyReplaced: a key of the configuration that gets another secret is dead under the
// old one: its stream and its connection end, its ticket is none.
func TestStaticKeyReplaced(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	text := func(secret string) string {
		return overWall(base, "\n[[keys]]\nname = \"test\"\nkey = \""+testKey+"\"\n[[keys]]\nname = \"app\"\nkey = \""+secret+"\"\n")
	}
	r := bootReloadable(t, text("sk-leaked"), false)
	old := r.as("sk-leaked")
	res := old.openStream(t.Context(), t, chatBody(wallModel("replaced", longAnswer), true, ""))
	defer res.Body.Close()
	readOne(t, res.Body)
	c := old.dial(t)
	var ticket struct{ Ticket string }
	if err := json.Unmarshal([]byte(old.do(t, http.MethodPost, "/tickets", "").body), &ticket); err != nil {
		t.Fatal(err)
	}
	other := r.openStream(t.Context(), t, chatBody(wallModel("other", longAnswer), true, ""))
	defer other.Body.Close()
	r.to(t, text("sk-leaked")+"\n# nothing else\n")
	readOne(t, res.Body)
	r.to(t, text("sk-new"))
	rest, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(rest), `"code":"key_revoked"`) {
		t.Errorf("%v: ...%s", err, rest[max(0, len(rest)-300):])
	}
	if m := c.next(t); m.fault.Code != "key_revoked" {
		t.Errorf("on the connection: %s", m.text)
	}
	if c, res := r.handshake(t, chatPath, "Sec-WebSocket-Protocol: sluice.v1", "Sec-WebSocket-Protocol: sluice-ticket."+ticket.Ticket, "Authorization: "); c != nil || res.StatusCode != http.StatusForbidden {
		t.Error("a ticket outlives its secret")
	}
	if a := r.as("sk-new").do(t, http.MethodGet, "/models", ""); a.status != http.StatusOK {
		t.Errorf("the new secret: %d %s", a.status, a.body)
	}
	readOne(t, other.Body)
}

// TestAdminTLS serves the admin listener with the certificate of the API, for browsers and for
// the command line of the machine.
func TestAdminTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair := filepath.Join(dir, "pair")
	writePair(t, pair)
	config := fmt.Sprintf("[server]\ntls_cert = %q\ntls_key = %q\n[data]\ndir = %q\n", pair+".crt", pair+".key", dir) + strings.Replace(adminTables, "[admin]\n", "[admin]\ntls = true\n", 1)
	g := boot(t, config)
	g.Client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the test's own certificate
	if !strings.HasPrefix(g.AdminURL, "https://") {
		t.Fatal(g.AdminURL)
	}
	cookie := g.adminSession(t, asMainAdmin)
	g.wantAdmin(t, http.StatusOK, "GET", "/admin/api/system", "", "Cookie", cookie)
	g.wantAdmin(t, http.StatusForbidden, "GET", "/admin/api/system", "", "Cookie", cookie, "Origin", "https://127.0.0.1:1")
	plain := *g
	plain.AdminURL = "http" + strings.TrimPrefix(g.AdminURL, "https")
	if answer, text := plain.askAdmin(t, "GET", "/admin/api/system", "", withToken...); answer.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: %d %s", answer.StatusCode, text)
	}
	if k := newKeyCLI(t, config).must(t, "create", "app"); g.as(k.Secret).do(t, http.MethodGet, "/key", "").status != http.StatusOK {
		t.Error("a key that the command line made is not good at once")
	}
}

// planted are secrets in every place that a configuration has for them.
var planted = map[string]string{
	"static": "sk-PLANTED-static-key-1", "upstream": "PLANTED-upstream-2", "header": "PLANTED-header-3", "ticket": "PLANTED-ticket-secret-of-more-than-32-characters-4",
	"token": "PLANTED-admin-token-of-more-than-32-characters-5", "pepper": "PLANTED-pepper-of-more-than-32-characters-6", "file": "PLANTED-from-a-file-7",
	"wrong": "sk-PLANTED-wrong-key-8", "mistake": "PLANTED mistake 9", "sent": "PLANTED sent 10",
}

// TestSecretsAreNowhere plants secrets and looks for them in all that the gateway says: every
// route of the admin API that reads, errors of the configuration, the audit log, metrics, logs.
func TestSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(planted["file"]), 0o600); err != nil {
		t.Fatal(err)
	}
	text := func(static string) string {
		return fmt.Sprintf("[data]\ndir = %q\n[auth]\npepper = %q\n[websocket]\nticket_secret = %q\n", t.TempDir(), planted["pepper"], planted["ticket"]) +
			fmt.Sprintf("[[upstreams]]\nname = \"w\"\nkind = \"openai\"\nbase_url = %q\napi_key = %q\nheaders = { x-own = %q }\n", base+"/v1", planted["upstream"], planted["header"]) +
			fmt.Sprintf("[[upstreams]]\nname = \"f\"\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key_file = %q\n", file) +
			"[[models]]\nname = \"*\"\ntargets = [{ upstream = \"w\" }]\n[[models]]\nname = \"dead\"\ntargets = [{ upstream = \"f\", model = \"x\" }]\n" +
			fmt.Sprintf("[[admin.tokens]]\nname = \"tests\"\nrole = \"admin\"\ntoken = %q\n[[keys]]\nname = \"test\"\nkey = %q\n", planted["token"], static)
	}
	r := bootReloadable(t, text(planted["static"]), false)
	g := r.as(planted["static"])
	said := map[string]string{}
	ask := func(method, path, body string, header ...string) {
		t.Helper()
		answer, text := r.askAdmin(t, method, path, body, append(header, "Authorization", "Bearer "+planted["token"])...)
		said[method+" "+path] = fmt.Sprint(answer.StatusCode, answer.Header, text)
	}
	made, makes := r.askAdmin(t, "POST", "/admin/api/keys", `{"name":"app"}`, "Authorization", "Bearer "+planted["token"])
	var app issued
	if err := json.Unmarshal([]byte(makes), &app); err != nil || made.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", made.StatusCode, makes)
	}
	said["an answer"] = g.whole(t, wallModel("planted", ""), "").body
	said["a dead upstream"] = g.do(t, http.MethodPost, "/chat/completions", chatBody("dead", false, "")).body
	said["a wrong key"] = g.as(planted["wrong"]).do(t, http.MethodGet, "/key", "").body
	said["my key"] = g.as(app.Secret).do(t, http.MethodGet, "/key", "").body
	r.write(t, text(planted["mistake"]))
	ask("POST", "/admin/api/config/reload", "")
	r.write(t, text(planted["static"])+"[[keys]]\nname = \"typed\"\nkey = [\""+planted["mistake"]+"\"]\n")
	ask("POST", "/admin/api/config/reload", "")
	ask("POST", "/admin/api/config/validate", text(planted["sent"]))
	ask("POST", "/admin/api/session", `{"key":"`+planted["wrong"]+`"}`)
	ask("POST", "/admin/api/session", `{"user":"`+planted["sent"]+`","password":"`+planted["sent"]+`"}`)
	ask("PUT", "/admin/api/overrides/upstreams.w.api_key", `{"value":"`+planted["sent"]+`"}`)
	ask("POST", "/admin/api/keys/"+app.ID+"/disable", "")
	var doc struct {
		Paths map[string]map[string]any
	}
	_, described := r.askAdmin(t, "GET", "/admin/api/openapi.json", "", "Authorization", "Bearer "+planted["token"])
	if err := json.Unmarshal([]byte(described), &doc); err != nil || len(doc.Paths) < 20 {
		t.Fatalf("%v: %.200s", err, described)
	}
	for path, methods := range doc.Paths {
		if methods["get"] != nil {
			ask("GET", "/admin/api"+strings.NewReplacer("{id}", app.ID, "{path}", "upstreams.w.drained").Replace(path), "")
		}
	}
	ask("GET", "/admin/api/config?format=toml", "")
	ask("GET", "/admin/api/audit/export?format=csv", "")
	ask("GET", "/metrics", "")
	if code := r.Stop(); code != exitOK {
		t.Errorf("it ended with %d", code)
	}
	said["the log"] = r.Logs()
	for where, text := range said {
		for what, secret := range planted {
			if strings.Contains(text, secret) {
				t.Errorf("%s: the secret %q is told", where, what)
			}
		}
		if strings.Contains(text, app.Secret[19:]) {
			t.Errorf("%s: the secret of an issued key is told", where)
		}
	}
	if !strings.Contains(said["GET /admin/api/audit"], "POST /config/reload") || !strings.Contains(said["GET /admin/api/config?format=toml"], "***") {
		t.Errorf("little was said: %s", said["GET /admin/api/audit"])
	}
}
