package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
	"sluice/ratelimit/ratelimittest/redistest"
)

// limitsFrame is what is told over WebSocket after an answer.
type limitsFrame struct {
	Requests, Tokens *struct {
		Limit, Remaining int
		Reset            int64 `json:"reset_ms"`
	}
}

func (c *socketClient) limits(t testing.TB) (f limitsFrame) {
	t.Helper()
	m := c.next(t)
	if m.Type != "limits" {
		t.Fatalf("got %s, want limits", m.text)
	}
	if err := json.Unmarshal([]byte(m.text), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestLimitWebSocket: lanes are held against limits as other answers are, and told of
// what is left after each.
func TestLimitWebSocket(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, limited(base, "[[limits]]\nid = \"l\"\nscope = \"key\"\nrequests_per_day = 3\ntokens_per_day = 10_000\nconcurrent = 1\n"))
	c := g.dial(t)
	c.create(t, "a", wallModel("ws1", ""), "")
	c.expect(t, "done", "a")
	f := c.limits(t)
	if f.Requests == nil || f.Requests.Limit != 3 || f.Requests.Remaining != 2 || f.Requests.Reset < 28_000_000 || f.Tokens == nil || f.Tokens.Remaining != 9981 {
		t.Errorf("%+v, %+v", f.Requests, f.Tokens)
	}
	c.create(t, "a", wallModel("ws2", "stall=5"), "")
	awaitCall(t, w, "ws2", func(q wall.Request) bool { return q.Tokens >= 5 })
	c.create(t, "b", wallModel("ws3", ""), "")
	e := c.expect(t, "error", "b")
	if e.Status != 429 || e.fault.Type != "requests" || e.fault.Code != "rate_limit_exceeded" || e.RetryAfter < 1 {
		t.Errorf("%s", e.text)
	}
	c.next(t) // the limits of what was refused
	c.cancel(t, "a")
	c.expect(t, "cancelled", "a")
	if f = c.limits(t); f.Requests.Remaining != 1 {
		t.Errorf("%+v", f.Requests)
	}
	c.create(t, "a", wallModel("ws4", ""), "")
	c.expect(t, "done", "a")
	if f = c.limits(t); f.Requests.Remaining != 0 {
		t.Errorf("%+v", f.Requests)
	}
	c.create(t, "a", wallModel("ws5", ""), "")
	if e = c.expect(t, "error", "a"); e.Status != 429 || e.RetryAfter < 20_000_000 {
		t.Errorf("%s", e.text)
	}
	if f = c.limits(t); f.Requests == nil || f.Requests.Remaining != 0 {
		t.Errorf("%+v", f)
	}
	for _, model := range []string{"ws3", "ws5"} {
		if n := calls(w, model); n != 0 {
			t.Errorf("%s was asked %d times", model, n)
		}
	}
	free := boot(t, limited(base, ""))
	d := free.dial(t)
	d.create(t, "a", wallModel("ws6", ""), "")
	d.expect(t, "done", "a")
	d.create(t, "a", wallModel("ws7", ""), "")
	d.expect(t, "done", "a") // and nothing about limits between
}

const tenants = `
[[limits]]
id = "per-key"
scope = "key"
requests_per_day = 2
[[limits]]
id = "per-team"
scope = "team"
requests_per_day = 3
[[limits]]
id = "per-org"
scope = "org"
requests_per_day = 4
[[keys]]
name = "a"
key = "sk-a"
org = "acme"
team = "red"
[[keys]]
name = "b"
key = "sk-b"
org = "acme"
team = "red"
[[keys]]
name = "c"
key = "sk-c"
org = "acme"
team = "blue"
limits = [{ requests_per_hour = 1, models = ["gpt-*"] }, { requests_per_day = 1, scope = "key_model" }]
[[keys]]
name = "d"
key = "sk-d"
org = "other"
team = "red"
`

// TestLimitScopes: each limit counts whom it is for, and the tightest decides.
func TestLimitScopes(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, limited(base, tenants))
	for i, c := range []struct {
		key   string
		limit string // that denies
	}{
		{"sk-a", ""}, {"sk-a", ""}, {"sk-a", "per-key"}, // its own
		{"sk-b", ""}, {"sk-b", "per-team"}, // the team's three are gone
		{"sk-c", ""},                                    // another team, the last of the organisation
		{"sk-c", "key.requests_per_day.2"},              // what the key carries
		{"sk-d", ""}, {"sk-d", ""}, {"sk-d", "per-key"}, // another organisation with a team of that name
	} {
		g.Key = c.key
		a := g.chat(t, wallModel("scopes", ""), "")
		denied := ""
		if a.status == http.StatusTooManyRequests {
			denied, _, _ = strings.Cut(strings.TrimPrefix(readError(t, a.body).Message, `Rate limit reached: "`), `"`)
		}
		if denied != c.limit && !(c.limit == "key.requests_per_day.2" && denied == "per-org") {
			t.Errorf("call %d: denied by %q, want %q: %s", i, denied, c.limit, a.body[:min(len(a.body), 300)])
		}
	}
	g.Key = "sk-a"
	if u := g.usage(t, ""); u.Key != "a" || len(u.Data) != 1 || u.Data[0].Calls != 2 {
		t.Errorf("a caller is told of others, or not of itself: %+v", u)
	}
}

