package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"sluice/handlers/auth"
	"sluice/ratelimit/ratelimittest/redistest"
)

// What the tests of the admin API sign in with.
const (
	adminPassword  = "correct horse battery"
	adminTestToken = "token-of-the-tests-token-of-the-tests"
	// adminHash is that password's, at little cost.
	adminHash   = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$nZlaovdHRBQmBmcadHdfKPLBr1U+btq0UJR0buCeEKM"
	adminTables = "\n[admin]\npassword_hash = '" + adminHash + "'\n" +
		"[[admin.users]]\nname = \"vic\"\npassword_hash = '" + adminHash + "'\n" +
		"[[admin.tokens]]\nname = \"tests\"\nrole = \"admin\"\ntoken = \"" + adminTestToken + "\"\n"
)

// askAdmin sends one request to the admin API; the header comes in pairs.
func (g *gatewayUnderTest) askAdmin(t testing.TB, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.AdminURL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := g.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

func (g *gatewayUnderTest) wantAdmin(t testing.TB, want int, method, path, body string, header ...string) string {
	t.Helper()
	answer, text := g.askAdmin(t, method, path, body, header...)
	if answer.StatusCode != want {
		t.Errorf("%s %s: %d, want %d: %s", method, path, answer.StatusCode, want, text)
	}
	return text
}

// adminSession is the Cookie header of a new session.
func (g *gatewayUnderTest) adminSession(t testing.TB, body string) string {
	t.Helper()
	answer, text := g.askAdmin(t, "POST", "/admin/api/session", body)
	if cookies := answer.Cookies(); answer.StatusCode == 200 && len(cookies) == 1 {
		return cookies[0].Name + "=" + cookies[0].Value
	}
	t.Fatalf("%d: %s", answer.StatusCode, text)
	return ""
}

const asMainAdmin = `{"password":"` + adminPassword + `"}`

var withToken = []string{"Authorization", "Bearer " + adminTestToken}

func TestAdminAPI(t *testing.T) {
	g := boot(t, "[demo]\ntoken_delay = \"1ms\"\n"+adminTables)
	g.wantAdmin(t, 401, "GET", "/admin/api/system", "")
	g.wantAdmin(t, 200, "GET", "/admin/api/system", "", withToken...)
	cookie := g.adminSession(t, asMainAdmin)
	g.wantAdmin(t, 200, "GET", "/admin/api/system", "", "Cookie", cookie)
	viewer := g.adminSession(t, `{"user":"vic","password":"`+adminPassword+`"}`)
	g.wantAdmin(t, 200, "GET", "/admin/api/system", "", "Cookie", viewer)
	g.wantAdmin(t, 403, "POST", "/admin/api/keys", "{}", "Cookie", viewer)
	own := g.adminSession(t, `{"key":"`+testKey+`"}`)
	g.wantAdmin(t, 403, "GET", "/admin/api/system", "", "Cookie", own)
	if me := g.wantAdmin(t, 200, "GET", "/admin/api/me", "", "Cookie", own); !strings.Contains(me, `"test"`) {
		t.Errorf("%s", me)
	}
	// Sessions and admin tokens are nothing at the API, and keys nothing here.
	for _, header := range [][]string{{"Cookie", cookie}, withToken} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", g.URL+"/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(header[0], header[1])
		answer, err := g.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != 401 {
			t.Errorf("%s opens /v1: %d", header[0], answer.StatusCode)
		}
	}
	g.wantAdmin(t, 401, "GET", "/admin/api/system", "", "Authorization", "Bearer "+testKey)
	g.wantAdmin(t, 421, "GET", "/metrics", "", "Host", "evil.example")
	g.wantAdmin(t, 200, "GET", "/metrics", "")
	g.wantAdmin(t, 200, "GET", "/debug/pprof/cmdline", "")
	g.wantAdmin(t, 200, "GET", "/livez", "", "Host", "localhost:1")
	for _, secret := range []string{adminPassword, strings.Split(cookie, "=")[1], adminTestToken, testKey} {
		if strings.Contains(g.Logs(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

// TestAdminPasswordIsMadeUp starts without one: it is told once, and holds.
func TestAdminPasswordIsMadeUp(t *testing.T) {
	g := boot(t, "")
	line := g.awaitLine(t, "a password", func(l map[string]string) bool { return l["password"] != "" })
	if len(line["password"]) < 20 || line["user"] != "admin" || strings.Count(g.Logs(), line["password"]) != 1 {
		t.Fatalf("%v", line)
	}
	g.wantAdmin(t, 401, "POST", "/admin/api/session", asMainAdmin)
	g.adminSession(t, `{"user":"admin","password":"`+line["password"]+`"}`)
}

// TestAdminBeyondLoopback serves other machines: without a credential they see health and
// metrics alone.
func TestAdminBeyondLoopback(t *testing.T) {
	elsewhere := func(tables string) *gatewayUnderTest {
		g := bootWith(t, append(bootArgs(t, tables), "--set", "server.admin_listen=0.0.0.0:0"))
		g.Key = testKey
		g.AdminURL = strings.NewReplacer("0.0.0.0", "127.0.0.1", "[::]", "127.0.0.1").Replace(g.AdminURL)
		return g
	}
	t.Run("with the API", func(t *testing.T) {
		g := elsewhere(adminTables)
		g.wantAdmin(t, 401, "GET", "/debug/pprof/cmdline", "")
		g.wantAdmin(t, 200, "GET", "/debug/pprof/cmdline", "", withToken...)
		g.wantAdmin(t, 403, "GET", "/debug/pprof/cmdline", "", "Cookie", g.adminSession(t, `{"user":"vic","password":"`+adminPassword+`"}`))
		g.wantAdmin(t, 200, "GET", "/metrics", "", "Host", "sluice.example")
		g.wantAdmin(t, 200, "GET", "/readyz", "")
		g.wantAdmin(t, 200, "GET", "/admin/api/system", "", withToken...)
	})
	t.Run("without", func(t *testing.T) {
		g := elsewhere("\n[admin]\napi = false\nhosts = [\"sluice.example\"]\n")
		for path, want := range map[string]int{"/debug/pprof/cmdline": 404, "/admin/api/session": 404, "/metrics": 200, "/livez": 200} {
			g.wantAdmin(t, want, "GET", path, "", "Host", "sluice.example")
		}
		g.wantAdmin(t, 421, "GET", "/metrics", "", "Host", "evil.example")
	})
	t.Run("nobody could sign in", func(t *testing.T) {
		var stderr bytes.Buffer
		code := run(t.Context(), append(bootArgs(t, ""), "--set", "server.admin_listen=0.0.0.0:0"), nil, strings.NewReader(""), io.Discard, &stderr)
		if code != exitUsage || !strings.Contains(stderr.String(), "admin.password_hash") || !strings.Contains(stderr.String(), "admin.api = false") {
			t.Errorf("%d: %s", code, stderr.String())
		}
	})
}

// TestAdminPasswordChange changes the password in the file and reloads: who signed in with the
// old one is out.
func TestAdminPasswordChange(t *testing.T) {
	args := bootArgs(t, adminTables)
	g := bootWith(t, args)
	cookie, viewer := g.adminSession(t, asMainAdmin), g.adminSession(t, `{"user":"vic","password":"`+adminPassword+`"}`)
	text, err := os.ReadFile(args[1])
	if err != nil {
		t.Fatal(err)
	}
	phc, err := auth.HashPassword("another good password")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(args[1], []byte(strings.Replace(string(text), adminHash, phc, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	g.wantAdmin(t, 200, "GET", "/admin/api/session", "", "Cookie", cookie)
	g.wantAdmin(t, 200, "POST", "/admin/api/config/reload", "", withToken...)
	g.wantAdmin(t, 401, "GET", "/admin/api/session", "", "Cookie", cookie)
	g.wantAdmin(t, 200, "GET", "/admin/api/session", "", "Cookie", viewer)
	g.wantAdmin(t, 401, "POST", "/admin/api/session", asMainAdmin)
	g.adminSession(t, `{"password":"another good password"}`)
}

// TestAdminReplicas shares sessions and the audit log over Redis.
func TestAdminReplicas(t *testing.T) {
	server := redistest.Single(t)
	tables := fmt.Sprintf("\n[redis]\nurl = \"redis://%s/0\"\n[auth]\npepper = %q\n", server.Addr, strings.Repeat("p", 32)) + adminTables
	a, b := boot(t, tables), boot(t, tables)
	cookie := a.adminSession(t, asMainAdmin)
	b.wantAdmin(t, 200, "GET", "/admin/api/system", "", "Cookie", cookie)
	b.wantAdmin(t, 204, "DELETE", "/admin/api/session", "", "Cookie", cookie)
	a.wantAdmin(t, 401, "GET", "/admin/api/system", "", "Cookie", cookie)
	var log struct {
		Data []auth.AuditEntry `json:"data"`
	}
	if err := json.Unmarshal([]byte(a.wantAdmin(t, 200, "GET", "/admin/api/audit", "", withToken...)), &log); err != nil {
		t.Fatal(err)
	}
	if len(log.Data) != 2 || log.Data[0].Action != "DELETE /session" || log.Data[1].Action != "POST /session" {
		t.Errorf("%+v", log.Data)
	}
	cookie = a.adminSession(t, asMainAdmin)
	server.Kill()
	a.wantAdmin(t, 503, "GET", "/admin/api/system", "", "Cookie", cookie)
	a.wantAdmin(t, 200, "GET", "/admin/api/system", "", withToken...)
	server.Start()
}
