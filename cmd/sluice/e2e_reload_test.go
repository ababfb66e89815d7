package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sluice/handlers/admin"
)

// adminToken is for the admin API of gateways that reloads are tested with.
const adminToken = "0123456789abcdef0123456789abcdef"

const adminTokens = "\n[[admin.tokens]]\nname = \"ops\"\nrole = \"admin\"\ntoken = \"" + adminToken + "\"\n"

// reloadable is a gateway whose configuration file the test writes.
type reloadable struct {
	*gatewayUnderTest
	file string
}

// bootReloadable serves a text with adminTokens, in this process or in one of its own.
func bootReloadable(t testing.TB, text string, process bool, environ ...string) *reloadable {
	t.Helper()
	dir := t.TempDir()
	r := &reloadable{file: filepath.Join(dir, "config.toml")}
	r.write(t, text)
	args := []string{"--config", r.file, "--set", "server.listen=127.0.0.1:0", "--set", "server.admin_listen=127.0.0.1:0"}
	if process {
		r.gatewayUnderTest = bootProcessWith(t, args, environ...)
	} else {
		r.gatewayUnderTest = bootWith(t, args)
	}
	return r
}

// write puts a text into the file, with a key and an admin token where it has none.
func (r *reloadable) write(t testing.TB, text string) {
	t.Helper()
	if !strings.Contains(text, "[[keys]]") {
		text += "\n[[keys]]\nname = \"test\"\nkey = \"" + testKey + "\"\n"
	}
	if !strings.Contains(text, "[drain]") {
		text += "\n[drain]\ndelay = \"0s\"\ntimeout = \"5s\"\n"
	}
	if err := os.WriteFile(r.file, []byte(text+adminTokens), 0o600); err != nil {
		t.Fatal(err)
	}
}

// admin asks the admin API.
func (g *gatewayUnderTest) admin(t testing.TB, method, path, body string) answer {
	t.Helper()
	return g.do(t, method, g.AdminURL+admin.Prefix+path, body, "Authorization: Bearer "+adminToken)
}

// reload has the file read, and wants it to be in force.
func (r *reloadable) reload(t testing.TB) (done admin.ConfigReload) {
	t.Helper()
	a := r.admin(t, http.MethodPost, "/config/reload", "")
	if err := json.Unmarshal([]byte(a.body), &done); err != nil || a.status != http.StatusOK || !done.Reloaded {
		t.Fatalf("reload: %d %s", a.status, a.body)
	}
	return done
}

// to writes a text and has it in force.
func (r *reloadable) to(t testing.TB, text string) admin.ConfigReload {
	t.Helper()
	r.write(t, text)
	return r.reload(t)
}

// TestReloadUnderStreams reloads while streams run: none is cut, and what the old
// configurations held is let go.
func TestReloadUnderStreams(t *testing.T) {
	t.Parallel()
	reloadUnderStreams(t, 200, 20)
}

