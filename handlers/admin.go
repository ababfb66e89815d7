package handlers

import (
	"io"
	"net/http"
	"net/http/pprof"
)

// Admin serves what operators look at: metrics, profiles, health. It asks for no
// key and belongs on a listener of its own.
func Admin(o *Observer, d *Drain) http.Handler {
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
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func say(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}
