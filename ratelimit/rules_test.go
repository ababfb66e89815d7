package ratelimit

import (
	"errors"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"gpt-4o", "gpt-4o", true}, {"gpt-4o", "gpt-4o-mini", false}, {"gpt-4o*", "gpt-4o-mini", true},
		{"*", "", true}, {"*", "meta/llama", true}, {"meta/*", "meta/llama/3", true}, {"*/llama*", "meta/llama", true},
		{"*a*b*c", "xxaxxbxxc", true}, {"*a*b*c", "xxaxxbxx", false}, {"a?c", "abc", true}, {"a?c", "a/c", true}, {"?", "é", true},
		{"[a-c]x", "bx", true}, {"[^a-c]x", "bx", false}, {"[^a]x", "/x", true}, {`\*`, "*", true}, {`\*`, "x", false},
		{"", "", true}, {"", "x", false}, {"x", "", false}, {"[a", "a", false}, {"a*[", "ab", false},
	} {
		if got := globMatch(c.pattern, c.name); got != c.want {
			t.Errorf("%q on %q: %t", c.pattern, c.name, got)
		}
	}
}

// FuzzGlob compares with path.Match, for which slashes are turned into something else.
func FuzzGlob(f *testing.F) {
	for _, p := range []string{"*", "gpt-*", "*a*b?", `[^a-c]\*[x]`, "[", `\`, "[a-", "[]a]", "[a]*b", "***", "[-]", `[\]-a]`} {
		f.Add(p, "gpt-4o")
		f.Add(p, "dab*x/aab")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if strings.ContainsAny(pattern+name, "/\x00") { // the end of a range may not move
			if strings.ContainsAny(pattern, "[/\x00") || strings.Contains(name, "\x00") {
				return
			}
			name = strings.ReplaceAll(name, "/", "\x00")
		}
		want, err := path.Match(pattern, name)
		if bad := checkGlob(pattern); (bad == nil) != wellFormed(pattern) {
			t.Fatalf("checking %q: %v", pattern, bad)
		}
		if got := globMatch(pattern, name); got != want && err == nil {
			t.Fatalf("%q on %q: %t, path.Match says %t", pattern, name, got, want)
		}
	})
}

// wellFormed asks path.Match, which reads all of a pattern only if it may still match: it
// reports an error for any name if it does for the empty one.
func wellFormed(pattern string) bool {
	_, err := path.Match(pattern, "")
	return err == nil
}

func TestRulesAreChecked(t *testing.T) {
	good := Rule{ID: "rpm", Scope: Key, Dim: Requests, Amount: 60, Per: Minute}
	for _, c := range []struct {
		name   string
		edit   func(r *Rule)
		field  string
		remedy string // part of the text
	}{
		{"good", func(*Rule) {}, "", ""},
		{"no id", func(r *Rule) { r.ID = "" }, "id", "limit 2: it has no id; name it"},
		{"an id that would forge a key", func(r *Rule) { r.ID = "a:b}" }, "id", "letters, digits"},
		{"a long id", func(r *Rule) { r.ID = strings.Repeat("x", 65) }, "id", "up to 64"},
		{"an id in use", func(r *Rule) { r.ID = "first" }, "id", "limit 1 has this id already"},
		{"zero", func(r *Rule) { r.Amount = 0 }, "amount", "at least 1; to refuse all calls"},
		{"negative", func(r *Rule) { r.Amount = -1 }, "amount", "at least 1"},
		{"too much to flow", func(r *Rule) { r.Amount = MaxFlow + 1 }, "amount", "use a calendar day or month"},
		{"a large burst", func(r *Rule) { r.Burst = MaxFlow + 1 }, "burst", "at most 1000000000"},
		{"a negative burst", func(r *Rule) { r.Burst = -1 }, "burst", "leave it out"},
		{"a calendar with a burst", func(r *Rule) { r.Per, r.Burst = CalendarDay, 70 }, "burst", "leave it out"},
		{"a calendar with its own burst", func(r *Rule) { r.Per, r.Burst = CalendarDay, 60 }, "", ""},
		{"a large budget", func(r *Rule) { r.Per, r.Amount = CalendarMonth, MaxBudget }, "", ""},
		{"too large a budget", func(r *Rule) { r.Per, r.Amount = CalendarMonth, MaxBudget+1 }, "amount", "at most 4000000000000000"},
		{"no period", func(r *Rule) { r.Per = AtOnce }, "per", "say in what time"},
		{"streams", func(r *Rule) { r.Dim, r.Per = Streams, AtOnce }, "", ""},
		{"streams with a period", func(r *Rule) { r.Dim = Streams }, "per", "leave it out"},
		{"streams with a burst", func(r *Rule) { r.Dim, r.Per, r.Burst = Streams, AtOnce, 61 }, "burst", "leave it out"},
		{"too many streams", func(r *Rule) { r.Dim, r.Per, r.Amount = Streams, AtOnce, 1e6+1 }, "amount", "at most 1000000"},
		{"a hard rate", func(r *Rule) { r.Hard = true }, "hard", "calendar day or month"},
		{"a hard budget", func(r *Rule) { r.Hard, r.Per = true, CalendarMonth }, "", ""},
		{"a broken model", func(r *Rule) { r.Models = []string{"gpt-*", "[gpt"} }, "models", `"[gpt"`},
		{"an empty model", func(r *Rule) { r.Models = []string{""} }, "models", `use "*" for all`},
		{"a broken name", func(r *Rule) { r.Only = []string{`x\`} }, "only", `\ at the end`},
		{"names of nobody", func(r *Rule) { r.Scope, r.Only = Global, []string{"x"} }, "only", "change the scope"},
		{"a scope of nothing", func(r *Rule) { r.Scope = KeyModel + 1 }, "scope", "no such scope"},
		{"a dimension of nothing", func(r *Rule) { r.Dim = Streams + 1 }, "dim", "no such dimension"},
		{"a period of nothing", func(r *Rule) { r.Per = CalendarMonth + 1 }, "per", "no such period"},
		{"a policy of nothing", func(r *Rule) { r.OnTrouble = Closed + 1 }, "policy", "no such policy"},
		{"negative grace", func(r *Rule) { r.Grace = -1 }, "grace", "between 0 and the amount"},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, rule := good, good
			first.ID = "first"
			c.edit(&rule)
			_, err := NewRules([]Rule{first, rule})
			var errs RuleErrors
			if c.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.As(err, &errs) || len(errs) != 1 {
				t.Fatalf("error %v, want one of a rule", err)
			}
			if e := errs[0]; e.Index != 1 || e.Field != c.field || !strings.Contains(e.Error(), c.remedy) {
				t.Errorf("rule %d, field %s: %v", e.Index, e.Field, e)
			}
		})
	}
}

func TestAllErrorsOfRulesAreTold(t *testing.T) {
	err := CheckRules([]Rule{{}, {ID: "x", Amount: 1, Per: Day}, {ID: "x", Per: Day}})
	want := "limit 1: it has no id"
	if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Count(err.Error(), "\n") != 4 {
		t.Fatalf("errors:\n%v", err)
	}
}

func TestReplaceKeepsTheRulesInForceWhenTheNewOnesDoNotHold(t *testing.T) {
	rules, err := NewRules([]Rule{{ID: "a", Amount: 1, Per: Day}})
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.Replace([]Rule{{ID: "b"}}); err == nil {
		t.Fatal("replaced by rules that do not hold")
	}
	if all := rules.All(); len(all) != 1 || all[0].ID != "a" {
		t.Fatalf("rules %+v", all)
	}
}

func TestMatching(t *testing.T) {
	rule := func(id string, s Scope, models, only []string) Rule {
		return Rule{ID: id, Scope: s, Dim: Requests, Amount: 1, Per: Minute, Models: models, Only: only}
	}
	rules, err := NewRules([]Rule{
		rule("global", Global, nil, nil), rule("llamas", Global, []string{"meta/*", "llama*"}, nil),
		rule("provider", Provider, nil, nil), rule("ip", IP, nil, nil), rule("model", Model, nil, []string{"meta/*"}),
		rule("org", Org, nil, nil), rule("team", Team, nil, nil), rule("user", User, nil, []string{"a*"}),
		rule("key", Key, nil, nil), rule("keymodel", KeyModel, []string{"*llama*"}, []string{"k?"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	own, mine := rule("org", Org, nil, nil), rule("mine", Key, nil, nil)
	for _, c := range []struct {
		name string
		who  Subject
		want string
	}{
		{"nobody", Subject{}, "global"},
		{"all", Subject{Org: "o", Team: "t", User: "ann", Key: "k1", Model: "meta/llama", IP: "::1"},
			"global llamas ip=::1 model=meta/llama o:org=o o:team=t o:user=ann o:key=k1 o:keymodel=k1/meta/llama"},
		{"other names", Subject{Org: "o", User: "bob", Key: "x", Model: "gpt"}, "global o:org=o o:key=x"},
		{"key without model", Subject{Key: "k1"}, "global key=k1"},
		{"attempt", Subject{Org: "o", Key: "k", Provider: "openai"}, "provider=openai"},
		{"own ones, one in place of a declared one, one twice", Subject{Org: "o", Key: "x", Rules: []*Rule{&mine, &own, &mine}},
			"global o:key=x o:mine=x o:org=o"},
	} {
		var got []string
		for _, b := range rules.Match(nil, &c.who) {
			s := b.Rule.ID
			if b.Org != "" {
				s = b.Org + ":" + s
			}
			if b.Label() != "" {
				s += "=" + b.Label()
			}
			got = append(got, s)
		}
		if want := strings.Fields(c.want); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", c.name, got, want)
		}
	}
}

func TestMatchingDoesNotAllocate(t *testing.T) {
	rules, err := NewRules([]Rule{{ID: "a", Scope: Key, Amount: 1, Per: Day, Models: []string{"g*4*", "[a-z]*/?"}}})
	if err != nil {
		t.Fatal(err)
	}
	who := Subject{Key: "k", Model: "meta/x"}
	var some [4]Bucket
	if n := testing.AllocsPerRun(100, func() {
		if len(rules.Match(some[:0], &who)) != 1 {
			t.Fatal("no match")
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
