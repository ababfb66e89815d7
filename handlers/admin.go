package handlers

import (
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
)

// AdminParts are what Admin serves beside metrics and health.
type AdminParts struct {
	API http.Handler // at /admin/api/; nil: none
	// Profiles decides who sees profiles; nil: whoever reaches the listener.
	Profiles func(http.Handler) http.Handler
}

// Admin serves what operators look at: metrics, health and profiles, for which it asks no
// key, and the admin API, which does. It belongs on a listener of its own.
func Admin(o *Observer, d *Drain, parts AdminParts) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.Handler())
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if d.Ready() {
			say(w, http.StatusOK, "ok\n")
			return
		}
		say(w, http.StatusServiceUnavailable, "draining\n")
	})
	profiles := parts.Profiles
	if profiles == nil {
		profiles = func(h http.Handler) http.Handler { return h }
	}
	for path, serve := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
	} {
		mux.Handle("/debug/pprof/"+path, profiles(serve))
	}
	if parts.API != nil {
		mux.Handle("/admin/api/", parts.API)
	}
	return mux
}

func say(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// ClientAddress tells where requests come from, believing nobody but the given proxies.
// What has no address comes from the zero Addr.
func ClientAddress(proxies []*net.IPNet) func(*http.Request) netip.Addr {
	extract := clientAddress(proxies)
	return func(r *http.Request) netip.Addr {
		a, _ := netip.ParseAddr(extract(r))
		return a.Unmap()
	}
}
