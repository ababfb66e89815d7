package admin

import (
	"crypto/sha256"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
)

// Secrets of the gate.
const (
	adminToken  = "admin-token-admin-token-admin-token"
	viewerToken = "viewer-token-viewer-token-viewer-token"
	apiKey      = "sk-app-app-app-app"
	password    = "correct horse battery"
	// passwordHash is that password's, at little cost.
	passwordHash = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$nZlaovdHRBQmBmcadHdfKPLBr1U+btq0UJR0buCeEKM"
)

// gate is an API in front of which the real operators stand, with a store in memory.
type gate struct {
	t         *testing.T
	opt       Options
	api       http.Handler
	operators *auth.Operators
	users     *auth.PasswordSignIn
	audit     *store.AuditLog

	mu  sync.Mutex
	now time.Time
}

func (g *gate) clock() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func (g *gate) pass(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = g.now.Add(d)
}

// manyTries is for tests that send many wrong credentials.
const manyTries = 100_000

func newGate(t *testing.T, opt Options, tries int) *gate {
	t.Helper()
	g := &gate{t: t, now: time.Now()}
	pepper, err := store.NewPepper([]byte(strings.Repeat("p", store.MinPepper)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenMemory(store.Options{Pepper: pepper, Now: g.clock, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	hash, err := auth.ParsePasswordHash(passwordHash)
	if err != nil {
		t.Fatal(err)
	}
	g.users = auth.NewPasswordSignIn([]auth.User{{Name: "admin", Role: auth.RoleAdmin, Hash: hash}, {Name: "vic", Role: auth.RoleViewer, Hash: hash}})
	callers := auth.NewCallers(auth.NewKeys(map[[sha256.Size]byte]auth.Principal{sha256.Sum256([]byte(apiKey)): {Key: "app", Org: "acme"}}), nil)
	g.operators = auth.NewOperators(auth.OperatorOptions{
		Sessions: s, Ways: map[string]auth.SignIn{"password": g.users, "key": auth.KeySignIn{Callers: callers}},
		Idle: 30 * time.Minute, Total: 12 * time.Hour, Tries: tries, Now: g.clock,
	})
	g.operators.SetTokens([]auth.AdminToken{
		{Name: "deploy", Role: auth.RoleAdmin, Digest: sha256.Sum256([]byte(adminToken))},
		{Name: "grafana", Role: auth.RoleViewer, Digest: sha256.Sum256([]byte(viewerToken))},
	})
	if g.audit, err = s.Audit(1000, time.Hour); err != nil {
		t.Fatal(err)
	}
	opt.Authority, opt.SignIns, opt.Audit, opt.Address, opt.Now = g.operators, g.operators, g.audit, g.operators.Address, g.clock
	opt.Log, opt.System.Node = slog.New(slog.DiscardHandler), "a"
	g.opt, g.api = opt, New(opt)
	return g
}

// send sends a request; the header comes in pairs.
func (g *gate) send(method, path, body string, header ...string) *httptest.ResponseRecorder {
	g.t.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1:8081"+Prefix+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	g.api.ServeHTTP(w, r)
	described(g.t, g.api.(*server).table, method, path, w)
	if h := w.Header(); h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") ||
		h.Get("Access-Control-Allow-Origin") != "" {
		g.t.Errorf("%s %s: headers %v", method, path, h)
	}
	return w
}

// signIn is the Cookie header of a new session.
func (g *gate) signIn(body string, header ...string) string {
	g.t.Helper()
	w := g.send("POST", "/session", body, header...)
	cookies := w.Result().Cookies()
	if w.Code != http.StatusOK || len(cookies) != 1 {
		g.t.Fatalf("%d, %v: %s", w.Code, cookies, w.Body)
	}
	return cookies[0].Name + "=" + cookies[0].Value
}

const (
	asAdmin  = `{"password":"` + password + `"}`
	asViewer = `{"user":"vic","password":"` + password + `"}`
	asKey    = `{"key":"` + apiKey + `"}`
)

// wants is what a route says to somebody who may not use it.
func wants(r *route, role auth.Role) int {
	switch {
	case r.role.allows(role):
		return 0
	case role == "":
		return http.StatusUnauthorized
	default:
		return http.StatusForbidden
	}
}

// TestTable asks every route as everybody. No route has anything behind it here: what may be
// used says so with another status than those that refuse.
func TestTable(t *testing.T) {
	g := newGate(t, Options{}, manyTries)
	session := func(body string) func() []string {
		cookie := g.signIn(body)
		return func() []string { return []string{"Cookie", cookie} }
	}
	fixed := func(header ...string) func() []string { return func() []string { return header } }
	out := g.signIn(asAdmin)
	if w := g.send("DELETE", "/session", "", "Cookie", out); w.Code != http.StatusNoContent {
		t.Fatal(w.Code)
	}
	expired := g.signIn(asAdmin)
	g.pass(31 * time.Minute)
	rotated := g.signIn(asAdmin)
	g.signIn(asAdmin, "Cookie", rotated)
	for name, c := range map[string]struct {
		header func() []string
		role   auth.Role
		status int // instead, of every route that asks who it is
	}{
		"nobody":               {fixed(), "", 0},
		"wrong token":          {fixed("Authorization", "Bearer "+adminToken+"x"), "", http.StatusUnauthorized},
		"API key as token":     {fixed("Authorization", "Bearer "+apiKey), "", http.StatusUnauthorized},
		"API key as api-key":   {fixed("Api-Key", apiKey), "", 0},
		"made-up session":      {fixed("Cookie", auth.SessionCookie+"="+strings.Repeat("A", 43)), "", http.StatusUnauthorized},
		"expired session":      {fixed("Cookie", expired), "", http.StatusUnauthorized},
		"logged-out session":   {fixed("Cookie", out), "", http.StatusUnauthorized},
		"rotated session":      {fixed("Cookie", rotated), "", http.StatusUnauthorized},
		"two credentials":      {fixed("Authorization", "Bearer "+adminToken, "Cookie", expired), "", http.StatusBadRequest},
		"token in the query":   {fixed(), "", 0},
		"viewer's token":       {fixed("Authorization", "Bearer "+viewerToken), auth.RoleViewer, 0},
		"viewer's session":     {session(asViewer), auth.RoleViewer, 0},
		"holder of an API key": {session(asKey), auth.RoleKey, 0},
		"admin's token":        {fixed("Authorization", "Bearer "+adminToken), auth.RoleAdmin, 0},
		"admin's session":      {session(asAdmin), auth.RoleAdmin, 0},
	} {
		for _, r := range g.api.(*server).table {
			if r.path == "/session" && r.method != http.MethodGet {
				continue // they would end the session; TestSessionRoutes has them
			}
			path := wildcard.ReplaceAllString(r.path, "x")
			if name == "token in the query" {
				path += "?access_token=" + adminToken
			}
			w := g.send(r.method, path, "{}", c.header()...)
			want := wants(&r, c.role)
			if c.status != 0 {
				want = c.status
			}
			switch refused := w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden; {
			case want != 0 && w.Code != want:
				t.Errorf("%s: %s %s: %d, want %d: %s", name, r.method, r.path, w.Code, want, w.Body)
			case want == 0 && refused:
				t.Errorf("%s: %s %s: %d: %s", name, r.method, r.path, w.Code, w.Body)
			}
		}
	}
}

// TestCrossOrigin calls every route from a page of another origin, with an admin's session.
func TestCrossOrigin(t *testing.T) {
	g := newGate(t, Options{}, manyTries)
	cookie := g.signIn(asAdmin)
	for name, header := range map[string][]string{
		"another site": {"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, "another port": {"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:9999"},
		"an old browser": {"Origin", "https://evil.example"}, "a sandbox": {"Origin", "null"}, "no origin told": {"Sec-Fetch-Site", "cross-site"},
	} {
		for _, r := range g.api.(*server).table {
			w := g.send(r.method, wildcard.ReplaceAllString(r.path, "x"), "{}", append([]string{"Cookie", cookie}, header...)...)
			if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "cross_origin") {
				t.Errorf("%s: %s %s: %d %s", name, r.method, r.path, w.Code, w.Body)
			}
		}
	}
	for name, header := range map[string][]string{
		"the same page": {"Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:8081"}, "typed": {"Sec-Fetch-Site", "none"}, "an old browser": {"Origin", "http://127.0.0.1:8081"},
	} {
		if w := g.send("GET", "/session", "", append([]string{"Cookie", cookie}, header...)...); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// TestMethodsAndParameters sends what no route knows.
func TestMethodsAndParameters(t *testing.T) {
	g := newGate(t, Options{}, manyTries)
	knows := map[string]string{}
	for _, r := range g.api.(*server).table {
		knows[r.path] += " " + r.method
	}
	for path, methods := range knows {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
			if strings.Contains(methods+" ", " "+method+" ") {
				continue
			}
			w := g.send(method, wildcard.ReplaceAllString(path, "x"), "", "Authorization", "Bearer "+adminToken)
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
				t.Errorf("%s %s: %d, Allow %q", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
	for _, r := range g.api.(*server).table {
		if r.role == anyone || r.role == ownKey {
			continue
		}
		for query, param := range map[string]string{"?no_such=1": "no_such", "?a=1;b=2": "", "?%zz": ""} {
			w := g.send(r.method, wildcard.ReplaceAllString(r.path, "x")+query, "{}", "Authorization", "Bearer "+adminToken)
			e := got[envelope](t, w, http.StatusBadRequest).Error
			if (e.Param == nil) != (param == "") || e.Param != nil && *e.Param != param {
				t.Errorf("%s %s%s: %s", r.method, r.path, query, w.Body)
			}
		}
		for _, name := range r.query {
			w := g.send(r.method, wildcard.ReplaceAllString(r.path, "x")+"?"+name+"=1&"+name+"=2", "{}", "Authorization", "Bearer "+adminToken)
			if e := got[envelope](t, w, http.StatusBadRequest).Error; e.Param == nil || *e.Param != name {
				t.Errorf("%s %s twice %s: %s", r.method, r.path, name, w.Body)
			}
		}
	}
}
