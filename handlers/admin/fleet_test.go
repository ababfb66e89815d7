package admin

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/ratelimit"
)

// someLimits are those of a real limiter.
type someLimits struct {
	*ratelimit.Memory
	rules *ratelimit.Rules
}

func (l someLimits) Rules() []*ratelimit.Rule                { return l.rules.All() }
func (l someLimits) Fullest(n int) ([]ratelimit.Level, bool) { return l.Memory.Fullest(n), n != 99 }
func (l someLimits) Caller(key string) (who auth.Principal, ok bool) {
	own := &ratelimit.Rule{ID: "own", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 7, Per: ratelimit.Day}
	return auth.Principal{Key: key, Org: "acme", Team: "red", Rules: []*ratelimit.Rule{own}}, key == "app"
}

func TestLimits(t *testing.T) {
	rules, err := ratelimit.NewRules([]ratelimit.Rule{
		{ID: "tpm", Scope: ratelimit.Org, Dim: ratelimit.Tokens, Amount: 1000, Per: ratelimit.Minute, Burst: 2000},
		{ID: "budget", Scope: ratelimit.Key, Dim: ratelimit.Money, Amount: 5_500_000_000, Per: ratelimit.CalendarMonth, Hard: true, OnTrouble: ratelimit.Closed, Only: []string{"app"}},
		{ID: "there", Scope: ratelimit.Provider, Dim: ratelimit.Requests, Amount: 10, Per: ratelimit.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: rules, Now: func() time.Time { return noon }})
	_, opt := someTraffic()
	opt.Limits = someLimits{m, rules}
	if _, err := m.Reserve(t.Context(), &ratelimit.Call{ID: "1", Who: ratelimit.Subject{Org: "acme", Key: "app"}, Want: ratelimit.Cost{Requests: 1, Input: 500, Money: 1e9}}); err != nil {
		t.Fatal(err)
	}
	if w := ask(t, opt, aViewer, "GET", "/limits", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"unit":"usd","amount":5.50,"per":"calendar_month","burst":5.50,"models":[],"only":["app"],"hard":true,"on_trouble":"closed"`) {
		t.Error(w.Body)
	}
	for range 2 { // looking changes nothing
		text := ask(t, opt, aViewer, "GET", "/limits/levels?key=app&team=red", "").Body.String()
		for _, want := range []string{
			`"id":"tpm","scope":"org","name":"acme","unit":"tokens","per":"minute","limit":2000,"remaining":1500,"used":500,"used_share":0.25,"reset_ms":30000}`,
			`"id":"budget","scope":"key","name":"app","key_name":"the app","unit":"usd","per":"calendar_month","limit":5.50,"remaining":4.50,"used":1.00`,
			`"id":"own","scope":"key","name":"app","key_name":"the app","unit":"requests","per":"day","limit":7,"remaining":7,"used":0,"used_share":0,"reset_ms":0}`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s is not in\n%s", want, text)
			}
		}
	}
	if text := ask(t, opt, aViewer, "GET", "/limits/fullest?limit=1", "").Body.String(); !strings.Contains(text, `"id":"tpm"`) || strings.Contains(text, "budget") {
		t.Error(text)
	}
	if text := ask(t, opt, aViewer, "GET", "/limits/levels?upstream=up", "").Body.String(); !strings.Contains(text, `"id":"there","scope":"provider","name":"up"`) || strings.Contains(text, "tpm") {
		t.Error(text)
	}
	got[envelope](t, ask(t, opt, aViewer, "GET", "/limits/fullest?limit=99", ""), 501)
	for query, param := range map[string]string{"key=none": "key", "key=app&org=other": "org", "key=app&user=x": "user", "upstream=u&key=app": "upstream"} {
		if e := got[envelope](t, ask(t, opt, aViewer, "GET", "/limits/levels?"+query, ""), 400); *e.Error.Param != param {
			t.Errorf("%s: %+v", query, e)
		}
	}
}

func TestTargets(t *testing.T) {
	_, opt := someTraffic()
	opt.Fleet = func(context.Context) Fleet {
		return Fleet{
			Upstreams: []Upstream{{Name: "a", Kind: "openai", URL: "https://a", MaxRunning: 3, Listed: []string{"m"}, ListedAt: noon}, {Name: "u", Kind: "ollama", ListError: "no route"}},
			Models: []Model{
				{Name: "m0", Declared: true, Balance: "p2c", Capabilities: []string{"chat"}, Targets: []Target{
					{Name: "a/m", Upstream: "a", Model: "m", Weight: 3, State: "open", Wait: 2 * time.Second, Calls: 4, ErrorRate: 0.5, P50: 40 * time.Millisecond, LastError: "no", LastErrorAt: noon, Check: &Check{At: noon, Took: time.Millisecond, Count: 2}},
					{Name: "u/m", Upstream: "u", Model: "m", State: "closed", Running: 2},
				}},
				{Name: "other", Targets: []Target{{Name: "u/other", Upstream: "u", State: "closed"}}},
			},
		}
	}
	all := got[fleetJSON](t, ask(t, opt, aViewer, "GET", "/targets", ""), 200)
	if len(all.Upstreams) != 2 || len(all.Models) != 2 || *all.Upstreams[0].MaxRunning != 3 || all.Upstreams[1].ListedAt != nil || all.Upstreams[1].ListError != "no route" {
		t.Fatalf("%+v", all)
	}
	a, u, other := all.Models[0].Targets[0], all.Models[0].Targets[1], all.Models[1].Targets[0]
	if a.State != "open" || a.Wait == nil || *a.ErrorRate != 0.5 || len(a.Errors) != recentErrors || a.Errors[0].Request != "old_3" || a.Errors[0].Status != 500 || a.Check == nil || a.LastUsed == nil {
		t.Errorf("%+v", a)
	}
	if u.ErrorRate != nil || u.P50 != nil || len(u.Errors) != 0 || u.LastUsed == nil || !u.LastUsed.Equal(noon.Add(time.Second)) || u.MaxRunning != nil || other.LastUsed != nil {
		t.Errorf("%+v, %+v", u, other)
	}
	some := got[fleetJSON](t, ask(t, opt, aViewer, "GET", "/targets?upstream=a", ""), 200)
	if len(some.Upstreams) != 1 || len(some.Models) != 1 || len(some.Models[0].Targets) != 1 {
		t.Errorf("%+v", some)
	}
}
