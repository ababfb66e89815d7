package router

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/providers"
)

func someNames() *Catalog {
	pool := func(model string, aliases ...string) *Pool {
		p := &Pool{Model: model, Aliases: aliases}
		for _, v := range []string{"v1", "v2"} {
			p.Targets = append(p.Targets, &Target{Name: model + "/" + v, Version: v, Weight: 1})
		}
		return p
	}
	return NewCatalog([]*Pool{pool("assistant", "default"), pool("big")}, nil, time.Second, time.Second)
}

func parsed(t testing.TB, model, more string) *providers.Request {
	t.Helper()
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hi"}]%s}`, model, more)
	r, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ptr[T any](v T) *T { return &v }

func TestRules(t *testing.T) {
	toBig := Then{Model: "big"}
	night := Hours{From: 22 * 60, Until: 6 * 60}
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC) } // the 21st is a Saturday
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		when  When
		then  Then
		model string
		more  string
		hints providers.Hints
		now   time.Time
		want  providers.Route
	}{
		{"all", When{}, toBig, "assistant", "", providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"model", When{Models: []string{"assistant"}}, toBig, "assistant", "", providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"pattern", When{Models: []string{"ass*nt"}}, toBig, "assistant", "", providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"alias is the model", When{Models: []string{"assistant"}}, toBig, "default", "", providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"version is the model", When{Models: []string{"assistant"}}, toBig, "default@v2", "", providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"the model is not its alias", When{Models: []string{"default"}}, toBig, "assistant", "", providers.Hints{}, at(21, 12, 0), providers.Route{}},
		{"other model", When{Models: []string{"assistant"}}, toBig, "assistants", "", providers.Hints{}, at(21, 12, 0), providers.Route{}},
		{"version", When{}, Then{Version: "v2"}, "assistant", "", providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Version: "v2"}},
		{"own version", When{}, Then{Version: "v2"}, "assistant@v1", "", providers.Hints{}, at(21, 12, 0), providers.Route{}},
		{"own version by header", When{}, Then{Version: "v2"}, "assistant", "", providers.Hints{Version: "v1"}, at(21, 12, 0), providers.Route{}},
		{"version of another", When{}, Then{Model: "big", Version: "v2"}, "assistant@v1", "", providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big", Version: "v2"}},
		{"tier", When{}, Then{Tier: ptr(0)}, "assistant", "", providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Tier: 1}},
		{"group", When{Groups: []string{"vip", "x*"}}, toBig, "assistant", "", providers.Hints{Groups: []string{"a", "vip"}}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"no group", When{Groups: []string{"vip"}}, toBig, "assistant", "", providers.Hints{}, at(21, 12, 0), providers.Route{}},
		{"key", When{Keys: []string{"app"}}, toBig, "assistant", "", providers.Hints{Key: "app"}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"other key", When{Keys: []string{"app"}}, toBig, "assistant", "", providers.Hints{Key: "apps"}, at(21, 12, 0), providers.Route{}},
		{"org", When{Orgs: []string{"acme"}}, toBig, "assistant", "", providers.Hints{Org: "acme"}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"no org", When{Orgs: []string{"acme"}}, toBig, "assistant", "", providers.Hints{}, at(21, 12, 0), providers.Route{}},
		{"team of any org", When{Teams: []string{"dev"}}, toBig, "assistant", "", providers.Hints{Team: "acme/dev"}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"team of one", When{Teams: []string{"acme/dev"}}, toBig, "assistant", "", providers.Hints{Team: "evil/dev"}, at(21, 12, 0), providers.Route{}},
		{"header", When{Header: []HeaderIs{{"x-experiment", []string{"b*"}}}}, toBig, "assistant", "", providers.Hints{Header: http.Header{"X-Experiment": {"a", "b2"}}}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"no header", When{Header: []HeaderIs{{"x-experiment", []string{"*"}}}}, toBig, "assistant", "", providers.Hints{}, at(21, 12, 0), providers.Route{}},
		{"needs", When{Needs: providers.Tools}, toBig, "assistant", `,"tools":[{"type":"function"}]`, providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"needs more", When{Needs: providers.Tools | providers.Vision}, toBig, "assistant", `,"tools":[{"type":"function"}]`, providers.Hints{}, at(21, 12, 0), providers.Route{}},
		{"stream", When{Stream: ptr(true)}, toBig, "assistant", `,"stream":true`, providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"whole", When{Stream: ptr(false)}, toBig, "assistant", `,"stream":true`, providers.Hints{}, at(21, 12, 0), providers.Route{}},
		{"long prompt", When{PromptOver: 100}, toBig, "assistant", `,"tools":["` + strings.Repeat("x", 400) + `"]`, providers.Hints{}, at(21, 12, 0), providers.Route{Rule: "r", Model: "big"}},
		{"short prompt", When{PromptOver: 100}, toBig, "assistant", "", providers.Hints{}, at(21, 12, 0), providers.Route{}},
		{"evening", When{Hours: night}, toBig, "assistant", "", providers.Hints{}, at(21, 22, 0), providers.Route{Rule: "r", Model: "big"}},
		{"morning", When{Hours: night}, toBig, "assistant", "", providers.Hints{}, at(22, 5, 59), providers.Route{Rule: "r", Model: "big"}},
		{"day", When{Hours: night}, toBig, "assistant", "", providers.Hints{}, at(21, 6, 0), providers.Route{}},
		{"night that began on Saturday", When{Hours: Hours{Days: 1 << time.Saturday, From: 22 * 60, Until: 6 * 60}}, toBig, "assistant", "", providers.Hints{}, at(22, 3, 0), providers.Route{Rule: "r", Model: "big"}},
		{"night that began on Friday", When{Hours: Hours{Days: 1 << time.Saturday, From: 22 * 60, Until: 6 * 60}}, toBig, "assistant", "", providers.Hints{}, at(21, 3, 0), providers.Route{}},
		{"weekday", When{Hours: Hours{Days: 1<<time.Monday | 1<<time.Saturday}}, toBig, "assistant", "", providers.Hints{}, at(21, 3, 0), providers.Route{Rule: "r", Model: "big"}},
		{"zone", When{Hours: Hours{From: 23 * 60, Until: 24*60 - 1, Zone: berlin}}, toBig, "assistant", "", providers.Hints{}, at(21, 22, 30), providers.Route{Rule: "r", Model: "big"}},
		{"nobody", When{Share: ptr(0.0)}, toBig, "assistant", "", providers.Hints{User: "u"}, at(21, 3, 0), providers.Route{}},
		{"shadow alone does not decide", When{}, Then{Shadow: Shadow{"big", 100}}, "assistant", "", providers.Hints{}, at(21, 3, 0), providers.Route{Shadow: "big"}},
	} {
		req := parsed(t, c.model, c.more)
		req.Hints = c.hints
		err := NewRules(someNames(), []Rule{{"r", c.when, c.then}}).At(func() time.Time { return c.now }).Apply(req)
		if err != nil || req.Route != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, req.Route, err, c.want)
		}
	}
}