func reloadUnderStreams(t *testing.T, streams, reloads int) {
	base, open := gated(t)
	text := func(n int) string {
		return overWall(base, fmt.Sprintf("[log]\naccess = \"off\"\n[cors]\nmax_age = \"%ds\"\n", n)) + fmt.Sprintf("idle_timeout = \"%dms\"\n", 100+n%3)
	}
	r := bootReloadable(t, text(0), true)
	warm := hold(t, r.gatewayUnderTest, "warm")
	for i := range reloads {
		r.to(t, text(i))
	}
	r.eventually(t, "the first configurations are let go", func() bool { return r.metric(t, "gateway_config_generations_old") == 1 })
	before := r.held(t)
	running := make([]*held, streams)
	for i := range running {
		running[i] = hold(t, r.gatewayUnderTest, fmt.Sprint("m", i%7))
	}
	for i := range reloads {
		done := r.to(t, text(i+1))
		if !slices.Contains(done.Changed, "cors.max_age") || len(done.Restart) > 0 {
			t.Errorf("reload %d: %+v", i, done)
		}
		if i%5 == 0 {
			running = append(running, hold(t, r.gatewayUnderTest, "between"))
		}
	}
	open()
	for i, h := range append(running, warm) {
		if got := h.rest(t); len(got.text) == 0 || got.text[0] != "held back" || !got.done {
			t.Errorf("stream %d was cut: %+v", i, got)
		}
	}
	r.Client.CloseIdleConnections()
	r.eventually(t, "old configurations are kept", func() bool { return r.metric(t, "gateway_config_generations_old") == 0 })
	r.eventually(t, "connections or goroutines are left", func() bool {
		r.Client.CloseIdleConnections()
		now := r.held(t)
		return now.goroutines <= before.goroutines && now.descriptors <= before.descriptors+1
	})
	if n := r.metric(t, "gateway_config_generation"); int(n) != 2*reloads+1 {
		t.Errorf("%v configurations were in force", n)
	}
}

// held is what the process has now.
func (g *gatewayUnderTest) held(t testing.TB) census {
	t.Helper()
	return census{g.metric(t, "go_goroutines"), g.metric(t, "process_open_fds")}
}

// TestReloadMistake keeps everything as it was, and says why.
func TestReloadMistake(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	open()
	good := overWall(base, "")
	r := bootReloadable(t, good, false)
	r.write(t, strings.Replace(good, "[[upstreams]]", "[log]\nlevel = \"loud\"\n[[upstreams]]\nbase = \"x\"", 1))
	a := r.admin(t, http.MethodPost, "/config/reload", "")
	var got struct {
		Error struct{ Code, Message string }
		admin.ConfigReload
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatal(err)
	}
	if a.status != 422 || got.Error.Code != "config_invalid" || got.Reloaded || got.Generation != 1 || len(got.Errors) != 2 || got.Errors[0].Path != "log.level" ||
		got.Errors[0].Line == 0 || got.Errors[0].Column == 0 || !strings.Contains(got.Errors[0].Excerpt, "loud") {
		t.Errorf("%d %s", a.status, a.body)
	}
	r.awaitLine(t, "the mistake", func(l map[string]string) bool {
		return l["level"] == "ERROR" && strings.Contains(l["error"], "config.toml:") && strings.Contains(l["error"], "log.level")
	})
	if n := r.metric(t, "gateway_config_last_reload_successful"); n != 0 {
		t.Errorf("the metric says %v", n)
	}
	if a := r.chat(t, "m", ""); a.status != 200 || !a.done {
		t.Errorf("it does not serve: %d %s", a.status, a.body)
	}
	if done := r.to(t, good); done.Generation != 2 || len(done.Changed) != 0 || r.metric(t, "gateway_config_last_reload_successful") != 1 {
		t.Errorf("put right: %+v", done)
	}
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	if a := r.admin(t, http.MethodPost, "/config/reload", ""); a.status != 422 || !strings.Contains(a.body, "cannot read the configuration") {
		t.Errorf("without a file: %d %s", a.status, a.body)
	}
}

