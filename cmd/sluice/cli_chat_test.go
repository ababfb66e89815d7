package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// oneAnswer serves /v1/models and one scripted stream.
func oneAnswer(t testing.TB, script func(w http.ResponseWriter, r *http.Request)) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"first","object":"model"},{"id":"second","object":"model"}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", script)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

// events writes an event stream as it is, and flushes.
func events(w http.ResponseWriter, parts ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, p := range parts {
		_, _ = io.WriteString(w, p)
	}
	_ = http.NewResponseController(w).Flush()
}

func delta(text string) string {
	return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", text)
}

const (
	finishStop = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	done       = "data: [DONE]\n\n"
	errorEvent = "data: {\"error\":{\"message\":\"the upstream went away\",\"type\":\"server_error\",\"code\":\"upstream_lost\"}}\n\n"
)

func TestCLIChat(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, tc := range []struct {
		name           string
		script         func(w http.ResponseWriter)
		code           int
		stdout, stderr string
	}{
		{"whole", func(w http.ResponseWriter) {
			events(w, ": keep-alive\n", delta("Hel"), ": keep-alive\n", delta("lo"), finishStop, done)
		}, 0, "Hello\n", ""},
		{"whole without DONE", func(w http.ResponseWriter) { events(w, delta("Hello"), finishStop) }, 0, "Hello\n", ""},
		{"other end", func(w http.ResponseWriter) {
			events(w, delta("Hello"), strings.Replace(finishStop, "stop", "length", 1), done)
		}, 0, "Hello\n", "(ended by length)\n"},
		{"cut", func(w http.ResponseWriter) { events(w, delta("Hel")) }, 1, "Hel\n", "the answer was cut: the stream ended without a finish reason"},
		{"cut with DONE", func(w http.ResponseWriter) { events(w, delta("Hel"), done) }, 1, "Hel\n", "without a finish reason"},
		{"broken", func(w http.ResponseWriter) {
			events(w, delta("Hel"))
			panic(http.ErrAbortHandler)
		}, 1, "Hel\n", "the answer was cut: the connection broke"},
		{"error event", func(w http.ResponseWriter) { events(w, delta("Hel"), errorEvent) }, 1, "Hel\n", "the answer was cut: the upstream went away"},
		{"error event after heartbeats", func(w http.ResponseWriter) {
			events(w, delta("Hel"), ": keep-alive\n", ": keep-alive\n\n", "event: error\n", errorEvent)
		}, 1, "Hel\n", "the answer was cut: the upstream went away"},
		{"many heartbeats", func(w http.ResponseWriter) {
			events(w, strings.Repeat(": keep-alive\n\n", 2000), delta("Hello"), finishStop, done)
		}, 0, "Hello\n", ""},
		{"long chunk", func(w http.ResponseWriter) {
			events(w, delta(strings.Repeat("x", 100_000)), finishStop, done)
		}, 0, strings.Repeat("x", 100_000) + "\n", ""},
		{"refused", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":{"message":"no such key","type":"invalid_request_error"}}`)
		}, 1, "", "401 Unauthorized: no such key"},
		{"no JSON", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "<html>bad gateway</html>")
		}, 1, "", "502 Bad Gateway: <html>bad gateway"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := oneAnswer(t, func(w http.ResponseWriter, _ *http.Request) { tc.script(w) })
			code, stdout, stderr := cli{}.run(t, "chat", "--url", srv.URL, "--model", "m", "Hi", "there")
			if code != tc.code || stdout != tc.stdout || !strings.Contains(stderr, tc.stderr) || tc.stderr == "" && stderr != "" {
				t.Errorf("exit %d\nstdout: %.200s\nstderr: %s", code, stdout, stderr)
			}
		})
	}
}

// TestCLIChatRequest looks at what is sent, and to whom which key goes.
func TestCLIChatRequest(t *testing.T) {
	t.Chdir(t.TempDir())
	var auth string
	var sent struct {
		Model    string
		Stream   bool
		Messages []struct{ Role, Content string }
	}
	srv := oneAnswer(t, func(w http.ResponseWriter, r *http.Request) {
		auth = r.Header.Get("Authorization")
		sent.Messages = nil
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		events(w, delta("ok"), finishStop, done)
	})
	listen := strings.TrimPrefix(srv.URL, "http://")
	config := "[server]\nlisten = \"" + listen + "\"\n[[keys]]\nname = \"h\"\nhash = \"sha256:" + strings.Repeat("0", 64) +
		"\"\n[[keys]]\nname = \"a\"\nkey = \"config-key\"\n"
	if err := os.WriteFile("config.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args  string
		env   string
		stdin string
		auth  string
		model string
	}{
		{"chat Hi", "", "", "Bearer config-key", "first"},
		{"chat", "", "Hi\n", "Bearer config-key", "first"},
		{"chat -", "", "Hi\n", "Bearer config-key", "first"},
		{"chat Hi", "SLUICE_KEY=env-key", "", "Bearer env-key", "first"},
		{"chat --key flag-key Hi", "SLUICE_KEY=env-key", "", "Bearer flag-key", "first"},
		{"chat --model x Hi --url " + srv.URL, "", "", "", "x"},
		{"chat --model x Hi --url " + srv.URL + "/v1/ --key k", "", "", "Bearer k", "x"},
	} {
		code, stdout, stderr := cli{environ: []string{tc.env}, stdin: tc.stdin}.run(t, strings.Split(tc.args, " ")...)
		if code != 0 || stdout != "ok\n" {
			t.Errorf("%s: exit %d: %s%s", tc.args, code, stdout, stderr)
		}
		if strings.TrimSpace(strings.TrimPrefix(auth, "Bearer")) != strings.TrimPrefix(tc.auth, "Bearer ") {
			t.Errorf("%s: sent %q", tc.args, auth)
		}
		if sent.Model != tc.model || !sent.Stream || len(sent.Messages) != 1 || sent.Messages[0].Content != "Hi" {
			t.Errorf("%s: sent %+v", tc.args, sent)
		}
	}
	if code, _, stderr := (cli{stdin: " \n"}).run(t, "chat"); code != 1 || !strings.Contains(stderr, "the prompt is empty") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if code, _, _ := (cli{}).run(t, "chat", "--system", "Be brief.", "Hi"); code != 0 || len(sent.Messages) != 2 || sent.Messages[0].Role != "system" {
		t.Errorf("sent %+v", sent)
	}
}

// TestCLIChatCancel cancels in the middle and waits for the server to see it.
func TestCLIChatCancel(t *testing.T) {
	t.Chdir(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gone := make(chan struct{})
	srv := oneAnswer(t, func(w http.ResponseWriter, r *http.Request) {
		events(w, delta("Hel"))
		cancel()
		<-r.Context().Done()
		close(gone)
	})
	code, _, stderr := cli{ctx: ctx}.run(t, "chat", "--url", srv.URL, "--model", "m", "Hi")
	if code != exitInterrupted || stderr != "sluice: cancelled\n" {
		t.Errorf("exit %d: %q", code, stderr)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the server does not see the cancel")
	}
}

func TestCLIChatNoServer(t *testing.T) {
	t.Chdir(t.TempDir())
	srv := httptest.NewServer(nil)
	srv.Close()
	code, _, stderr := cli{}.run(t, "chat", "--url", srv.URL, "Hi")
	if code != 1 || !strings.Contains(stderr, "no server answers at 127.0.0.1:") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
