package providertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

// errEnd is a plain end of a body.
var errEnd = io.EOF

// serve starts a server that plays a script until the test ends.
func (s *Suite) serve(t testing.TB, script *Script) (baseURL string) {
	t.Helper()
	if script.Stopped == nil {
		script.Stopped, script.Gone = make(chan struct{}), make(chan struct{})
	}
	if s.Serve != nil {
		return s.Serve(t, script)
	}
	srv := httptest.NewServer(&player{script: script})
	t.Cleanup(srv.Close)
	return srv.URL
}

// player is the server of a script over HTTP.
type player struct {
	script *Script
	once   sync.Once
}

func (p *player) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s := p.script
	if s.Asked != nil {
		s.Asked(r, body)
	}
	if s.Stop == BeforeHeaders && p.wait(r) {
		return
	}
	maps.Copy(w.Header(), s.Header)
	if s.Type != "" {
		w.Header().Set("Content-Type", s.Type)
	}
	w.WriteHeader(s.Status)
	flush := http.NewResponseController(w).Flush
	if s.Stop == BehindHeaders {
		_ = flush()
		p.wait(r)
		return
	}
	step := max(len(s.Body), 1)
	if s.Piecewise {
		step = 1
	}
	for piece := range slices.Chunk(s.Body, step) {
		if _, err := w.Write(piece); err != nil {
			p.wait(r)
			return
		}
		if s.Piecewise || s.Stop == BehindBody || s.Break {
			_ = flush()
		}
	}
	if s.Stop == BehindBody && p.wait(r) {
		return
	}
	if s.Break {
		_ = flush() // the head, where there is no body
		panic(http.ErrAbortHandler)
	}
}

// wait stands still until the caller has gone.
func (p *player) wait(r *http.Request) bool {
	p.once.Do(func() {
		close(p.script.Stopped)
		<-r.Context().Done()
		close(p.script.Gone)
	})
	return true
}

// recordRequest writes down what an adapter sent, without what the connection adds.
func recordRequest(out *strings.Builder) func(*http.Request, []byte) {
	return func(r *http.Request, body []byte) {
		fmt.Fprintf(out, "%s %s\n", r.Method, r.URL.RequestURI())
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			switch name {
			case "Accept-Encoding", "Connection", "Content-Length", "User-Agent":
			default:
				fmt.Fprintf(out, "%s: %s\n", strings.ToLower(name), strings.Join(r.Header[name], ", "))
			}
		}
		var pretty bytes.Buffer
		if json.Indent(&pretty, body, "", "  ") == nil {
			body = pretty.Bytes()
		}
		fmt.Fprintf(out, "%s\n", body)
	}
}

// settle lets a test end only when as many goroutines are left as there were.
func settle(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		poll := time.NewTicker(5 * time.Millisecond)
		defer poll.Stop()
		for end := time.Now().Add(patience / 2); runtime.NumGoroutine() > before; <-poll.C {
			if time.Now().After(end) {
				buf := make([]byte, 1<<20)
				t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
				return
			}
		}
	})
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}
