package admin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestHosts calls the listener by names: a page whose name was made to resolve to this machine
// (DNS rebinding) gets nothing.
func TestHosts(t *testing.T) {
	loopback, named, open := Hosts{}, Hosts{Names: []string{"sluice.example"}}, Hosts{Any: true}
	for host, want := range map[string][3]bool{ // on loopback, with a name, any name
		"127.0.0.1:8081": {true, true, true}, "localhost:8081": {true, true, true}, "LOCALHOST": {true, true, true}, "localhost.:1": {true, true, true}, "[::1]:8081": {true, true, true},
		"10.1.2.3:8081": {true, true, true}, "[fe80::1]": {true, true, true}, "::1": {true, true, true}, "[::1": {false, false, false}, "127.0.0.1:x": {false, false, false}, "sluice.example:8081": {false, true, true}, "Sluice.Example": {false, true, true}, "evil.example": {false, false, true},
		"127.0.0.1.evil.example": {false, false, true}, "localhost.evil.example:8081": {false, false, true}, "sluice.example.evil.example": {false, false, true}, "": {false, false, false},
		"2130706433": {false, false, true}, "0x7f.1": {false, false, true},
	} {
		if got := [3]bool{loopback.Allow(host), named.Allow(host), open.Allow(host)}; got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
	served := false
	guard := loopback.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true }))
	w := httptest.NewRecorder()
	guard.ServeHTTP(w, httptest.NewRequest("GET", "http://evil.example:8081/metrics", nil))
	if w.Code != http.StatusMisdirectedRequest || served {
		t.Errorf("%d, served %t: %s", w.Code, served, w.Body)
	}
	guard.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://127.0.0.1:8081/metrics", nil))
	if !served {
		t.Error("nothing is served")
	}
}

// TestBadHost has the Host say another path than the request line (Starlette's CVE-2026-48710):
// who may do what is asked inside the route that serves, so nothing else counts.
func TestBadHost(t *testing.T) {
	g := newGate(t, Options{}, 10)
	for _, host := range []string{"127.0.0.1/admin/api/session", "127.0.0.1:8081/admin/api/openapi.json?", "x@127.0.0.1", "127.0.0.1#", "[::1]/metrics", "localhost\\evil"} {
		r := httptest.NewRequest("GET", "http://127.0.0.1:8081"+Prefix+"/system", nil)
		r.Host = host
		w := httptest.NewRecorder()
		g.api.ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized {
			t.Errorf("%q: %d", host, w.Code)
		}
		if (Hosts{}).Allow(host) {
			t.Errorf("%q is taken for a known name", host)
		}
	}
}

// TestPaths spells paths in other ways: none of them leads past the question who is asking.
func TestPaths(t *testing.T) {
	g := newGate(t, Options{}, 10)
	for _, path := range []string{
		"/system/", "//system", "/./system", "/session/../system", "/%73ystem", "/system%2f", "/system%00", "/SYSTEM", "/system;x", "/system%3fx", "/session/%2e%2e/system", "/keys/%2e%2e%2fsystem", "/", "",
	} {
		r := httptest.NewRequest("GET", "http://127.0.0.1:8081/", nil)
		if u, err := r.URL.Parse(Prefix + path); err == nil && !strings.Contains(path, "..") {
			r.URL = u
		} else {
			r.URL.Path, r.URL.RawPath = strings.NewReplacer("%2e", ".", "%2f", "/").Replace(Prefix+path), Prefix+path
		}
		w := httptest.NewRecorder()
		g.api.ServeHTTP(w, r)
		if w.Code < 300 || strings.Contains(w.Body.String(), "uptime") {
			t.Errorf("%q: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestPanic lets a handler fall: its caller is told, and the next one served.
func TestPanic(t *testing.T) {
	g := newGate(t, Options{}, 10)
	api := changing(g.opt, func(*call) error { panic("secret: sk-abc") })
	w := g.put(api, adminToken)
	if e := got[envelope](t, w, http.StatusInternalServerError).Error; e.Code != internalCode || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("%s", w.Body)
	}
}

// TestRequire guards what stands beside the API.
func TestRequire(t *testing.T) {
	g := newGate(t, Options{}, 10)
	h := Require(g.operators, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "profile") }))
	session := g.signIn(asAdmin)
	for name, c := range map[string]struct {
		header []string
		status int
	}{
		"nobody": {nil, 401}, "viewer": {[]string{"Authorization", "Bearer " + viewerToken}, 403}, "admin": {[]string{"Authorization", "Bearer " + adminToken}, 200},
		"session": {[]string{"Cookie", session}, 200}, "another page": {[]string{"Cookie", session, "Sec-Fetch-Site", "same-site"}, 403},
	} {
		r := httptest.NewRequest("GET", "http://127.0.0.1:8081/debug/pprof/heap", nil)
		for i := 0; i+1 < len(c.header); i += 2 {
			r.Header.Set(c.header[i], c.header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || (w.Body.String() == "profile") != (c.status == 200) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}
