package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// readAdmin asks the admin API with the tests' token.
func readAdmin[T any](t testing.TB, g *gatewayUnderTest, path string) (v T) {
	t.Helper()
	text := g.wantAdmin(t, http.StatusOK, http.MethodGet, "/admin/api"+path, "", "Authorization", "Bearer "+adminTestToken)
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// adminRow is what streams, requests and rows of the ledger have in common.
type adminRow struct {
	ID, State, Outcome, Model, Target, Transport, Key, Node, Client string
	Stream                                                          bool
	Status                                                          int
	Output                                                          int64   `json:"output_tokens"`
	Input                                                           *int64  `json:"input_tokens"`
	Requests                                                        int64   `json:"requests"`
	Cost                                                            float64 `json:"cost_usd"`
	Tries                                                           []struct {
		Target, Outcome, Message string
		Status                   *int
	}
}

type adminPage struct {
	Data    []adminRow
	Next    string
	Running int
}

// running waits until the answer of a model runs and has brought so many tokens.
func (g *gatewayUnderTest) running(t testing.TB, model string, tokens int64) (row adminRow) {
	t.Helper()
	g.eventually(t, "the answer is not listed", func() bool {
		page := readAdmin[adminPage](t, g, "/streams?model="+url.QueryEscape(model))
		if len(page.Data) == 1 {
			row = page.Data[0]
		}
		return len(page.Data) == 1 && row.Output >= tokens
	})
	return row
}

// endStream ends an answer by the admin API, and proves that its upstream was left in time.
func (g *gatewayUnderTest) endStream(t testing.TB, w *wall.Wall, id, key string) {
	t.Helper()
	at := time.Now()
	g.wantAdmin(t, http.StatusAccepted, http.MethodDelete, "/admin/api/streams/"+id, "", "Authorization", "Bearer "+adminTestToken)
	q := awaitCall(t, w, key, func(q wall.Request) bool { return q.End != wall.Running })
	if after := q.Gone.Sub(at); q.End != wall.ClientGone || after > soon {
		t.Errorf("the upstream ended with %q, and knew after %v", q.End, after)
	}
}

// killed holds what is remembered of a killed answer against what the client got.
func (g *gatewayUnderTest) killed(t testing.TB, id string, requests int64, tokens bool) {
	t.Helper()
	var row adminRow
	for path, what := range map[string]string{"/requests?outcome=killed&id=": "remembered", "/ledger?outcome=killed&id=": "booked"} {
		g.eventually(t, "the end is not "+what, func() bool {
			page := readAdmin[adminPage](t, g, path+id)
			if len(page.Data) == 1 {
				row = page.Data[0]
			}
			return len(page.Data) == 1
		})
		if row.Outcome != "killed" || tokens != (row.Output > 0) || tokens != (row.Cost > 0) || what == "booked" && row.Requests != requests {
			t.Errorf("%s as %+v", what, row)
		}
	}
	one := readAdmin[adminRow](t, g, "/requests/"+id)
	if len(one.Tries) != 1 || one.Tries[0].Outcome != "killed" || !strings.HasPrefix(one.Tries[0].Target, "wall/") {
		t.Errorf("its attempts are %+v", one.Tries)
	}
	g.wantAdmin(t, http.StatusNotFound, http.MethodDelete, "/admin/api/streams/"+id, "", "Authorization", "Bearer "+adminTestToken)
}

const killPrices = "\n[[prices]]\nmodels = [\"*\"]\ninput = \"1\"\noutput = \"2\"\n"

// TestKilledStreams: an operator sees answers of each kind and ends them: the clients are told
// the truth, the upstream is left, and both lists and the audit log know it.
func TestKilledStreams(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, adminTables+killPrices))

	t.Run("each", func(t *testing.T) {
		t.Run("SSE", func(t *testing.T) {
			t.Parallel()
			model := wallModel("kill-sse", "tokens=100000,delay=5ms")
			res := g.openStream(t.Context(), t, chatBody(model, true, ""))
			defer func() { _ = res.Body.Close() }()
			row := g.running(t, model, 5)
			if row.State != "streaming" || row.Transport != "sse" || !row.Stream || row.Key != "test" || row.Target != "wall/"+model || row.Client != "127.0.0.1" || row.Node == "" {
				t.Errorf("listed as %+v", row)
			}
			g.endStream(t, w, row.ID, "kill-sse")
			text, err := io.ReadAll(res.Body)
			if err != nil || !strings.HasSuffix(strings.TrimSpace(string(text)), `"code":"ended_by_operator"}}`) || strings.Contains(string(text), "[DONE]") {
				t.Errorf("%v, %.300q", err, text[max(0, len(text)-300):])
			}
			g.killed(t, row.ID, 1, true)
		})

		for name, script := range map[string]string{"before headers": "headers=1m", "half a body": "stall=5"} {
			t.Run("not streamed, "+name, func(t *testing.T) {
				t.Parallel()
				key := "kill-whole-" + strings.ReplaceAll(name, " ", "-")
				model := wallModel(key, script)
				got := make(chan answer, 1)
				go func() { got <- g.do(t, http.MethodPost, chatPath, chatBody(model, false, "")) }()
				awaitCall(t, w, key, arrived)
				row := g.running(t, model, 0)
				if row.Transport != "http" || row.Stream {
					t.Errorf("listed as %+v", row)
				}
				g.endStream(t, w, row.ID, key)
				a := <-got
				if e := a.refused(t, http.StatusServiceUnavailable); e.Code != "ended_by_operator" || a.header.Get("X-Should-Retry") != "false" {
					t.Errorf("%+v %v", e, a.header)
				}
				g.killed(t, row.ID, 0, false)
			})
		}

		t.Run("while its client does not read", func(t *testing.T) {
			t.Parallel()
			conn := rawStream(t, g, 4<<10, chatBody(wallModel("kill-blocked", flood), true, ""))
			defer func() { _ = conn.Close() }()
			blockedCall(t, w, "kill-blocked")
			var row adminRow
			g.eventually(t, "the answer is not seen to be blocked", func() bool {
				row = g.running(t, wallModel("kill-blocked", flood), 1)
				return row.State == "blocked"
			})
			g.endStream(t, w, row.ID, "kill-blocked")
			g.killed(t, row.ID, 1, true)
		})

		t.Run("WebSocket", func(t *testing.T) {
			t.Parallel()
			c := g.dial(t)
			model, other := wallModel("kill-ws", "tokens=100000,delay=5ms"), wallModel("spare-ws", "tokens=40,delay=5ms")
			c.create(t, "doomed", model, "")
			row := g.running(t, model, 5)
			if row.Transport != "ws" {
				t.Errorf("listed as %+v", row)
			}
			c.create(t, "spared", other, "")
			g.endStream(t, w, row.ID, "kill-ws")
			lanes := map[string]laneGot{}
			for len(lanes) < 2 {
				m := c.next(t)
				if m.Type == "error" && m.Stream == "doomed" && (!strings.Contains(m.text, `"code":"ended_by_operator"`) || !strings.Contains(m.text, `"status":503`)) {
					t.Errorf("told %s", m.text)
				}
				if m.Type == "error" || m.Type == "done" {
					lanes[m.Stream+" "+m.Type] = laneGot{}
				}
			}
			if _, ok := lanes["doomed error"]; !ok {
				t.Errorf("%v", lanes)
			}
			if _, ok := lanes["spared done"]; !ok {
				t.Errorf("%v", lanes)
			}
			g.killed(t, row.ID, 1, true)
		})
	})

	audit := readAdmin[struct {
		Data []struct{ Action, On, Who string }
	}](t, g, "/audit")
	kills := 0
	for _, e := range audit.Data {
		if e.Action == "DELETE /streams/{id}" && strings.HasPrefix(e.On, "stream req_") && e.Who == "tests" {
			kills++
		}
	}
	if kills != 5 {
		t.Errorf("the audit log has %d kills: %+v", kills, audit.Data)
	}
	usage := readAdmin[struct {
		Total adminRow
		Data  []struct {
			Upstream string
			Calls    int
		}
	}](t, g, "/usage?group_by=upstream")
	if len(usage.Data) == 0 || usage.Data[0].Upstream != "wall" || usage.Data[0].Calls < 4 || usage.Total.Cost == 0 {
		t.Errorf("%+v", usage)
	}
}