// TestReloadChanges puts each kind of change in force.
func TestReloadChanges(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	instant, openAll := gated(t)
	openAll()
	wallText := strings.Replace(overWall(base, ""), "[\"*\"]", "[\"held\"]", 1) + strings.NewReplacer("\"wall\"", "\"instant\"", "[\"*\"]", "[\"m\"]").Replace(overWall(instant, ""))
	keys := func(names ...string) (text string) {
		for _, n := range names {
			text += fmt.Sprintf("[[keys]]\nname = %q\nkey = \"sk-%s\"\n", n, n)
		}
		return text
	}
	r := bootReloadable(t, wallText+keys("a", "b"), false)
	asks := func(key, model string) int {
		t.Helper()
		return r.do(t, http.MethodPost, "/chat/completions", chatBody(model, true, ""), "Authorization: Bearer "+key).status
	}
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	want("a key", asks("sk-b", "m"), 200)
	of := func(key string) *gatewayUnderTest {
		g := *r.gatewayUnderTest
		g.Key = key
		return &g
	}
	staying, leaving := hold(t, of("sk-a"), "held"), hold(t, of("sk-b"), "held")
	r.to(t, wallText+keys("a", "c"))
	if got := leaving.rest(t); len(got.errors) != 1 || !strings.Contains(got.errors[0].Code, "key_revoked") || got.done {
		t.Errorf("the answer of a key that was removed: %+v", got)
	}
	want("a key that was removed", asks("sk-b", "m"), 401)
	open()
	if got := staying.rest(t); !got.done || len(got.errors) > 0 {
		t.Errorf("the answer of a key that stayed: %+v", got)
	}
	want("a new key", asks("sk-c", "m"), 200)

	alias := "[[models]]\nname = \"alias\"\ntargets = [{ upstream = \"wall\", model = \"x\" }]\n"
	wallText = overWall(instant, "")
	closed := strings.Replace(wallText, "[\"*\"]", "[\"m\"]", 1)
	r.to(t, closed+keys("a"))
	want("a model that is not there", asks("sk-a", "alias"), 404)
	r.to(t, closed+keys("a")+alias)
	want("a new model", asks("sk-a", "alias"), 200)

	limit := func(n int) string {
		return fmt.Sprintf("[[limits]]\nid = \"few\"\nscope = \"key\"\nrequests_per_day = %d\n", n)
	}
	r.to(t, closed+keys("a")+limit(3))
	want("within a limit", asks("sk-a", "m"), 200)
	want("within a limit", asks("sk-a", "m"), 200)
	done := r.to(t, closed+keys("a")+limit(1))
	if !slices.Equal(done.Changed, []string{"limits.few.requests_per_day"}) {
		t.Errorf("changed %v", done.Changed)
	}
	want("a lowered limit keeps what was taken", asks("sk-a", "m"), 200) // 1 was left of 3, and 1 is all there is
	want("beyond it", asks("sk-a", "m"), 429)
	r.to(t, closed+keys("a"))
	want("without the limit", asks("sk-a", "m"), 200)

	origin := func() string {
		return r.do(t, http.MethodOptions, "/chat/completions", "", "Origin: https://x.example", "Access-Control-Request-Method: POST").header.Get("Access-Control-Allow-Origin")
	}
	if got := origin(); got == "" {
		t.Error("no origin is allowed at first")
	}
	r.to(t, "[cors]\norigins = []\n"+closed+keys("a"))
	if got := origin(); got != "" {
		t.Errorf("origin %q is allowed", got)
	}
	done = r.to(t, "[server]\nlisten = \"127.0.0.1:1\"\nmax_header = \"64KiB\"\n[log]\nformat = \"json\"\n"+closed+keys("a"))
	if want := []string{"server.max_header", "log.format"}; !slices.Equal(done.Restart, want) { // a flag goes before listen
		t.Errorf("needs a restart: %v, want %v", done.Restart, want)
	}
	r.awaitLine(t, "a restart", func(l map[string]string) bool { return l["level"] == "WARN" && l["key"] == "server.max_header" })
	want("with keys that need a restart", asks("sk-a", "m"), 200)
}

// TestReloadPrice charges answers by the newest prices.
func TestReloadPrice(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	open()
	price := func(usd string) string {
		return overWall(base, "") + "[[prices]]\nmodels = [\"*\"]\ninput = " + usd + "\noutput = " + usd + "\n"
	}
	r := bootReloadable(t, price("1000"), false)
	cost := func() float64 {
		r.chat(t, "m", "")
		var total float64
		r.eventually(t, "the answer is counted", func() bool { total = r.metric(t, `gateway_cost_dollars_total{model="m"}`); return total > 0 })
		return total
	}
	first := cost()
	r.to(t, price("3000"))
	r.chat(t, "m", "")
	r.eventually(t, "the second answer costs three times as much", func() bool { return r.metric(t, `gateway_cost_dollars_total{model="m"}`) == 4*first })
}

