package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/handlers/admin"
	"sluice/providers/providertest/wall"
)

// withRules is a configuration with rules over a wall, whose targets are named for what they
// stand for.
func withRules(base, more string) string {
	return more + fmt.Sprintf(`
[[upstreams]]
name = "up"
base_url = %q
models = ["unused"]
list_models = false

[[models]]
name = "assistant"
aliases = ["default"]
targets = [{ upstream = "up", model = "old", version = "v1" }, { upstream = "up", model = "new", version = "v2", weight = 0 }]

[[models]]
name = "vip"
fallback = ["assistant"]
targets = [{ upstream = "up", model = "fast" }]

[[models]]
name = "large"
targets = [{ upstream = "up", model = "other", priority = 1 }, { upstream = "up", model = "wide" }]

[[models]]
name = "org/one"
targets = [{ upstream = "up", model = "slashed" }]

[[routes]]
name = "banned"
groups = ["banned"]
refuse = "Ask the desk for access."

[[routes]]
name = "vip"
models = ["assistant"]
groups = ["vip"]
model = "vip"

[[routes]]
name = "experiment"
models = ["assistant"]
headers = { x-experiment = "b*" }
version = "v2"

[[routes]]
name = "long"
models = ["assistant"]
prompt_over = 1000
model = "large"

[[routes]]
name = "tools"
models = ["assistant"]
needs = ["tools"]
model = "large"
priority = 1

[[paths]]
prefix = "/api/model/{name}"

[[paths]]
prefix = "/t/{name}/openai"

[[paths]]
prefix = "/assistant"
model = "assistant"
`, base)
}

// TestRoutes sends requests that rules are for, with issued keys, and looks at who answers.
func TestRoutes(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	config := withRules(base, fmt.Sprintf("[data]\ndir = %q\n", t.TempDir()))
	g := boot(t, config)
	cli := newKeyCLI(t, config)
	vip := cli.must(t, "create", "vip", "--group", "vip", "--model", "assistant")
	banned := cli.must(t, "create", "banned", "--group", "banned")
	plain := cli.must(t, "create", "plain", "--model", "assistant", "--model", "*v2")
	const chat = "/chat/completions"
	tools := `,"tools":[{"type":"function","function":{"name":"f"}}]`
	for _, c := range []struct {
		name, key, model, more string
		header                 []string
		status                 int
		target, code           string
	}{
		{"nothing holds", "", "assistant", "", nil, 200, "up/old", ""},
		{"group", vip.Secret, "assistant", "", nil, 200, "up/fast", ""},
		{"an alias is not what the key is for", vip.Secret, "default", "", nil, 403, "", "model_not_found"},
		{"nor is where a rule leads", vip.Secret, "vip", "", nil, 403, "", "model_not_found"},
		{"a version of its model is", vip.Secret, "assistant@v2", "", nil, 200, "up/fast", ""},
		{"version", plain.Secret, "assistant@v2", "", nil, 200, "up/new", ""},
		{"a version by header", plain.Secret, "assistant", "", []string{"X-Model-Version: v2"}, 200, "up/new", ""},
		{"a name is no pattern over versions", plain.Secret, "default@v2", "", nil, 403, "", "model_not_found"},
		{"refused", banned.Secret, "assistant", "", nil, 403, "", "refused_by_rule"},
		{"header", "", "assistant", "", []string{"X-Experiment: b2"}, 200, "up/new", ""},
		{"other header", "", "assistant", "", []string{"X-Experiment: a"}, 200, "up/old", ""},
		{"a version of the caller's own", "", "assistant@v1", "", []string{"X-Experiment: b2"}, 200, "up/old", ""},
		{"alias", "", "default", "", []string{"X-Experiment: b2"}, 200, "up/new", ""},
		{"long prompt", "", "assistant", `,"tools":[],"x":"` + strings.Repeat("y", 10) + `","prompt":"` + strings.Repeat("word ", 1000) + `"`, nil, 200, "up/wide", ""},
		{"tools, and a priority", "", "assistant", tools, nil, 200, "up/other", ""},
	} {
		as := g
		if c.key != "" {
			as = g.as(c.key)
		}
		a := as.do(t, http.MethodPost, chat, chatBody(c.model, false, c.more), c.header...)
		if got := a.header.Get("X-Sluice-Target"); a.status != c.status || got != c.target || !strings.Contains(a.body, c.code) {
			t.Errorf("%s: status %d from %q, want %d from %q\n%s", c.name, a.status, got, c.status, c.target, a.body)
		}
	}
	a := g.as(vip.Secret).do(t, http.MethodPost, chat, chatBody("assistant", true, ""), "X-Sluice-Explain: 1")
	if got, want := a.header.Get("X-Sluice-Route"), `model="assistant"; rule="vip"; pool="vip"; targets="up/fast"`; got != want {
		t.Errorf("%s: %s, want %s", "X-Sluice-Route", got, want)
	}
	if a := g.do(t, http.MethodPost, chat, chatBody("assistant", true, "")); a.header.Get("X-Sluice-Route") != "" {
		t.Error("a route is told to who has not asked")
	}
	explained(t, cli.config, vip.ID)
	sock := g.dial(t, "X-Experiment: b1")
	sock.create(t, "s", "assistant", "")
	if _, err := w.Await(t.Context(), func(q wall.Request) bool { return q.Stream && q.Model == "new" }); err != nil {
		t.Errorf("over WebSocket the rule does not hold: %v", err)
	}
	sock.expect(t, "accepted", "s")
}