// TestKilledClients kills the answers of the packages openai and ws.
func TestKilledClients(t *testing.T) {
	t.Parallel()
	openai, ws := nodeClient("openai.mjs")(t), nodeClient("ws.mjs")(t)
	base, w := wall.Start(t)
	g := boot(t, overWall(base, adminTables))
	killAll := make(chan struct{})
	go func() {
		defer close(killAll)
		for _, key := range []string{"npm-sse", "npm-ws"} {
			row := g.running(t, wallModel(key, "tokens=100000,delay=5ms"), 3)
			g.endStream(t, w, row.ID, key)
		}
	}()
	type report struct {
		Name   string
		Text   []string
		Finish []string
		Frames []string
		Error  *struct{ Kind, Code, Message string }
	}
	reports := runTasks[report](t, openai, []map[string]any{{"name": "sse", "op": "stream", "base_url": g.URL, "api_key": g.Key, "model": wallModel("npm-sse", "tokens=100000,delay=5ms"), "prompt": words}})
	if len(reports) != 1 || reports[0].Error == nil || reports[0].Error.Code != "ended_by_operator" || len(reports[0].Text) == 0 || len(reports[0].Finish) > 0 {
		t.Errorf("openai: %+v", reports)
	}
	create := `{"type":"create","stream_id":"a","request":` + chatBody(wallModel("npm-ws", "tokens=100000,delay=5ms"), true, "") + `}`
	reports = runTasks[report](t, ws, []map[string]any{{"name": "ws", "op": "frames", "url": g.wsURL(chatPath), "headers": map[string]string{"Authorization": "Bearer " + g.Key}, "send": []string{create}, "until": 1}})
	if len(reports) != 1 || reports[0].Error != nil || len(reports[0].Frames) < 4 {
		t.Fatalf("ws: %+v", reports)
	}
	told := 0
	for _, text := range reports[0].Frames {
		if strings.Contains(text, `"type":"error"`) && strings.Contains(text, "ended_by_operator") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("ws was told %d times: %q", told, reports[0].Frames[len(reports[0].Frames)-1])
	}
	<-killAll
}

