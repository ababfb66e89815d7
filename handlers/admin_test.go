package handlers

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestClientAddress believes proxies that are named, and nobody else, as far as they are a chain.
func TestClientAddress(t *testing.T) {
	_, trusted, err := net.ParseCIDR("10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		remote, forwarded, want string
		proxies                 []*net.IPNet
	}{
		{"192.0.2.1:5", "", "192.0.2.1", nil},
		{"192.0.2.1:5", "198.51.100.7", "192.0.2.1", nil},
		{"192.0.2.1:5", "198.51.100.7", "192.0.2.1", []*net.IPNet{trusted}},
		{"10.0.0.1:5", "198.51.100.7", "198.51.100.7", []*net.IPNet{trusted}},
		{"10.0.0.1:5", "203.0.113.9, 198.51.100.7, 10.2.3.4", "198.51.100.7", []*net.IPNet{trusted}},
		{"127.0.0.1:5", "198.51.100.7", "127.0.0.1", []*net.IPNet{trusted}},
		{"[::ffff:192.0.2.1]:5", "", "192.0.2.1", nil},
		{"[2001:db8::1]:5", "", "2001:db8::1", nil},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := ClientAddress(c.proxies)(r).String(); got != c.want {
			t.Errorf("%s with %q: %s, want %s", c.remote, c.forwarded, got, c.want)
		}
	}
}

// TestAdminParts has every profile behind the guard, and nothing else.
func TestAdminParts(t *testing.T) {
	guarded := Admin(NewObserver(nil), NewDrain(), AdminParts{Profiles: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	}})
	for path, want := range map[string]int{
		"/debug/pprof/": 418, "/debug/pprof/heap": 418, "/debug/pprof/goroutine": 418, "/debug/pprof/cmdline": 418, "/debug/pprof/profile": 418, "/debug/pprof/symbol": 418, "/debug/pprof/trace": 418,
		"/metrics": 200, "/livez": 200, "/readyz": 200, "/admin/api/session": 404,
	} {
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}
