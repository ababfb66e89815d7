package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/handlers/admin"
	"sluice/ratelimit/ratelimittest/redistest"
)

const (
	pathLeft  = `/overrides/models.m.targets.left/m.weight`
	pathRight = `/overrides/models.m.targets.right/m.weight`
)

// leftAndRight is a model over two upstreams, of which the left one is asked.
func leftAndRight(t testing.TB, more string) string {
	left, right := newCountedUpstream(t), newCountedUpstream(t)
	return fmt.Sprintf("%s\n[[upstreams]]\nname = \"left\"\nbase_url = %q\nmodels = [\"l\"]\nlist_models = false\n[[upstreams]]\nname = \"right\"\nbase_url = %q\nmodels = [\"r\"]\nlist_models = false\n", more, left.url, right.url) +
		"[[models]]\nname = \"m\"\ntargets = [{ upstream = \"left\", weight = 1 }, { upstream = \"right\", weight = 0 }]\n" +
		"[[limits]]\nid = \"day\"\nscope = \"key\"\nrequests_per_day = 1000\n"
}

// target is where an answer came from.
func (g *gatewayUnderTest) target(t testing.TB) string {
	t.Helper()
	a := g.whole(t, "m", "")
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return a.header.Get("X-Sluice-Target")
}

// override sets a value, and wants it to be in force.
func (g *gatewayUnderTest) override(t testing.TB, path, value string) (o admin.OverrideView) {
	t.Helper()
	a := g.admin(t, http.MethodPut, path, `{"value":`+value+`,"note":"a test"}`)
	if err := json.Unmarshal([]byte(a.body), &o); err != nil || a.status != http.StatusOK || !o.InForce || o.By != "ops" {
		t.Fatalf("%s = %s: %d %s", path, value, a.status, a.body)
	}
	return o
}

func (g *gatewayUnderTest) overrides(t testing.TB) (all []admin.OverrideView) {
	t.Helper()
	var list struct{ Data []admin.OverrideView }
	a := g.admin(t, http.MethodGet, "/overrides", "")
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return list.Data
}

// TestOverridesOfReplicas moves the traffic of two gateways by a change at one of them.
func TestOverridesOfReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	text := leftAndRight(t, fmt.Sprintf("[redis]\nurl = \"redis://%s/0\"\n[auth]\npepper = %q\n", server.Addr, strings.Repeat("p", 64)))
	a, b := bootReloadable(t, text, false), bootReloadable(t, text, false)
	if got := b.target(t); got != "left/m" {
		t.Fatalf("at first %s is asked", got)
	}
	a.override(t, pathRight, "1")
	began := time.Now()
	a.override(t, pathLeft, "0")
	if got := a.target(t); got != "right/m" {
		t.Errorf("after the change %s is asked", got)
	}
	b.eventually(t, "the other gateway does not follow", func() bool {
		all := b.overrides(t)
		return len(all) == 2 && all[0].InForce && all[1].InForce
	})
	t.Logf("the other gateway followed within %v", time.Since(began))
	if got := b.target(t); got != "right/m" {
		t.Errorf("at the other gateway %s is asked", got)
	}
	if code := b.Stop(); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	b = bootReloadable(t, text, false)
	if got := b.target(t); got != "right/m" {
		t.Errorf("after a restart %s is asked", got)
	}
	if r := b.admin(t, http.MethodDelete, pathLeft, ""); r.status != http.StatusNoContent {
		t.Fatalf("%d %s", r.status, r.body)
	}
	b.admin(t, http.MethodDelete, pathRight, "")
	a.eventually(t, "a removal is not followed", func() bool { return len(a.overrides(t)) == 0 && a.target(t) == "left/m" })
}