func TestRulesInOrder(t *testing.T) {
	rules := NewRules(someNames(), []Rule{
		{"copy", When{}, Then{Shadow: Shadow{"big", 100}}},
		{"stop", When{Groups: []string{"banned"}}, Then{Refuse: "Ask the desk."}},
		{"vip", When{Groups: []string{"vip"}}, Then{Model: "big"}},
		{"rest", When{}, Then{Version: "v1"}},
	})
	for _, c := range []struct {
		groups []string
		want   providers.Route
	}{
		{[]string{"vip"}, providers.Route{Rule: "vip", Model: "big", Shadow: "big"}},
		{[]string{"vip", "banned"}, providers.Route{Rule: "stop"}},
		{nil, providers.Route{Rule: "rest", Version: "v1", Shadow: "big"}},
	} {
		req := parsed(t, "assistant", "")
		req.Hints.Groups = c.groups
		err := rules.Apply(req)
		if req.Route != c.want {
			t.Errorf("%v: %+v, want %+v", c.groups, req.Route, c.want)
		}
		if e := providers.AsError(err); (e != nil) != (c.want.Rule == "stop") || e != nil && (e.Kind != providers.Forbidden || e.Message != "Ask the desk.") {
			t.Errorf("%v: %v", c.groups, err)
		}
	}
}