// explained asks the running gateway by the command line, for an issued key.
func explained(t *testing.T, config, key string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"--config", config, "route", "explain", "--model", "assistant", "--key", key, "--json"}, nil, strings.NewReader(""), &out, &errs)
	var got admin.RouteAnswer
	if err := json.Unmarshal(out.Bytes(), &got); code != exitOK || err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out.String(), errs.String())
	}
	if got.Rule != "vip" || got.Pool != "vip" || len(got.Rules) != 5 || !got.Rules[1].Decides || got.Rules[0].Why == "" ||
		len(got.Targets) != 1 || got.Targets[0].State != "closed" || len(got.Then) != 1 {
		t.Errorf("%+v", got)
	}
}

// TestPathForms asks for models by the path.
func TestPathForms(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, withRules(base, ""))
	root := strings.TrimSuffix(g.URL, "/v1")
	const messages = `"messages":[{"role":"user","content":"hi"}]`
	for _, c := range []struct {
		path, body string
		status     int
		target     string
	}{
		{"/v1/models/assistant/chat/completions", `{` + messages + `}`, 200, "up/old"},
		{"/models/assistant/chat/completions", `{` + messages + `,"model":"assistant","stream":true}`, 200, "up/old"},
		{"/v1/models/assistant@v2/chat/completions", `{` + messages + `}`, 200, "up/new"},
		{"/v1/models/assistant/chat/completions", `{` + messages + `,"model":"default"}`, 400, ""},
		{"/v1/models/org%2Fone/chat/completions", `{` + messages + `}`, 200, "up/slashed"},
		{"/v1/models/org/one/chat/completions", `{` + messages + `}`, 200, "up/slashed"},
		{"/v1/models/assistant/completions", `{"prompt":"hi"}`, 200, "up/old"},
		{"/v1/models/assistant/embeddings", `{"input":"hi"}`, 200, "up/old"},
		{"/v1/models/unknown/chat/completions", `{` + messages + `}`, 404, ""},
		{"/v1/models/%zz/chat/completions", `{` + messages + `}`, 400, ""},
		{"/v1/models//chat/completions", `{` + messages + `}`, 400, ""},
		{"/v1/models/assistant/nothing", `{` + messages + `}`, 405, ""},
		{"/api/model/assistant/chat/completions", `{` + messages + `}`, 200, "up/old"},
		{"/api/model/assistant/v1/chat/completions", `{` + messages + `}`, 200, "up/old"},
		{"/api/model/org%2Fone/v1/chat/completions", `{` + messages + `}`, 200, "up/slashed"},
		{"/api/model/assistant/v1/chat/completions", `{` + messages + `,"model":"vip"}`, 400, ""},
		{"/api/model/chat/completions", `{` + messages + `}`, 404, ""},
		{"/t/assistant/openai/v1/embeddings", `{"input":"hi"}`, 200, "up/old"},
		{"/t/assistant/v1/embeddings", `{"input":"hi"}`, 404, ""},
		{"/assistant/v1/chat/completions", `{` + messages + `}`, 200, "up/old"},
		{"/assistant/chat/completions", `{` + messages + `}`, 200, "up/old"},
		{"/assistant/x/chat/completions", `{` + messages + `}`, 404, ""},
	} {
		if strings.Contains(c.path, "%zz") {
			continue // no client sends it by a URL type; the parser is the server's
		}
		a := g.do(t, http.MethodPost, root+c.path, c.body)
		if got := a.header.Get("X-Sluice-Target"); a.status != c.status || got != c.target {
			t.Errorf("%s %s: status %d from %q, want %d from %q\n%s", c.path, c.body, a.status, got, c.status, c.target, a.body)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := w.Await(ctx, func(q wall.Request) bool { return q.Model == "old" && q.Body == `{"model":"old",`+messages+`}` }); err != nil {
		t.Errorf("no request came with the model of its path: %v", err)
	}
	if a := g.as("wrong").do(t, http.MethodPost, root+"/api/model/assistant/chat/completions", `{`+messages+`}`); a.status != http.StatusUnauthorized {
		t.Errorf("a wrong key gives %d", a.status)
	}
}

// TestShadow copies calls to a target that answers, fails and hangs, and to one that is not
// there. The caller's answers are as without.
func TestShadow(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	candidate, c := wall.Start(t)
	config := fmt.Sprintf(`
[[upstreams]]
name = "up"
base_url = %q
models = ["unused"]
list_models = false

[[upstreams]]
name = "candidate"
base_url = %q
models = ["unused"]
list_models = false

[[models]]
name = "assistant"
targets = [{ upstream = "up", model = "real" }]
shadow = { model = "next", percent = 100 }

[[models]]
name = "ruled"
targets = [{ upstream = "up", model = "real" }]

[[models]]
name = "next"
targets = [{ upstream = "candidate", model = "copy", price = { input = 1.0, output = 2.0 } }]

[[routes]]
name = "copy"
models = ["ruled"]
shadow = { model = "next" }
`, base, candidate) + adminTables
	w.Script("real", wall.Script{Tokens: 8})
	g := boot(t, config)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	copied := func(n int, match func(wall.Request) bool) {
		t.Helper()
		if _, err := c.Await(ctx, func(q wall.Request) bool { return int(q.ID) == n && match(q) }); err != nil {
			t.Fatalf("copy %d: %v", n, err)
		}
	}
	want := ""
	for i, script := range []wall.Script{{Tokens: 5}, {Status: 500}, {Headers: time.Hour}} {
		c.Script("copy", script)
		model := []string{"assistant", "ruled", "assistant"}[i]
		a := g.chat(t, model, askUsage)
		text := a.text[0]
		if a.status != http.StatusOK || a.header.Get("X-Sluice-Target") != "up/real" || !a.done || want != "" && text != want {
			t.Fatalf("beside %+v: %d %s", script, a.status, a.body)
		}
		want = text
		copied(i+1, func(q wall.Request) bool {
			return q.Model == "copy" && strings.Contains(q.Body, words) && (i == 2 || q.End != wall.Running)
		})
	}
	var rows struct {
		Data []struct {
			ID, Key, Model, Target, Transport, Outcome string
			Output                                     int64   `json:"output_tokens"`
			Cost                                       float64 `json:"cost_usd"`
		}
	}
	g.eventually(t, "the copies are in the ledger", func() bool {
		text := g.wantAdmin(t, http.StatusOK, http.MethodGet, "/admin/api/ledger?key=shadow", "", "Authorization", "Bearer "+adminTestToken)
		if err := json.Unmarshal([]byte(text), &rows); err != nil {
			t.Fatal(err)
		}
		return len(rows.Data) == 2
	})
	for _, r := range rows.Data {
		whole := r.Outcome == "ok"
		if r.Model != "next" || r.Target != "candidate/copy" || r.Transport != "shadow" || !strings.HasSuffix(r.ID, ".shadow") || whole != (r.Output == 5) || whole != (r.Cost > 0) {
			t.Errorf("%+v", r)
		}
	}
	began := time.Now()
	if code := g.Stop(); code != exitOK { // the third copy hangs
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the copy held up the end for %v", took)
	}
	copied(3, func(q wall.Request) bool { return q.End == wall.ClientGone })
}

// TestTargetPrice bills an answer by the price of where it came from.
func TestTargetPrice(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	w.Script("dear", wall.Script{Tokens: 10, Prompt: 100})
	w.Script("cheap", wall.Script{Tokens: 10, Prompt: 100})
	g := boot(t, fmt.Sprintf(`
[[upstreams]]
name = "up"
base_url = %q
models = ["unused"]
list_models = false

[[models]]
name = "assistant"
targets = [{ upstream = "up", model = "dear", version = "dear", price = { input = 10.0, output = 100.0 } }, { upstream = "up", model = "cheap", version = "cheap" }]

[[prices]]
models = ["assistant*"]
input = 1.0
output = 10.0
`, base)+adminTables)
	for version, cost := range map[string]string{"dear": "0.002", "cheap": "0.0002"} {
		if a := g.chat(t, "assistant@"+version, ""); a.status != http.StatusOK {
			t.Fatal(a.body)
		}
		g.eventually(t, "the cost of "+version, func() bool {
			text := g.wantAdmin(t, http.StatusOK, http.MethodGet, "/admin/api/ledger?model=assistant&target=up/"+version, "", "Authorization", "Bearer "+adminTestToken)
			return strings.Contains(text, `"cost_usd":`+cost+",")
		})
	}
}

// TestRouteExplain holds what the command line says against what is written down.
func TestRouteExplain(t *testing.T) {
	t.Chdir("testdata/routes")
	for name, args := range map[string][]string{
		"vip":     {"--model", "assistant", "--key", "vip"},
		"header":  {"--model", "default", "--header", "X-Experiment: b1"},
		"night":   {"--model", "assistant", "--at", "2026-11-21T23:30:00Z"},
		"banned":  {"--model", "assistant", "--key", "banned"},
		"body":    {"--model", "assistant", "--body", "tools.json"},
		"unknown": {"--model", "asistant"},
		"limited": {"--model", "vip", "--key", "narrow"},
	} {
		var out, errs bytes.Buffer
		args = append([]string{"--config", "config.toml", "route", "explain", "--at", "2026-11-21T12:00:00Z"}, args...)
		if code := run(t.Context(), args, nil, strings.NewReader(""), &out, &errs); code != exitOK {
			t.Errorf("%s: exit code %d\n%s", name, code, errs.String())
		}
		golden(t, name+".want", out.String())
	}
	for _, args := range [][]string{{}, {"--model", "m", "--header", "x"}, {"--model", "m", "--at", "now"}, {"--model", "m", "--body", "none.json"}} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"--config", "config.toml", "route", "explain"}, args...), nil, strings.NewReader(""), &out, &errs); code != exitUsage {
			t.Errorf("%v: exit code %d\n%s", args, code, errs.String())
		}
	}
}