// TestUsageEndpoint asks in every way, and in some that are none.
func TestUsageEndpoint(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, limited(base, dailyLimits+"[[prices]]\nmodels = [\"*\"]\ninput = 1\noutput = 2.5\n"))
	for _, model := range []string{"u1", "u1", "u2"} {
		g.chat(t, wallModel(model, ""), "")
	}
	today := time.Now().UTC()
	for query, groups := range map[string]int{
		"": 2, "?group_by=model": 2, "?group_by=day": 1, "?group_by=hour": 1, "?group_by=model,hour": 2,
		"?start=" + today.Format(time.DateOnly): 2, "?end=" + today.Add(-48*time.Hour).Format(time.RFC3339): 0,
		"?start=" + fmt.Sprint(today.Unix()-3600) + "&end=" + fmt.Sprint(today.Unix()+3600): 2,
		"?model=" + wallModel("u1", ""): 1, "?model=none": 0,
	} {
		u := g.usage(t, query)
		var calls, in, out int64
		for _, d := range u.Data {
			calls, in, out = calls+d.Calls, in+d.Input, out+d.Output
		}
		if len(u.Data) != groups || groups == 2 && (calls != 3 || in != 9 || out != 48) {
			t.Errorf("%s: %+v", query, u.Data)
		}
		if groups == 2 && query == "?group_by=model" && string(u.Data[0].Cost) != "0.000086" {
			t.Errorf("two answers cost %s", u.Data[0].Cost)
		}
	}
	for _, query := range []string{"?group_by=key", "?group_by=hour,day", "?start=yesterday", "?end=-5", "?start=2026-02-01&end=2026-01-01", "?start=2020-01-01", "?group_by=hour&start=2026-01-01", "?key=b", "?group_by="} {
		a := g.do(t, http.MethodGet, "/usage"+query, "")
		if query == "?group_by=" {
			continue // is the usual grouping
		}
		if e := readError(t, a.body); a.status != http.StatusBadRequest || e.Param == "" {
			t.Errorf("%s: %d, %s", query, a.status, a.body)
		}
	}
	if a := g.do(t, http.MethodGet, "/usage", "", "Authorization: "); a.status != http.StatusUnauthorized {
		t.Errorf("without a key: %d", a.status)
	}
	if a := g.do(t, http.MethodGet, strings.TrimSuffix(g.URL, "/v1")+"/usage", ""); a.status != http.StatusOK {
		t.Errorf("without the version: %d", a.status)
	}
}

func overRedis(addr, more string) string {
	return fmt.Sprintf("[redis]\nurl = \"redis://%s\"\ntimeout = \"500ms\"\n", addr) + more
}

