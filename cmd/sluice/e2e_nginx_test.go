package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// stockNginx has no setting but where to listen and where to pass.
const stockNginx = "server { listen 80; location / { proxy_pass http://127.0.0.1:8080; } }\n"

// behindNginx puts nginx in front of a gateway and returns the gateway as it is
// seen through it. site is a file of conf.d, made for ports 80 and 8080.
func behindNginx(t *testing.T, g *gatewayUnderTest, site, settings string) *gatewayUnderTest {
	t.Helper()
	bin, err := exec.LookPath("nginx")
	if err != nil {
		if bin, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("nginx is not installed: apt-get install nginx")
		}
	}
	u, err := url.Parse(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir, listen := t.TempDir(), freeAddress(t)
	if !strings.Contains(site, "listen 80;") || !strings.Contains(site, "127.0.0.1:8080") {
		t.Fatalf("this is not a site for ports 80 and 8080:\n%s", site)
	}
	site = strings.ReplaceAll(strings.Replace(site, "listen 80;", "listen "+listen+";", 1), "127.0.0.1:8080", u.Host)
	conf := "daemon off; master_process off; worker_rlimit_nofile 1024; pid nginx.pid; error_log stderr; events { worker_connections 256; }\nhttp {\naccess_log off; " + settings + "\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += kind + "_temp_path " + kind + ";\n"
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf+site+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said := &logBuffer{changed: make(chan struct{})}
	cmd := exec.Command(bin, "-p", dir, "-c", file, "-e", "stderr")
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	front := *g
	front.URL = "http://" + listen + "/v1"
	g.eventually(t, "nginx does not listen: "+said.String(), func() bool {
		conn, err := net.Dial("tcp", listen)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return &front
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// nginxSites are nginx as it comes, and as it is recommended.
func nginxSites(t *testing.T) map[string]string {
	t.Helper()
	recommended, err := os.ReadFile("../../deploy/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"stock": stockNginx, "recommended": string(recommended)}
}

func TestNginx(t *testing.T) {
	t.Parallel()
	for name, site := range nginxSites(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, w := wall.Start(t)
			gate, _ := gated(t)
			// The silence that nginx bears is scaled down, and the heartbeat with it.
			g := boot(t, overWall(base, beatTimes)+fmt.Sprintf("[[upstreams]]\nname = \"gate\"\nbase_url = %q\nmodels = [\"unused\"]\nlist_models = false\n[[models]]\nname = \"gated\"\ntargets = [{ upstream = \"gate\" }]\n", gate))
			front := behindNginx(t, g, site, "proxy_read_timeout 1s;")
			t.Run("a token is not kept", func(t *testing.T) {
				t.Parallel()
				// The upstream says nothing more: a buffer would hold this token for ever.
				hold(t, front, "gated")
			})
			t.Run("tokens come one by one", func(t *testing.T) { t.Parallel(); checkPace(t, front) })
			t.Run("a long silence", func(t *testing.T) { t.Parallel(); checkSilence(t, front) })
			t.Run("a client that leaves", func(t *testing.T) { t.Parallel(); checkLeaveThrough(t, front, w, name) })
			if name == "recommended" {
				checkRecommended(t, behindNginx(t, g, site, ""))
			}
		})
	}
}

// checkSilence waits longer than nginx does, in three phases of an answer at once.
func checkSilence(t *testing.T, front *gatewayUnderTest) {
	t.Helper()
	var all sync.WaitGroup
	for _, script := range []string{"headers=2500ms,tokens=3", "role=early,first=2500ms,tokens=3", "tokens=3,stall=2:2500ms"} {
		all.Go(func() {
			a := front.do(t, http.MethodPost, chatPath, chatBody("wall:"+script, true, ""))
			a.complete(t, 3)
		})
	}
	all.Wait()
}

// checkPace measures when tokens arrive: at their upstream's pace, each alone.
func checkPace(t *testing.T, front *gatewayUnderTest) {
	t.Helper()
	start := time.Now()
	res := front.openStream(t.Context(), t, chatBody("wall:tokens=30,delay=30ms", true, ""))
	got := readUntil(t, res.Body, start, nil)
	var gaps []time.Duration
	for i := 1; i < len(got); i++ {
		gaps = append(gaps, got[i].at-got[i-1].at)
	}
	s := readSSE(t, joined(got))
	a := answer{status: res.StatusCode, sse: s}
	a.complete(t, 30)
	if m := median(gaps); len(got) < 15 || m < 10*time.Millisecond || m > 200*time.Millisecond {
		t.Errorf("30 tokens, one every 30ms, arrived in %d reads with a median gap of %v", len(got), m)
	}
	if res.Header.Get("Cache-Control") != "no-cache, no-transform" {
		t.Errorf("Cache-Control: %q", res.Header.Get("Cache-Control"))
	}
}

func checkLeaveThrough(t *testing.T, front *gatewayUnderTest, w *wall.Wall, name string) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	key := "leave-" + name
	model := wallModel(key, "tokens=100000,delay=5ms")
	front.openStream(ctx, t, chatBody(model, true, ""))
	awaitCall(t, w, key, func(q wall.Request) bool { return q.Tokens > 5 })
	left := time.Now()
	leave()
	checkGone(t, front, w, model, key, left, false)
}

// checkRecommended is what stock settings cannot do.
func checkRecommended(t *testing.T, front *gatewayUnderTest) {
	t.Run("a large body", func(t *testing.T) {
		t.Parallel()
		a := front.whole(t, "wall", `,"x":"`+strings.Repeat("x", 5<<20)+`"`)
		if a.status != 200 {
			t.Errorf("%d %.300s", a.status, a.body)
		}
	})
	t.Run("a cut body", func(t *testing.T) {
		t.Parallel()
		a := front.do(t, http.MethodPost, "/audio/speech", `{"model":"wall:tokens=8,abort=3","input":"hi","voice":"alloy"}`)
		if a.failure == nil {
			t.Errorf("a cut body came as a whole one: %d, %d bytes", a.status, len(a.body))
		}
	})
}

// TestNginxGivesUp is the control of the long silence: without heartbeats nginx ends it.
func TestNginxGivesUp(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, ""))
	front := behindNginx(t, g, stockNginx, "proxy_read_timeout 1s;")
	if a := front.chat(t, "wall:first=2500ms,tokens=3", ""); a.status != http.StatusGatewayTimeout {
		t.Errorf("status %d: the test of a long silence proves nothing", a.status)
	}
}
