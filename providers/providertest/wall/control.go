package wall

import (
	"encoding/json"
	"io"
	"net/http"
)

// control serves the paths below /wall/.
func (w *Wall) control(rw http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /wall/requests":
		send(rw, w.Requests())
	case "GET /wall/stats":
		send(rw, w.Stats())
	case "GET /wall/help":
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(rw, Help())
	case "POST /wall/reset":
		w.Reset()
		send(rw, object{"ok": true})
	case "POST /wall/script":
		w.controlScript(rw, r)
	default:
		http.NotFound(rw, r)
	}
}

// controlScript registers the textual form in the body under ?model=NAME or ?path=PATH, or as the default.
func (w *Wall) controlScript(rw http.ResponseWriter, r *http.Request) {
	spec, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, MaxSpec))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	plan, err := Parse(string(spec))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	if path := r.URL.Query().Get("path"); path != "" {
		w.register(w.paths, trimVersion(path), plan.Script)
	} else {
		w.register(w.scripts, r.URL.Query().Get("model"), plan.Script)
	}
	send(rw, object{"ok": true})
}

func send(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(rw)
	enc.SetIndent("", "  ")
	// The client may be gone; there is nobody else to tell.
	_ = enc.Encode(v)
}