// TestLimitReplicas: two gateways over one Redis admit together what one would.
func TestLimitReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	base, w := wall.Start(t)
	const limits = "[[limits]]\nid = \"l\"\nscope = \"key\"\nrequests_per_day = 40\ntokens_per_day = 100_000\nconcurrent = 50\n"
	replicas := []*gatewayUnderTest{boot(t, limited(base, overRedis(server.Addr, limits))), boot(t, limited(base, overRedis(server.Addr, limits)))}
	begun := time.Now()
	var passed, denied, other atomic.Int64
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			for j := range 10 {
				a := replicas[(i+j)%2].chat(t, wallModel("shared", ""), "")
				switch a.status {
				case http.StatusOK:
					passed.Add(1)
				case http.StatusTooManyRequests:
					denied.Add(1)
				default:
					other.Add(1)
				}
			}
		})
	}
	all.Wait()
	if passed.Load() != 40 || denied.Load() != 80 || calls(w, "shared") != 40 {
		t.Errorf("%d passed, %d denied, %d failed, the upstream was asked %d times", passed.Load(), denied.Load(), other.Load(), calls(w, "shared"))
	}
	for _, g := range replicas {
		requests, text := g.left(t, "l.requests_per_day"), g.left(t, "l.tokens_per_day")
		tokens, _ := strconv.Atoi(text)
		flowed := int(time.Since(begun).Seconds()*100_000/86_400) + 1
		if used := 40 * 19; requests != "0" || tokens < 100_000-used || tokens > 100_000-used+flowed {
			t.Errorf("%s requests and %s tokens are left", requests, text)
		}
		if l := g.left(t, "l.concurrent"); l != "50" {
			t.Errorf("%s places are left", l)
		}
		if d := g.usage(t, "?group_by=day").Data; len(d) != 1 || d[0].Calls != 40 || d[0].Input != 120 || d[0].Output != 640 {
			t.Errorf("%+v", d)
		}
		if n := g.metric(t, `gateway_redis_duration_seconds_count{operation="reserve",outcome="ok"}`); n == 0 {
			t.Error("no question to Redis is counted")
		}
	}
}

// TestLimitRedisGone: without Redis the policies decide, nothing is lost, and soon after
// it is back all is as before.
func TestLimitRedisGone(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t, "--appendonly", "yes", "--appendfsync", "always")
	base, _ := wall.Start(t)
	g := boot(t, limited(base, overRedis(server.Addr,
		"[[limits]]\nid = \"l\"\nscope = \"key\"\nrequests_per_day = 100\n[[limits]]\nid = \"strict\"\nscope = \"key\"\nmodels = [\"*strict*\"]\nrequests_per_day = 100\non_trouble = \"closed\"\n")))
	ask := func(model string) answer { return g.chat(t, wallModel(model, ""), "") }
	if a := ask("before"); a.status != http.StatusOK {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	server.Kill()
	for range 5 {
		if a := ask("during"); a.status != http.StatusOK {
			t.Errorf("%d: %s", a.status, a.body)
		}
	}
	a := ask("strict")
	if e := readError(t, a.body); a.status != http.StatusServiceUnavailable || e.Code != "quota_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d: %s", a.status, a.body)
	}
	if n := g.metric(t, "gateway_quota_degraded"); n != 1 {
		t.Errorf("the gauge of trouble says %v", n)
	}
	server.Start()
	back := time.Now()
	g.eventually(t, "Redis is back", func() bool {
		return g.metric(t, "gateway_quota_degraded") == 0 && g.metric(t, "gateway_settlements_waiting") == 0
	})
	if took := time.Since(back); took > 5*time.Second {
		t.Errorf("it took %v to be steady", took)
	}
	g.eventually(t, "all calls are recorded", func() bool {
		u := g.usage(t, "?group_by=day")
		return len(u.Data) == 1 && u.Data[0].Calls == 6 && u.Data[0].Output == 6*16
	})
}

