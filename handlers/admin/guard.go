package admin

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// requestWithin bounds the reading of a body, also of one that nobody wants: who sends it
// may have no credential.
const requestWithin = time.Minute

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.recover(w, r)
	secure(w.Header())
	if r.Body != nil && r.Body != http.NoBody { // net/http lifts it when the body has been read
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(requestWithin)) // a recorder has none
	}
	c := &call{s: s, w: w, r: r}
	if crossOrigin(r) {
		s.answer(c, &fault{status: http.StatusForbidden, code: "cross_origin", message: "Pages of other origins may not call this API."})
		return
	}
	s.mux.ServeHTTP(w, r)
}

// secure sets what every answer carries.
func secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// crossOrigin reports whether a page of another origin sent the request. Reading counts too:
// another port of the same host is the same site, whose requests carry the cookie.
func crossOrigin(r *http.Request) bool {
	asked := *r
	asked.Method = http.MethodPost // the methods that the standard library looks at
	return new(http.CrossOriginProtection).Check(&asked) != nil
}

// recover answers for a handler that has panicked, and lets the gateway live.
func (s *server) recover(w http.ResponseWriter, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler {
		panic(cause)
	}
	s.opt.Log.Error("the admin API panicked", slog.String("path", r.URL.Path), slog.Any("panic", cause), slog.String("stack", string(debug.Stack())))
	c := &call{s: s, w: w, r: r}
	s.answer(c, &fault{status: http.StatusInternalServerError, code: "internal_error", message: "The gateway met an internal fault, which its log tells."})
}

// Hosts tells by which names the admin listener may be called. A page whose name was made
// to resolve to this machine (DNS rebinding) calls it by that name, so a name is believed
// only when it is known; an address cannot be rebound.
type Hosts struct {
	// Names are those that are known beside localhost.
	Names []string
	// Any lets every name pass, for a listener that other machines reach by names of
	// their own; what is served there asks for a credential.
	Any bool
}

// Allow reports whether a request's Host may be served.
func (h Hosts) Allow(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = host, ""
		if inner, ok := strings.CutPrefix(host, "["); ok {
			name, ok = strings.CutSuffix(inner, "]")
			if !ok {
				return false
			}
		}
	}
	if strings.Trim(port, "0123456789") != "" {
		return false
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return name == "localhost" || h.Any && name != "" || slices.Contains(h.Names, name)
}

// Guard serves only requests whose Host is allowed; others get 421.
func (h Hosts) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.Allow(r.Host) {
			secure(w.Header())
			s := &server{opt: Options{Log: slog.Default()}}
			s.answer(&call{s: s, w: w, r: r}, &fault{status: http.StatusMisdirectedRequest, code: "unknown_host", message: "This listener is not known by that name: add it to admin.hosts, or use its address."})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Require serves only who has the role admin, by a session or a token: for what stands beside
// the API, such as profiles.
func Require(who Authority, next http.Handler) http.Handler {
	s := &server{opt: Options{Authority: who, Log: slog.Default()}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{s: s, w: w, r: r, route: &route{role: admin}}
		err := error(nil)
		if crossOrigin(r) {
			err = forbidden("Pages of other origins may not read this.")
		}
		if err == nil {
			err = s.admit(c)
		}
		if err != nil {
			secure(w.Header())
			s.answer(c, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}