// TestAttemptsAreListed: a failed attempt stands in the waterfall before the one that brought
// the answer, and targets tell their errors.
func TestAttemptsAreListed(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, adminTables+twoTargets(base))
	a := g.chat(t, "both", "")
	if a.status != http.StatusOK {
		t.Fatal(a.body)
	}
	id := a.header.Get("X-Request-Id")
	var one adminRow
	g.eventually(t, "the answer is not remembered", func() bool {
		answer, text := g.askAdmin(t, http.MethodGet, "/admin/api/requests/"+id, "", "Authorization", "Bearer "+adminTestToken)
		return answer.StatusCode == http.StatusOK && json.Unmarshal([]byte(text), &one) == nil
	})
	if len(one.Tries) != 2 || one.Tries[0].Target != "bad/wall:status=500" || one.Tries[0].Outcome != "upstream_error" || one.Tries[0].Status == nil || *one.Tries[0].Status != 500 ||
		one.Tries[1].Target != "good/wall" || one.Tries[1].Outcome != "ok" {
		t.Errorf("%+v", one.Tries)
	}
	fleet := readAdmin[struct {
		Upstreams []struct{ Name, Kind, URL string }
		Models    []struct {
			Name    string
			Targets []struct {
				Name, State string
				LastUsed    *time.Time `json:"last_used"`
				Errors      []struct {
					Request string `json:"request_id"`
				} `json:"recent_errors"`
			}
		}
	}](t, g, "/targets?model=both")
	if len(fleet.Models) != 1 || len(fleet.Models[0].Targets) != 2 || strings.Contains(fleet.Upstreams[0].URL, "secret") {
		t.Fatalf("%+v", fleet)
	}
	for _, target := range fleet.Models[0].Targets {
		if target.LastUsed == nil || strings.HasPrefix(target.Name, "bad/") != (len(target.Errors) == 1) {
			t.Errorf("%+v", target)
		}
	}
}

// twoTargets are a pool whose first target always fails.
func twoTargets(base string) string {
	return `
[[upstreams]]
name = "bad"
base_url = "` + base + `"
models = ["never-*"]
list_models = false
[[upstreams]]
name = "good"
base_url = "` + base + `"
models = ["never-*"]
list_models = false
[[models]]
name = "both"
targets = [{ upstream = "bad", model = "wall:status=500", weight = 1 }, { upstream = "good", model = "wall", weight = 0 }]
`
}

// TestAdminCommand asks the API of a gateway that runs over the same data directory, and one
// at a URL.
func TestAdminCommand(t *testing.T) {
	t.Parallel()
	args := bootArgs(t, adminTables+"[data]\ndir = '"+t.TempDir()+"'\n[demo]\nenabled = true\n")
	g := bootWith(t, args)
	command := func(environ []string, args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := run(context.Background(), args, environ, strings.NewReader(""), &out, &errs)
		return code, out.String(), errs.String()
	}
	config := []string{"--config", args[1]}
	if code, out, errs := command(nil, append(config, "admin", "get", "/streams")...); code != 0 || !strings.Contains(out, `"running": 0`) {
		t.Error(code, out, errs)
	}
	if code, out, errs := command([]string{envAdminToken + "=" + adminTestToken}, "admin", "get", "targets", "--admin-url", g.AdminURL); code != 0 || !strings.Contains(out, `"demo/demo-echo"`) && !strings.Contains(out, `"upstreams"`) {
		t.Error(code, out, errs)
	}
	if code, out, errs := command(nil, append(config, "admin", "get", "/usage?format=csv")...); code != 0 || !strings.HasPrefix(out, "start,") {
		t.Error(code, out, errs)
	}
	if code, _, errs := command(nil, append(config, "admin", "delete", "/streams/req_none")...); code != exitFailure || !strings.Contains(errs, "req_none") {
		t.Error(code, errs)
	}
	if code, _, errs := command(nil, "admin", "get", "/streams", "--set", "data.dir=", "--config", os.DevNull); code == 0 {
		t.Error(code, errs)
	}
}