// TestReloadSocket answers on an old connection as the newest configuration says.
func TestReloadSocket(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	open()
	closed := func(models string) string { return strings.Replace(overWall(base, ""), "\"*\"", models, 1) }
	r := bootReloadable(t, closed(`"m"`), false)
	c := r.dial(t)
	wantFault := func(code string) {
		t.Helper()
		c.create(t, "s", "n", "")
		if m := c.expect(t, "error", "s"); m.fault.Code != code {
			t.Errorf("%s, want %s", m.text, code)
		}
	}
	wantFault("model_not_found")
	r.to(t, closed(`"m", "n"`))
	c.create(t, "s", "n", "")
	c.expect(t, "done", "s")
	r.to(t, closed(`"m", "n"`)+"[[keys]]\nname = \"other\"\nkey = \"sk-other\"\n")
	if m := c.next(t); m.fault.Code != "key_revoked" {
		t.Errorf("when its key was removed: %s", m.text)
	}
}

// TestReloadSignal reloads at SIGHUP, and serves on after a mistake.
func TestReloadSignal(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	open()
	r := bootReloadable(t, overWall(base, ""), true)
	r.write(t, overWall(base, "")+"[cors]\norigins = []\n")
	r.Signal(t, syscall.SIGHUP)
	r.awaitLine(t, "the reload", func(l map[string]string) bool { return l["why"] == "SIGHUP" && l["changed"] == "cors.origins" })
	r.write(t, "[")
	r.Signal(t, syscall.SIGHUP)
	r.awaitLine(t, "the mistake", func(l map[string]string) bool { return l["why"] == "SIGHUP" && l["level"] == "ERROR" })
	if a := r.chat(t, "m", ""); a.status != 200 {
		t.Errorf("it does not serve: %d", a.status)
	}
}

// TestReloadWatch follows a file that is replaced, one that is written, a secret beside it, and
// a directory that is swapped by a symbolic link, as a mounted ConfigMap is.
func TestReloadWatch(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	open()
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	age := 0
	text := func() string {
		age++
		return fmt.Sprintf("[server]\nwatch = true\n[cors]\nmax_age = \"%ds\"\n%s\n[[keys]]\nname = \"test\"\nkey_file = \"secrets/key\"\n[drain]\ndelay = \"0s\"\n", age, overWall(base, ""))
	}
	put("secrets/key", testKey)
	put("v1/config.toml", text())
	must(os.Symlink("v1", filepath.Join(dir, "..data")))
	must(os.Symlink("..data/config.toml", filepath.Join(dir, "config.toml")))
	g := bootWith(t, []string{"--config", filepath.Join(dir, "config.toml"), "--set", "server.listen=127.0.0.1:0", "--set", "server.admin_listen=127.0.0.1:0"})
	generation := 1.0
	follows := func(what string) {
		t.Helper()
		generation++
		g.eventually(t, "not followed: "+what, func() bool { return g.metric(t, "gateway_config_generation") >= generation })
	}
	put("v2/config.toml", text())
	must(os.Symlink("v2", filepath.Join(dir, "..new")))
	must(os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
	follows("a directory that was swapped")
	put("next", text())
	must(os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "config.toml")))
	follows("a file that was replaced")
	put("config.toml", text())
	follows("a file that was written")
	put("secrets/key", "sk-rotated")
	follows("a secret")
	g.eventually(t, "the new secret is not good", func() bool {
		return g.do(t, http.MethodGet, "/models", "", "Authorization: Bearer sk-rotated").status == 200
	})
	generation = g.metric(t, "gateway_config_generation")
	put("config.toml", "[")
	g.awaitLine(t, "a mistake", func(l map[string]string) bool { return l["level"] == "ERROR" && l["why"] == "a file changed" })
	put("config.toml", text())
	follows("a file that was put right")
}

