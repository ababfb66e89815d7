package admin

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"sluice/handlers/auth"
)

// Flaws that other gateways had, each with a test that this one has not got it. Those of keys
// are tested where keys are; what stands elsewhere in this room is named here:
//
//	CVE-2026-12795, -12796  routes without authentication        TestTable
//	CVE-2026-48710          authorised by Host ("BadHost")       TestBadHost, TestPaths
//	"AutoJack", "ClawJacked" a page drives a listener on loopback TestCrossOrigin, TestHosts
//	CVE-2026-12772          sessions that outlive their password auth.TestSessionsEndWith
//	CVE-2026-25591          searches that cost without bound     TestKeyList, TestRequests
//	CVE-2026-41432          empty secrets that pass              store.TestPepper, TestAdminConfigErrors (cmd/sluice)
//	CVE-2026-42208          injection by the key                 auth.FuzzParseToken, auth.TestOneBit
//	CVE-2026-35030          a cache known by a part of the key   store.TestEachTokenItself
//	CVE-2025-59425          keys told by time                    store.TestSameWork

// TestCVE202612772 ends sessions: by signing out, by signing in anew, by another password.
func TestCVE202612772(t *testing.T) {
	g := newGate(t, Options{}, 10)
	dead := func(cookie string) {
		t.Helper()
		got[envelope](t, g.send("GET", "/system", "", "Cookie", cookie), http.StatusUnauthorized)
	}
	out := g.signIn(asAdmin)
	g.send("DELETE", "/session", "", "Cookie", out)
	dead(out)
	again := g.signIn(asAdmin)
	next := g.signIn(asAdmin, "Cookie", again)
	dead(again)
	got[systemAnswer](t, g.send("GET", "/system", "", "Cookie", next), http.StatusOK)
	other := g.signIn(asAdmin)
	phc, err := auth.HashPassword("another good password")
	if err != nil {
		t.Fatal(err)
	}
	hash, err := auth.ParsePasswordHash(phc)
	if err != nil {
		t.Fatal(err)
	}
	g.users.SetUsers([]auth.User{{Name: "admin", Role: auth.RoleAdmin, Hash: hash}})
	dead(next)
	dead(other)
	got[envelope](t, g.send("POST", "/session", asAdmin), http.StatusUnauthorized)
}

// TestCVE202635030 has tokens and sessions that begin, or end, like good ones: what is looked
// up is all of it.
func TestCVE202635030(t *testing.T) {
	g := newGate(t, Options{}, manyTries)
	cookie := g.signIn(asAdmin)
	for i := range adminToken {
		for _, near := range []string{adminToken[:i] + rand.Text(), adminToken[:i] + "~" + adminToken[i+1:], adminToken[i+1:], adminToken[:i]} {
			if near == "" {
				continue
			}
			if w := g.send("GET", "/system", "", "Authorization", "Bearer "+near); w.Code != http.StatusUnauthorized {
				t.Fatalf("%q: %d", near, w.Code)
			}
		}
	}
	name, text, _ := strings.Cut(cookie, "=")
	for i := range text {
		for _, near := range []string{text[:i] + strings.Repeat("A", len(text)-i), text[:i] + swapped(text[i]) + text[i+1:], text[:i]} {
			if near == text {
				continue
			}
			if w := g.send("GET", "/system", "", "Cookie", name+"="+near); w.Code != http.StatusUnauthorized {
				t.Fatalf("%q: %d", near, w.Code)
			}
		}
	}
}

func swapped(b byte) string {
	if b == 'B' {
		return "C"
	}
	return "B"
}

// TestCVE202645339 sends two credentials: neither counts, whichever is good.
func TestCVE202645339(t *testing.T) {
	g := newGate(t, Options{}, 10)
	cookie := g.signIn(asViewer)
	for name, header := range map[string][]string{
		"two good ones": {"Authorization", "Bearer " + adminToken, "Cookie", cookie}, "a good and a bad one": {"Authorization", "Bearer x", "Cookie", cookie},
		"two headers": {"Authorization", "Bearer " + viewerToken, "Authorization", "Bearer " + adminToken}, "two cookies": {"Cookie", cookie + "; " + cookie},
	} {
		if e := got[envelope](t, g.send("GET", "/system", "", header...), http.StatusBadRequest).Error; e.Code != "two_credentials" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestCVE202630886 asks for what belongs to others, as the holder of a key.
func TestCVE202630886(t *testing.T) {
	var seen []string
	g := newGate(t, Options{Keys: Keys{Report: func(_ context.Context, who auth.Principal, _ url.Values) (any, error) {
		seen = append(seen, who.Key)
		return map[string]string{}, nil
	}}}, 10)
	cookie := g.signIn(asKey)
	for _, r := range g.api.(*server).table {
		if r.path == "/session" {
			continue
		}
		for _, name := range []string{"bot", "app", "sk-slc-000000000000"} {
			g.send(r.method, wildcard.ReplaceAllString(r.path, name), "{}", "Cookie", cookie)
		}
	}
	if strings.Join(seen, " ") != "app app app" {
		t.Errorf("reports of %v", seen)
	}
}

// TestSecretsStayOutOfLogs sends secrets every way that there is, some of which fail inside
// (LiteLLM's incident of March 2026: raw credentials in traces and errors).
func TestSecretsStayOutOfLogs(t *testing.T) {
	var log bytes.Buffer
	g := newGate(t, Options{}, manyTries)
	g.opt.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cookie := g.signIn(asAdmin)
	g.api = New(g.opt)
	broken := g.opt
	broken.Audit = brokenLog{g.audit}
	api := changing(broken, func(c *call) error {
		c.changed("thing", map[string]string{"password": password, "text": adminToken}, nil)
		return errors.New("boom")
	})
	g.put(api, adminToken)
	for _, body := range []string{asAdmin, `{"password":"wrong-` + password + `"}`, asKey, `{"key":"` + apiKey + `x"}`, `{"x` + password + `":1}`} {
		g.send("POST", "/session", body)
	}
	g.send("GET", "/system", "", "Authorization", "Bearer "+adminToken+"x")
	g.send("DELETE", "/session", "", "Cookie", cookie)
	for _, secret := range []string{password, apiKey, strings.Split(cookie, "=")[1]} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in the log: %s", secret, log.String())
		}
	}
	if !strings.Contains(log.String(), "PUT /things/{id}") || !strings.Contains(log.String(), "boom") {
		t.Errorf("nothing was logged: %s", log.String())
	}
}
