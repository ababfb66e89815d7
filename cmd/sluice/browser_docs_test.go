package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"
)

// This file runs the examples of docs/websocket.md as they stand there, with the
// address and the key of a gateway of the test's.

const webSocketPage = "docs/websocket.md"

// pageBlocks returns the blocks of a page whose fence says what.
func pageBlocks(t *testing.T, name, what string) (blocks []string) {
	t.Helper()
	fence := regexp.MustCompile("(?ms)^```" + regexp.QuoteMeta(what) + "\n(.*?)^```$")
	for _, m := range fence.FindAllStringSubmatch(page(t, name), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no example in %q", name, what)
	}
	return blocks
}

// exampleGateway is a gateway with the demo models.
func exampleGateway(t *testing.T, origins string) (g *gatewayUnderTest, here *strings.Replacer) {
	t.Helper()
	g = bootProcess(t, fmt.Sprintf("[websocket]\norigins = [%s]\n", origins))
	host := strings.TrimSuffix(strings.TrimPrefix(g.URL, "http://"), "/v1")
	return g, strings.NewReplacer("127.0.0.1:8080", host, "sk-...", g.Key)
}

// TestWebSocketPageInBrowser loads each example for pages in a page of its own.
func TestWebSocketPageInBrowser(t *testing.T) {
	t.Parallel()
	blocks := pageBlocks(t, webSocketPage, "js")
	var script string
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!doctype html><title>example</title><link rel=icon href=data:,><body><script type=module>"+script+"</script>")
	}))
	t.Cleanup(pages.Close)
	g, here := exampleGateway(t, fmt.Sprintf("%q", pages.URL))
	for i, block := range blocks {
		t.Run(fmt.Sprint("example ", i+1), func(t *testing.T) {
			script = here.Replace(block)
			ctx, end := chromedp.NewContext(startBrowser(t), chromedp.WithNewBrowserContext())
			defer end()
			if err := chromedp.Do(ctx, chromedp.Navigate(pages.URL)); err != nil {
				t.Fatal(err)
			}
			shown := ""
			g.eventually(t, "the example never shows its answer", func() bool {
				shown = evaluate[string](t, &tab{ctx: ctx}, "document.body.innerText")
				return strings.Contains(shown, "tokens")
			})
			if !strings.Contains(shown, "You said: Hello (") || strings.Contains(shown, "undefined") {
				t.Errorf("the page shows %q", shown)
			}
		})
	}
}

// TestWebSocketPageInPython runs the example for Python.
func TestWebSocketPageInPython(t *testing.T) {
	t.Parallel()
	python := pythonClient("sync")(t)[0]
	_, here := exampleGateway(t, "")
	for _, block := range pageBlocks(t, webSocketPage, "python") {
		out := runExample(t, nil, python, "-c", here.Replace(block))
		if !strings.Contains(out, "You said: Hello\n") || !strings.Contains(out, " tokens, the first after ") {
			t.Errorf("it printed %q", out)
		}
	}
}

// runExample runs a program to its end and returns what it printed.
func runExample(t *testing.T, environ []string, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	program := exec.CommandContext(ctx, command[0], command[1:]...)
	program.Env = append(clientEnv(), environ...)
	program.WaitDelay = time.Second
	out, err := program.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return string(out)
}

// TestWebSocketPageServer runs the example of a server that hands out tickets, and
// uses one.
func TestWebSocketPageServer(t *testing.T) {
	t.Parallel()
	toolVersion(t, "node", "--version")
	g, here := exampleGateway(t, "")
	for _, block := range pageBlocks(t, webSocketPage, "js server") {
		addr := freeAddress(t)
		file := filepath.Join(t.TempDir(), "server.mjs")
		block = strings.Replace(here.Replace(block), "listen(3000,", "listen("+addr[strings.LastIndex(addr, ":")+1:]+",", 1)
		if err := os.WriteFile(file, []byte(block), 0o600); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		server := exec.Command("node", file)
		server.Env = append(clientEnv(), "SLUICE_KEY="+g.Key)
		server.Stdout, server.Stderr = &said, &said
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		var res *http.Response
		g.eventually(t, "the server does not answer", func() (ok bool) {
			var err error
			res, err = http.Post("http://"+addr+"/ticket", "", nil)
			return err == nil
		})
		defer res.Body.Close()
		var got struct{ Ticket string }
		err := json.NewDecoder(res.Body).Decode(&got)
		_ = server.Process.Kill()
		_ = server.Wait()
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%d, %v\n%s", res.StatusCode, err, said.String())
		}
		ws := dialExample(t, g, http.Header{"Sec-Websocket-Protocol": {"sluice.v1, sluice-ticket." + got.Ticket}})
		if ws.Subprotocol() != "sluice.v1" {
			t.Errorf("the gateway answers the subprotocol %q", ws.Subprotocol())
		}
	}
}

