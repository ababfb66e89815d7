package handlers

import (
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/web"
)

// staticServer serves the files for browsers; nobody needs a key for them.
func staticServer(origins ...string) *Server {
	return New(Options{CORS: CORS{Origins: origins}, Drain: NewDrain(), Observer: NewObserver(nil), Log: slog.New(slog.DiscardHandler)})
}

func getStatic(s *Server, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

const clientPath = "/static/sluice-client.js"

func TestStatic(t *testing.T) {
	s := staticServer("https://chat.example")
	want, err := fs.ReadFile(web.Static(), "sluice-client.js")
	if err != nil {
		t.Fatal(err)
	}
	w := getStatic(s, http.MethodGet, clientPath, "Origin", "https://chat.example")
	if w.Code != http.StatusOK || w.Body.String() != string(want) {
		t.Fatalf("%d, %d of %d bytes", w.Code, w.Body.Len(), len(want))
	}
	tag := w.Header().Get("Etag")
	for name, value := range map[string]string{
		"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff",
		"Access-Control-Allow-Origin": "https://chat.example", "Vary": "Origin",
	} {
		if got := w.Header().Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if w = getStatic(s, http.MethodGet, clientPath, "If-None-Match", tag); w.Code != http.StatusNotModified || w.Body.Len() != 0 || w.Header().Get("Etag") != tag {
		t.Errorf("with its tag %q: %d, %d bytes, %q", tag, w.Code, w.Body.Len(), w.Header().Get("Etag"))
	}
	if w = getStatic(s, http.MethodGet, clientPath, "If-None-Match", `"another"`); w.Code != http.StatusOK {
		t.Errorf("with another tag: %d", w.Code)
	}
	if w = getStatic(s, http.MethodHead, clientPath); w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d, %d bytes", w.Code, w.Body.Len())
	}
	if w = getStatic(s, http.MethodGet, clientPath, "Origin", "https://other.example"); w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Error("an origin that is not on the list may read it")
	}
}

// TestStaticImports follows the modules as a browser does.
func TestStaticImports(t *testing.T) {
	s := staticServer()
	seen := map[string]bool{}
	var follow func(path string)
	follow = func(path string) {
		if seen[path] {
			return
		}
		seen[path] = true
		w := getStatic(s, http.MethodGet, path)
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
		for line := range strings.Lines(w.Body.String()) {
			_, from, ok := strings.Cut(strings.TrimSpace(line), " from './")
			if ok {
				follow(path[:strings.LastIndexByte(path, '/')+1] + strings.TrimSuffix(from, "'"))
			}
		}
	}
	follow(clientPath)
	if len(seen) < 5 {
		t.Errorf("only %d modules: %v", len(seen), seen)
	}
}

func TestStaticHasNothingElse(t *testing.T) {
	s := staticServer("*")
	for _, path := range []string{"/static", "/static/", "/static/client", "/static/client/", "/static/none.js", "/static/../embed.go", "/static/%2e%2e/embed.go", "/static//sluice-client.js", "/v1/static/sluice-client.js"} {
		if w := getStatic(s, http.MethodGet, path); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "unknown_url") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := getStatic(s, http.MethodPost, clientPath); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}