// TestShare gives 10,000 users their side, and asks again.
func TestShare(t *testing.T) {
	const users = 10_000
	side := func(rules *Rules, user string) bool {
		req := &providers.Request{Model: "assistant", Hints: providers.Hints{User: user, Session: user + "s"}}
		if err := rules.Apply(req); err != nil {
			t.Fatal(err)
		}
		return req.Route.Model != ""
	}
	rule := func(name string, share float64) *Rules {
		return NewRules(someNames(), []Rule{{name, When{Share: &share}, Then{Model: "big"}}})
	}
	for _, share := range []float64{0.01, 0.05, 0.5, 0.9} {
		one, again, more, other := rule("a", share), rule("a", share), rule("a", min(share+0.05, 1)), rule("b", share)
		in, both := 0, 0
		for i := range users {
			user := fmt.Sprintf("org/user-%d", i)
			is := side(one, user)
			if is {
				in++
			}
			if side(again, user) != is || side(one, user) != is {
				t.Fatalf("%s changes sides", user)
			}
			if is && !side(more, user) {
				t.Fatalf("%s is out when the share grows", user)
			}
			if is && side(other, user) {
				both++
			}
		}
		if got := float64(in) / users; math.Abs(got-share) > 0.01 {
			t.Errorf("share %g: %g", share, got)
		}
		if got := float64(both) / users; math.Abs(got-share*share) > 0.015 { // another rule takes others
			t.Errorf("share %g: %g are in the share of two rules", share, got)
		}
	}
}

func TestPer(t *testing.T) {
	h := &providers.Hints{User: "u", Key: "k", Session: "s"}
	if PerUser.of(h) != "u" || PerKey.of(h) != "k" || PerSession.of(h) != "s" || PerSession.of(&providers.Hints{User: "u"}) != "u" {
		t.Error("somebody else is taken")
	}
}

func TestHides(t *testing.T) {
	decides := Then{Model: "big"}
	base := func(name string) string { return map[string]string{"default": "assistant"}[name] }
	for _, c := range []struct {
		name          string
		before, later When
		then          Then
		want          bool
	}{
		{"same", When{}, When{}, decides, true},
		{"narrower", When{}, When{Keys: []string{"a"}}, decides, true},
		{"wider", When{Keys: []string{"a"}}, When{}, decides, false},
		{"pattern", When{Models: []string{"gpt-*"}}, When{Models: []string{"gpt-4*", "gpt-5"}}, decides, true},
		{"other model", When{Models: []string{"gpt-*"}}, When{Models: []string{"gpt-4", "big"}}, decides, false},
		{"alias", When{Models: []string{"assistant"}}, When{Models: []string{"default"}}, decides, true},
		{"only copies", When{}, When{}, Then{Shadow: Shadow{"big", 100}}, false},
		{"version", When{}, When{}, Then{Version: "v2"}, false},
		{"share", When{Share: ptr(0.5)}, When{}, decides, false},
		{"stream", When{Stream: ptr(true)}, When{Stream: ptr(false)}, decides, false},
		{"same stream", When{Stream: ptr(true)}, When{Stream: ptr(true), Groups: []string{"a"}}, decides, true},
		{"prompt", When{PromptOver: 10}, When{PromptOver: 100}, decides, true},
		{"shorter prompt", When{PromptOver: 100}, When{PromptOver: 10}, decides, false},
		{"needs", When{Needs: providers.Tools}, When{Needs: providers.Tools | providers.Vision}, decides, true},
		{"header", When{Header: []HeaderIs{{"X-A", []string{"*"}}}}, When{Header: []HeaderIs{{"x-a", []string{"b"}}}}, decides, true},
		{"other header", When{Header: []HeaderIs{{"X-A", []string{"*"}}}}, When{Header: []HeaderIs{{"X-B", []string{"b"}}}}, decides, false},
		{"hours", When{Hours: Hours{From: 1, Until: 2}}, When{}, decides, false},
	} {
		before, later := Rule{"a", c.before, c.then}, Rule{"b", c.later, decides}
		if got := before.Hides(&later, base); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestMatchesStars(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"", "", true}, {"*", "", true}, {"*", "x/y", true}, {"a*", "a", true}, {"a*c", "abc", true}, {"a*c", "acb", false},
		{"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXc", false}, {"**a", "ba", true}, {"*ab", "aab", true}, {"ab", "abc", false}, {"a*a", "a", false},
	} {
		if got := Matches(c.pattern, c.name); got != c.want {
			t.Errorf("%q %q: %v", c.pattern, c.name, got)
		}
	}
}