// TestOverridesOfOne sets, shows, refuses and keeps overrides of a gateway with a data
// directory, over reloads and restarts.
func TestOverridesOfOne(t *testing.T) {
	t.Parallel()
	text := leftAndRight(t, fmt.Sprintf("[data]\ndir = %q\n", filepath.Join(t.TempDir(), "data")))
	r := bootReloadable(t, text, false)
	r.override(t, pathRight, "1")
	r.override(t, pathLeft, "0")
	r.override(t, "/overrides/limits.day.requests_per_day", "2")
	r.override(t, "/overrides/log.level", `"debug"`)
	if got := r.target(t); got != "right/m" {
		t.Errorf("%s is asked", got)
	}
	r.target(t)
	if a := r.whole(t, "m", ""); a.status != http.StatusTooManyRequests {
		t.Errorf("the limit is not in force: %d", a.status)
	}
	for path, want := range map[string]string{
		"/overrides/server.listen": "cannot be overridden", "/overrides/upstreams.left.api_key": "cannot be overridden", "/overrides/models.n.drained": `There is no \"n\"`,
		"/overrides/retry.tries": "want an integer", "/overrides/limits.day.requests_per_hour": "has no requests_per_hour", pathRight: "must not all be 0",
	} {
		value := `"x"`
		if path == pathRight {
			value = "0"
		}
		if a := r.admin(t, http.MethodPut, path, `{"value":`+value+`}`); a.status != http.StatusBadRequest || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	shown := r.admin(t, http.MethodGet, "/config?format=toml", "").body
	for _, line := range []string{"requests_per_day = 2 # override by ops at 2", `level = "debug" # override by ops at 2`, `dir = "`, "key = \"***\" # "} {
		if !strings.Contains(shown, line) {
			t.Errorf("%s is not shown in\n%s", line, shown)
		}
	}
	if strings.Contains(shown, testKey) || strings.Contains(shown, adminToken) {
		t.Error("a secret is shown")
	}
	export := r.admin(t, http.MethodGet, "/overrides.toml", "").body
	if !strings.Contains(export, "# a test\nmodels.m.targets.\"left/m\".weight = 0\n") {
		t.Errorf("exported\n%s", export)
	}
	audit := r.admin(t, http.MethodGet, "/audit", "").body
	if !strings.Contains(audit, "limits.day.requests_per_day") || !strings.Contains(audit, "a test") {
		t.Errorf("not in the audit log: %s", audit)
	}

	r.to(t, strings.Replace(text, "\"day\"", "\"daily\"", 1))
	stale := slices.IndexFunc(r.overrides(t), func(o admin.OverrideView) bool {
		return o.Stale && !o.InForce && o.Path == "limits.day.requests_per_day"
	})
	if stale < 0 || r.metric(t, "gateway_config_overrides_ignored") != 1 {
		t.Errorf("it is not told to be stale: %+v", r.overrides(t))
	}
	r.awaitLine(t, "the stale override", func(l map[string]string) bool {
		return strings.Contains(l["msg"], "limits.day.requests_per_day = 2 of ops is ignored")
	})
	if got := r.target(t); got != "right/m" {
		t.Errorf("after a reload %s is asked", got)
	}
	r.Stop()
	again := bootReloadable(t, text, false)
	if got := again.target(t); got != "right/m" || len(again.overrides(t)) != 4 {
		t.Errorf("after a restart %s is asked: %+v", got, again.overrides(t))
	}
}

// TestOverrideDrains takes upstreams out of use while one of them answers.
func TestOverrideDrains(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	other := newCountedUpstream(t)
	r := bootReloadable(t, overWall(base, "")+fmt.Sprintf("[[upstreams]]\nname = \"other\"\nbase_url = %q\nmodels = [\"o\"]\nlist_models = false\n", other.url)+
		"[[models]]\nname = \"m\"\ntargets = [{ upstream = \"wall\", weight = 1000000 }, { upstream = \"other\" }]\n", false)
	running := hold(t, r.gatewayUnderTest, "m")
	r.override(t, "/overrides/upstreams.wall.drained", "true")
	for range 3 {
		if got := r.target(t); got != "other/m" {
			t.Errorf("%s is asked", got)
		}
	}
	r.override(t, "/overrides/models.m.targets.other/m.drained", "true")
	if a := r.whole(t, "m", ""); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "model_drained") || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	open()
	if got := running.rest(t); got.text[0] != "held back" || !got.done {
		t.Errorf("a running answer was cut: %+v", got)
	}
	r.admin(t, http.MethodDelete, "/overrides/upstreams.wall.drained", "")
	if got := r.target(t); got != "wall/m" {
		t.Errorf("%s is asked", got)
	}
}

// TestValidateRoute checks text for who may not read files or the environment.
func TestValidateRoute(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	base, _ := gated(t)
	r := bootReloadable(t, overWall(base, ""), false)
	var check admin.ConfigCheck
	ask := func(text string) string {
		t.Helper()
		check = admin.ConfigCheck{}
		a := r.admin(t, http.MethodPost, "/config/validate", text)
		if err := json.Unmarshal([]byte(a.body), &check); err != nil || a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return a.body
	}
	ask("[log]\nlevel = \"loud\"\n[server]\nidle = 1\n")
	if check.Valid || len(check.Errors) != 2 || check.Errors[0].Line != 2 || check.Errors[1].Path != "server.idle" {
		t.Errorf("%+v", check)
	}
	body := ask(fmt.Sprintf("[[upstreams]]\nname = \"x\"\nbase_url = \"http://${PATH}\"\napi_key_file = %q\n", secret))
	if !check.Valid || len(check.Unchecked) != 2 || strings.Contains(body, "hunter2") || strings.Contains(body, "/bin") {
		t.Errorf("%s", body)
	}
	if ask(""); !check.Valid {
		t.Errorf("%+v", check)
	}
}

// TestOverrideUnderStream lowers a limit while an answer is held against it: the answer ends
// well, and the bucket has no more than the new limit.
func TestOverrideUnderStream(t *testing.T) {
	t.Parallel()
	base, open := gated(t)
	r := bootReloadable(t, overWall(base, "")+"[[limits]]\nid = \"day\"\nscope = \"key\"\ntokens_per_day = 100_000\n", false)
	running := hold(t, r.gatewayUnderTest, "m")
	r.override(t, "/overrides/limits.day.tokens_per_day", "50")
	open()
	if got := running.rest(t); got.text[0] != "held back" || !got.done || len(got.errors) > 0 {
		t.Errorf("the answer was cut: %+v", got)
	}
	r.idle(t)
	if n, err := strconv.Atoi(r.left(t, "day")); err != nil || n > 50 {
		t.Errorf("%d tokens are left of 50: %v", n, err)
	}
	if a := r.chat(t, "m", `,"max_tokens":10`); a.status != http.StatusOK {
		t.Errorf("within the new limit: %d %s", a.status, a.body)
	}
	r.admin(t, http.MethodDelete, "/overrides/limits.day.tokens_per_day", "")
	for _, l := range r.usage(t, "").Limits {
		if l.ID == "day" && string(l.Limit) != "100000" {
			t.Errorf("the limit of the file is not back: %+v", l)
		}
	}
}