func dialExample(t *testing.T, g *gatewayUnderTest, header http.Header) *websocket.Conn {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.DialContext(t.Context(), strings.Replace(g.URL, "http", "ws", 1)+"/chat/completions", header)
	if err != nil {
		t.Fatalf("%v, %v", err, res)
	}
	t.Cleanup(func() { _ = ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	return ws
}

// TestWebSocketPageTranscript plays the transcript: what the client sends is sent as
// it stands, and for each frame of the gateway one like it must come, beside those
// that the page leaves out.
func TestWebSocketPageTranscript(t *testing.T) {
	t.Parallel()
	g, _ := exampleGateway(t, "")
	for _, block := range pageBlocks(t, webSocketPage, "text") {
		ws := dialExample(t, g, http.Header{"Authorization": {"Bearer " + g.Key}})
		for line := range strings.Lines(block) {
			line = strings.TrimSuffix(line, "\n")
			if text, ok := strings.CutPrefix(line, "> "); ok {
				if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			text, ok := strings.CutPrefix(line, "< ")
			if !ok {
				t.Fatalf("neither sent nor received: %s", line)
			}
			awaitFrame(t, ws, text)
		}
	}
}

// awaitFrame reads until a frame is like the one of the page: the same members with
// the same kinds of values, and the same values where they are words of the protocol.
func awaitFrame(t *testing.T, ws *websocket.Conn, text string) {
	t.Helper()
	var want map[string]any
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatalf("the page has %s: %v", text, err)
	}
	var seen []string
	for {
		_, data, err := ws.ReadMessage()
		if err != nil {
			t.Fatalf("no frame like %s (%v), but %q", text, err, seen)
		}
		seen = append(seen, string(data))
		var got map[string]any
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if got["type"] != want["type"] || got["stream_id"] != want["stream_id"] {
			continue // a chunk that the page leaves out, or of another stream
		}
		if fault := unlike(got, want, ""); fault != "" {
			t.Errorf("%s\nis not like the page's\n%s\n%s", data, text, fault)
		}
		return
	}
}

// unlike tells where a value differs from the one that the page shows. Chunks are
// shortened there.
func unlike(got, want any, path string) string {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok {
			return path + " is no object"
		}
		for name, w := range want {
			if path == ".usage" && name == "estimated" {
				continue
			}
			g, there := got[name]
			if !there {
				return path + "." + name + " is missing"
			}
			if fault := unlike(g, w, path+"."+name); fault != "" {
				return fault
			}
		}
		for name := range got {
			if _, there := want[name]; !there && !strings.HasPrefix(path, ".data") && path != ".usage" {
				return path + "." + name + " is not on the page"
			}
		}
	case []any:
		if got, ok := got.([]any); !ok || len(got) != len(want) {
			return path + " has another length"
		}
	case string:
		got, ok := got.(string)
		if head, _, short := strings.Cut(want, "…"); !ok || short && !strings.HasPrefix(got, strings.TrimRight(head, "0123456789abcdef")) || !short && got != want {
			return fmt.Sprintf("%s is %q", path, got)
		}
	case float64:
		if _, ok := got.(float64); !ok || (path == ".status" || path == ".position") && got != want {
			return fmt.Sprintf("%s is %v", path, got)
		}
	case nil:
		if got != nil {
			return fmt.Sprintf("%s is %v", path, got)
		}
	}
	return ""
}

// TestWebSocketPageDefaults compares the limits of the page with config.toml.
func TestWebSocketPageDefaults(t *testing.T) {
	config := page(t, "config.toml")
	row := regexp.MustCompile("(?m)^\\| (`(?:websocket|sizes)\\.[^|]*) \\| ([^|]*) \\|")
	key := regexp.MustCompile("`(websocket|sizes)\\.(\\w+)`")
	rows := row.FindAllStringSubmatch(page(t, webSocketPage), -1)
	if len(rows) < 8 {
		t.Errorf("only %d rows", len(rows))
	}
	for _, r := range rows {
		values := strings.Split(r[2], ", ")
		for i, k := range key.FindAllStringSubmatch(r[1], -1) {
			_, section, _ := strings.Cut(config, "\n["+k[1]+"]\n")
			section, _, _ = strings.Cut(section, "\n[")
			if !strings.Contains(section, fmt.Sprintf("\n%s = %q\n", k[2], values[i])) && !strings.Contains(section, fmt.Sprintf("\n%s = %s\n", k[2], values[i])) {
				t.Errorf("the page has %s of %s.%s, config.toml has not", values[i], k[1], k[2])
			}
		}
	}
}