// TestLimitProvider: a limit of an upstream sends callers to another one, and tells them
// to come back when there is none.
func TestLimitProvider(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, fmt.Sprintf(`
[[limits]]
id = "upstream"
scope = "provider"
only = ["small"]
requests_per_hour = 2
[[models]]
name = "both"
targets = [{ upstream = "small", model = "wall:key=small", weight = 1_000_000 }, { upstream = "large", model = "wall:key=large", weight = 1 }]
[[models]]
name = "one"
targets = [{ upstream = "small", model = "wall:key=small" }]
[[upstreams]]
name = "small"
base_url = %q
[[upstreams]]
name = "large"
base_url = %q
`, base, base))
	for range 5 {
		if a := g.chat(t, "both", ""); a.status != http.StatusOK {
			t.Errorf("%d: %s", a.status, a.body)
		}
	}
	if small, large := calls(w, "small"), calls(w, "large"); small != 2 || large != 3 {
		t.Errorf("asked: %d and %d times", small, large)
	}
	a := g.chat(t, "one", "")
	if e := readError(t, a.body); a.status != http.StatusTooManyRequests || e.Code != "upstream_limit_reached" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d: %s", a.status, a.body)
	}
	if u := g.usage(t, "?group_by=day"); len(u.Data) != 1 || u.Data[0].Calls != 6 || u.Data[0].Requests != 5 || len(u.Limits) != 0 {
		t.Errorf("%+v", u)
	}
}

// TestLimitTicket: who comes with a ticket has the limits of the key behind it.
func TestLimitTicket(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, limited(base, "[[keys]]\nname = \"page\"\nkey = \"sk-test\"\nlimits = [{ requests_per_day = 1 }]\n"))
	c := g.dial(t, "Authorization: ", "Sec-WebSocket-Protocol: sluice.v1", "Sec-WebSocket-Protocol: sluice-ticket."+g.ticket(t))
	c.create(t, "a", wallModel("t1", ""), "")
	c.expect(t, "done", "a")
	if f := c.limits(t); f.Requests == nil || f.Requests.Remaining != 0 {
		t.Errorf("%+v", f)
	}
	c.create(t, "a", wallModel("t2", ""), "")
	if e := c.expect(t, "error", "a"); e.fault.Code != "rate_limit_exceeded" || !strings.Contains(e.fault.Message, `"key.requests_per_day"`) {
		t.Errorf("%s", e.text)
	}
}

// TestLimitRedisForms reaches a Cluster, and a master by its Sentinel.
func TestLimitRedisForms(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	for name, section := range map[string]func(*testing.T) string{
		"cluster": func(t *testing.T) string { return fmt.Sprintf("addresses = [%q]", redistest.Cluster(t).Addrs()[1]) },
		"sentinel": func(t *testing.T) string {
			w := redistest.Sentinel(t)
			return fmt.Sprintf("addresses = [%q]\nmaster = %q", w.Sentinel.Addr, w.Name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := boot(t, limited(base, "[redis]\ntimeout = \"500ms\"\n"+section(t)+"\n"+dailyLimits+"[[limits]]\nid = \"all\"\nscope = \"global\"\nrequests_per_day = 2\n"))
			for i := range 3 {
				if a := g.chat(t, wallModel("form", ""), ""); (a.status == http.StatusOK) != (i < 2) {
					t.Errorf("call %d: %d, %s", i, a.status, a.body[:min(len(a.body), 300)])
				}
			}
			if left := g.left(t, "day.requests_per_day"); left != "98" {
				t.Errorf("%s is left", left)
			}
			if u := g.usage(t, "?group_by=model"); len(u.Data) != 1 || u.Data[0].Calls != 2 || u.Data[0].Output != 32 {
				t.Errorf("%+v", u.Data)
			}
			if n := g.metric(t, "gateway_quota_degraded"); n != 0 {
				t.Error("it is not steady")
			}
		})
	}
}