// FuzzMatches holds the patterns against a plain way to match.
func FuzzMatches(f *testing.F) {
	f.Add("a*b*c", "aXbYbZc")
	f.Add("*", "")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 64 || len(name) > 256 {
			return
		}
		var plain func(p, n string) bool
		seen := map[[2]int]bool{}
		plain = func(p, n string) bool {
			at := [2]int{len(p), len(n)}
			if seen[at] {
				return false
			}
			seen[at] = true
			switch {
			case p == "":
				return n == ""
			case p[0] == '*':
				return plain(p[1:], n) || n != "" && plain(p, n[1:])
			default:
				return n != "" && p[0] == n[0] && plain(p[1:], n[1:])
			}
		}
		if got, want := Matches(pattern, name), plain(pattern, name); got != want {
			t.Errorf("%q %q: %v, want %v", pattern, name, got, want)
		}
	})
}

func manyRules(n int) []Rule {
	var rules []Rule
	for i := range n {
		share := 0.1
		w := When{Models: []string{fmt.Sprintf("model-%d*", i), "assistant"}, Groups: []string{"vip", "x-*"}, Share: &share}
		if i%5 == 0 {
			w.Hours = Hours{Days: 1, From: 60, Until: 120}
		}
		if i%7 == 0 {
			w.Header = []HeaderIs{{"X-Experiment", []string{"b*"}}}
		}
		if i%2 == 0 {
			w.Groups = []string{"gold"}
		}
		rules = append(rules, Rule{fmt.Sprint("r", i), w, Then{Model: "big"}})
	}
	return rules
}

func asksRules(tb testing.TB) *providers.Request {
	req := parsed(tb, "assistant", "")
	req.Hints = providers.Hints{User: "acme/somebody-with-a-name", Key: "app", Org: "acme", Team: "acme/dev", Groups: []string{"staff", "gold"},
		Header: http.Header{"X-Experiment": {"a"}}}
	return req
}

func TestRulesAllocateNothing(t *testing.T) {
	rules, req := NewRules(someNames(), manyRules(50)), asksRules(t)
	if n := testing.AllocsPerRun(100, func() {
		req.Route = providers.Route{}
		if rules.Apply(req) != nil {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

// BenchmarkRules is what rules cost a request; nobody's share holds, so that all are looked at.
func BenchmarkRules(b *testing.B) {
	for _, n := range []int{0, 1, 10, 50} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rules, req := manyRules(n), asksRules(b)
			for i := range rules {
				rules[i].When.Share = ptr(0.0)
			}
			benchmarkRules(b, rules, req)
		})
	}
	b.Run("50 for other models", func(b *testing.B) {
		rules := manyRules(50)
		for i := range rules {
			rules[i].When.Models = rules[i].When.Models[:1]
		}
		benchmarkRules(b, rules, asksRules(b))
	})
}

func benchmarkRules(b *testing.B, rules []Rule, req *providers.Request) {
	ready := NewRules(someNames(), rules)
	b.ReportAllocs()
	for b.Loop() {
		if err := ready.Apply(req); err != nil {
			b.Fatal(err)
		}
	}
}
