package wall

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseFillsTheScript(t *testing.T) {
	plan, err := Parse("tokens=0,seed=a%20b delay=5ms\tcut=3 stall=pre:2s malformed=4:2 giant=5:2KiB error=end:vllm split=every header=a:b,header=c:d splitat=9+4 nodone nospace=0 usage=every")
	if err != nil {
		t.Fatal(err)
	}
	s := plan.Script(7)
	if s.Tokens != -1 || s.Seed != "a b" || s.Delay != 5*time.Millisecond || s.Cut != After(3) || s.Stall != BeforeHeaders || s.StallFor != 2*time.Second ||
		s.Malformed != After(4) || s.MalformedRun != 2 || s.Giant != After(5) || s.GiantSize != 2048 || s.Error != AfterFinish || s.ErrorShape != "vllm" ||
		s.Split != 1 || len(s.ResponseHeaders) != 2 || s.SplitAt[0] != 4 || !s.NoDone || s.NoSpace || s.Usage != "every" {
		t.Errorf("%+v", s)
	}
}

func TestEveryKeyIsUsable(t *testing.T) {
	values := map[string]string{
		"alphabet": "emoji", "splitat": "1+2", "split": "3", "header": "a:b", "informational": "103", "stall": "1:2s", "malformed": "1:2",
		"malformed_run": "1:2", "giant": "1:2", "error": "1:vllm", "status": "500", "fail": "1:500",
	}
	seen := map[string]bool{}
	for _, k := range Keys() {
		if seen[k.Name] || k.Help == "" || !strings.Contains(Help(), "  "+k.Name) {
			t.Errorf("key %s is doubled or undocumented", k.Name)
		}
		seen[k.Name] = true
		value, ok := values[k.Name]
		if !ok {
			switch first, _, many := strings.Cut(k.Form, "|"); {
			case many:
				value = first
			case k.Form == "DUR":
				value = "1s"
			case k.Form != "":
				value = "1"
			}
		}
		plan, err := Parse(k.Name + "=" + value)
		if err != nil {
			t.Errorf("%s=%s: %v", k.Name, value, err)
			continue
		}
		if k.Name != "key" && k.Name != "script" && reflect.DeepEqual(plan.Script(0), Script{}) {
			t.Errorf("%s=%s changes nothing", k.Name, value)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"tokens=5,cut=3", "2*status=503 | tokens=1", "fail=2:reset", "a", "=", "|", "*", "1*", "seed=%", "splitat=1+", "giant=1:99MiB", "error=end:tgi"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		plan, err := Parse(spec)
		if err != nil {
			return
		}
		for attempt := range 3 {
			s := plan.Script(attempt)
			if s, err := s.attempt(attempt); err == nil {
				_ = s.check()
			}
			if s.Tokens > maxTokens || s.GiantSize > maxSize || s.Delay < 0 || s.Delay > maxDuration {
				t.Fatalf("%q: out of bounds: %+v", spec, s)
			}
		}
		// What parses as a script is found in a tag, unless it holds the tag's own brackets.
		if !strings.ContainsAny(spec, "[]\\@") {
			if inner, ok, err := findTag("x [[wall "+spec+"]] y", ""); !ok || err != nil || inner != " "+spec {
				t.Fatalf("%q: found %q, %v, %v", spec, inner, ok, err)
			}
		}
	})
}
