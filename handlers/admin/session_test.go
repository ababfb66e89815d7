package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth"
)

func TestSessionRoutes(t *testing.T) {
	g := newGate(t, Options{}, 10)
	cookie := g.signIn(asAdmin)
	s := got[sessionAnswer](t, g.send("GET", "/session", "", "Cookie", cookie), http.StatusOK)
	if s.Name != "admin" || s.Role != auth.RoleAdmin || s.Via != "session" || s.Expires == nil || !s.Expires.Equal(g.clock().Add(30*time.Minute)) {
		t.Errorf("%+v", s)
	}
	if s := got[sessionAnswer](t, g.send("GET", "/session", "", "Authorization", "Bearer "+viewerToken), http.StatusOK); s.Name != "grafana" || s.Role != auth.RoleViewer || s.Via != "token" || s.Expires != nil {
		t.Errorf("%+v", s)
	}
	w := g.send("POST", "/session", asViewer, "Cookie", cookie)
	c := w.Result().Cookies()[0]
	if c.Name != "__Host-sluice" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || strings.Contains(w.Body.String(), c.Value) {
		t.Errorf("%+v, %s", c, w.Body)
	}
	got[envelope](t, g.send("GET", "/session", "", "Cookie", cookie), http.StatusUnauthorized)
	cookie = c.Name + "=" + c.Value
	w = g.send("DELETE", "/session", "", "Cookie", cookie)
	if c := w.Result().Cookies(); w.Code != http.StatusNoContent || len(c) != 1 || c[0].MaxAge != -1 || c[0].Value != "" {
		t.Errorf("%d, %v", w.Code, c)
	}
	w = g.send("GET", "/session", "", "Cookie", cookie)
	if c := w.Result().Cookies(); w.Code != http.StatusUnauthorized || len(c) != 1 || c[0].MaxAge != -1 {
		t.Errorf("%d: the browser is not told to forget: %v", w.Code, c)
	}
	got[envelope](t, g.send("DELETE", "/session", "", "Authorization", "Bearer "+adminToken), http.StatusBadRequest)
}

// TestSignInRefusals tells the same whatever is wrong, and sets no cookie.
func TestSignInRefusals(t *testing.T) {
	g := newGate(t, Options{}, 5)
	var said string
	for i, body := range []string{`{"password":"wrong"}`, `{"user":"root","password":"` + password + `"}`, `{"key":"sk-wrong"}`} {
		w := g.send("POST", "/session", body)
		if w.Code != http.StatusUnauthorized || len(w.Result().Cookies()) != 0 || i > 0 && w.Body.String() != said {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
		said = w.Body.String()
	}
	for body, param := range map[string]string{
		`{}`: "password", `{"password":""}`: "password", `{"password":"x","key":"y"}`: "key", `{"user":"x","key":"y"}`: "key", `{"pasword":"x"}`: "pasword", `{"password":1}`: "password",
		`{"password":"x","password":"y"}`: "password", `{"Password":"x"}`: "Password", `[]`: "", `{`: "", `null`: "", `"x"`: "",
	} {
		e := got[envelope](t, g.send("POST", "/session", body), http.StatusBadRequest).Error
		if (e.Param == nil) != (param == "") || e.Param != nil && *e.Param != param {
			t.Errorf("%s: %+v", body, e)
		}
	}
	for range 2 {
		got[envelope](t, g.send("POST", "/session", `{"password":"wrong"}`), http.StatusUnauthorized)
	}
	w := g.send("POST", "/session", asAdmin)
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || len(w.Result().Cookies()) != 0 {
		t.Errorf("%d, %v: %s", w.Code, w.Header(), w.Body)
	}
	g.pass(time.Minute)
	g.signIn(asAdmin)
}

// TestLargeAndForeignBodies sends what is no JSON of a bearable size.
func TestLargeAndForeignBodies(t *testing.T) {
	g := newGate(t, Options{}, 10)
	if w := g.send("POST", "/session", `{"password":"`+strings.Repeat("x", bodyLimit)+`"}`); w.Code != http.StatusRequestEntityTooLarge {
		t.Error(w.Code)
	}
	if w := g.send("POST", "/session", `{"user":`+strings.Repeat("[", 100_000)); w.Code != http.StatusBadRequest {
		t.Error(w.Code)
	}
	if w := g.send("POST", "/session", ""); w.Code != http.StatusUnsupportedMediaType {
		t.Error(w.Code)
	}
}

// entries are what the audit log has, newest first.
func (g *gate) entries() []auth.AuditEntry {
	g.t.Helper()
	all, err := g.audit.Read(g.t.Context(), "", 1000)
	if err != nil {
		g.t.Fatal(err)
	}
	return all
}

func TestSessionsAreAudited(t *testing.T) {
	g := newGate(t, Options{}, 100)
	cookie := g.signIn(asAdmin)
	g.send("POST", "/session", `{"password":"my-secret-typo"}`)
	g.send("POST", "/session", `{"user":"my-secret-typo","password":"x"}`)
	g.send("POST", "/session", `{"key":"sk-my-secret-typo-my-secret-typo"}`)
	g.send("GET", "/session", "", "Cookie", cookie)
	g.send("DELETE", "/session", "", "Cookie", cookie)
	type row struct {
		who, action string
		status      int
	}
	var rows []row
	text, _ := json.Marshal(g.entries())
	for _, e := range g.entries() {
		rows = append(rows, row{e.Who, e.Action, e.Status})
		if e.From != "192.0.2.1" || e.Node != "a" || e.At.IsZero() {
			t.Errorf("%+v", e)
		}
	}
	want := []row{{"admin", "DELETE /session", 204}, {"", "POST /session", 401}, {"", "POST /session", 401}, {"admin", "POST /session", 401}, {"admin", "POST /session", 200}}
	if fmt.Sprint(rows) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", rows, want)
	}
	if strings.Contains(string(text), "secret-typo") || strings.Contains(string(text), strings.Split(cookie, "=")[1]) {
		t.Errorf("a secret is in the log: %s", text)
	}
}

// TestMe shows a key's own figures and no other's, whatever is asked for.
func TestMe(t *testing.T) {
	var asked []string
	opt := Options{Keys: Keys{
		Report: func(_ context.Context, who auth.Principal, q url.Values) (any, error) {
			asked = append(asked, who.Key+" "+who.Org)
			switch q.Get("model") {
			case "bad":
				return nil, errors.New("bad")
			case "away":
				return nil, errors.New("away")
			}
			return map[string]string{"key": who.Key}, nil
		},
		BadQuery: func(err error) (string, string, bool) { return "model", "no", err.Error() == "bad" },
	}}
	g := newGate(t, opt, 10)
	cookie := g.signIn(asKey)
	if me := got[map[string]string](t, g.send("GET", "/me", "", "Cookie", cookie), http.StatusOK); me["key"] != "app" {
		t.Errorf("%v", me)
	}
	got[envelope](t, g.send("GET", "/me?model=bad", "", "Cookie", cookie), http.StatusBadRequest)
	got[envelope](t, g.send("GET", "/me?model=away", "", "Cookie", cookie), http.StatusServiceUnavailable)
	got[envelope](t, g.send("GET", "/me?key=bot", "", "Cookie", cookie), http.StatusBadRequest)
	got[envelope](t, g.send("GET", "/keys/bot/report", "", "Cookie", cookie), http.StatusForbidden)
	got[envelope](t, g.send("GET", "/me", "", "Authorization", "Bearer "+adminToken), http.StatusForbidden)
	for _, who := range asked {
		if who != "app acme" {
			t.Errorf("asked for %s", who)
		}
	}
}