// TestReloadConnections closes the connections to an upstream that is gone, and keeps those to
// one that is as it was.
func TestReloadConnections(t *testing.T) {
	t.Parallel()
	kept, gone := newCountedUpstream(t), newCountedUpstream(t)
	both := func(second string) string {
		return fmt.Sprintf("[[upstreams]]\nname = \"kept\"\nbase_url = %q\nmodels = [\"a\"]\nlist_models = false\n", kept.url) +
			fmt.Sprintf("[[upstreams]]\nname = \"gone\"\nbase_url = %q\nmodels = [\"b\"]\nlist_models = false\n%s", gone.url, second)
	}
	r := bootReloadable(t, both(""), false)
	for _, m := range []string{"a", "b"} {
		if a := r.whole(t, m, ""); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	r.to(t, both("max_conns = 7\n"))
	r.eventually(t, "the connection to the changed upstream stays open", func() bool { return gone.open() == 0 })
	if a := r.whole(t, "a", ""); a.status != 200 || kept.made() != 1 || kept.open() != 1 {
		t.Errorf("%d; %d connections to the upstream that is as it was", a.status, kept.made())
	}
}

// countedUpstream gives short answers, and counts its connections.
type countedUpstream struct {
	url string

	mu        sync.Mutex
	all, gone int
}

func newCountedUpstream(t testing.TB) *countedUpstream {
	c := &countedUpstream{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"1","object":"chat.completion","created":1,"model":"x","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}`)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch state {
		case http.StateNew:
			c.all++
		case http.StateClosed:
			c.gone++
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c.url = s.URL + "/v1"
	return c
}

func (c *countedUpstream) made() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

func (c *countedUpstream) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all - c.gone
}

// TestReloadCommand reloads, and prints what is in force, by the command line of the same machine.
func TestReloadCommand(t *testing.T) {
	t.Parallel()
	base, _ := gated(t)
	text := overWall(base, "") + fmt.Sprintf("[data]\ndir = %q\n", filepath.Join(t.TempDir(), "data"))
	r := bootReloadable(t, text, false)
	sluice := func(args ...string) (int, string, string) {
		t.Helper()
		var stdout, stderr strings.Builder
		code := run(t.Context(), append(args, "--config", r.file), nil, strings.NewReader(""), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	r.write(t, text+"[cors]\norigins = []\n")
	if code, out, errs := sluice("config", "reload"); code != exitOK || !strings.Contains(out, `"cors.origins"`) {
		t.Errorf("%d %s %s", code, out, errs)
	}
	r.override(t, "/overrides/upstreams.wall.drained", "true")
	if code, out, errs := sluice("config", "print", "--running"); code != exitOK || !strings.Contains(out, "drained = true # override by ops at ") || !strings.Contains(out, "origins = [] # "+r.file) {
		t.Errorf("%d %s %s", code, out, errs)
	}
	if code, out, errs := sluice("config", "print", "--running", "--json"); code != exitOK || !strings.Contains(out, `"generation": 3`) {
		t.Errorf("%d %s %s", code, out, errs)
	}
	bad := r.file + ".bad"
	if err := os.WriteFile(bad, []byte("[log]\nlevel = \"loud\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	must := os.Rename(bad, r.file)
	if code, _, errs := sluice("config", "reload"); must != nil || code != exitUsage || !strings.Contains(errs, "log.level") {
		t.Errorf("%v %d %s", must, code, errs)
	}
	if code, _, errs := sluice("config", "reload", "--admin-url", r.AdminURL, "--admin-token", adminToken); code != exitFailure || !strings.Contains(errs, "config.toml:2:9: log.level") {
		t.Errorf("%d %s", code, errs)
	}
}
