package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// failover is one of sixteen ways in which a streamed answer fails, and what a client should
// see of it. The scenarios are those of failoverbench, METHODOLOGY v0.1.
type failover struct {
	name, what         string
	primary, secondary string // scripts; the second is a good answer unless it says otherwise
	// ideal judges the answer under the example configuration, beyond that it must be truthful.
	ideal func(t testing.TB, s *failoverStage, a *answer)
}

// failoverTokens is the length of a whole answer.
const failoverTokens = 60

var failovers = []failover{
	{"S01", "429 with Retry-After, once", "fail=1:429 retry_after=1", "", whole60},
	{"S02", "429 all the time", "status=429", "", wholeFromSecond},
	{"S03", "500 once", "fail=1:500", "", whole60},
	{"S04", "503 all the time", "status=503", "", wholeFromSecond},
	{"S05", "TCP reset", "reset=pre", "", wholeFromSecond},
	{"S06", "no response", "headers=2m", "", wholeFromSecond},
	{"S07", "slow first token", "role=early first=2m", "", wholeFromSecond},
	{"S08", "cut after 40 of 60 tokens", "abort=40", "prefill=continue", continued60},
	{"S09", "stall after 40 of 60 tokens", "stall=40", "prefill=continue", continued60},
	{"S10", "malformed chunk", "malformed=20", "", func(t testing.TB, s *failoverStage, a *answer) {
		a.complete(t, failoverTokens)
		s.asked(t, 1, 0)
	}},
	{"S11", "[DONE] is missing", "nodone", "", func(t testing.TB, s *failoverStage, a *answer) {
		a.complete(t, failoverTokens)
		s.asked(t, 1, 0)
	}},
	{"S12", "context length exceeded", "context", "", func(t testing.TB, s *failoverStage, a *answer) {
		if e := a.refused(t, http.StatusBadRequest); e.Code != "context_length_exceeded" {
			t.Errorf("%+v", e)
		}
		s.asked(t, 1, 0)
	}},
	{"S13", "content filter", "content_filter", "", func(t testing.TB, s *failoverStage, a *answer) {
		if e := a.refused(t, http.StatusBadRequest); e.Code != "content_filter" {
			t.Errorf("%+v", e)
		}
		s.asked(t, 1, 0)
	}},
	{"S14", "the fallback rejects a prefill", "abort=40", "prefill=reject", func(t testing.TB, s *failoverStage, a *answer) {
		a.broken(t, 40)
		s.asked(t, 1, 1)
	}},
	{"S15", "flapping primary", "status=500", "", flapping},
	{"S16", "accounting of a fallback", "status=503", "", accounted},
}

func whole60(t testing.TB, _ *failoverStage, a *answer) { a.complete(t, failoverTokens) }

func wholeFromSecond(t testing.TB, s *failoverStage, a *answer) {
	a.complete(t, failoverTokens)
	s.asked(t, 1, 1)
	if got := a.header.Get("X-Sluice-Target"); got != "secondary/large" {
		t.Errorf("X-Sluice-Target: %q", got)
	}
}

func continued60(t testing.TB, s *failoverStage, a *answer) {
	a.complete(t, failoverTokens)
	s.asked(t, 1, 1)
	var ends, ids []string
	for _, p := range a.payloads {
		if strings.Contains(p, `"x_sluice":{"continued":true}`) {
			ends = append(ends, p)
		}
		id, _, _ := strings.Cut(p, `","object"`)
		if len(ids) == 0 || ids[len(ids)-1] != id {
			ids = append(ids, id)
		}
	}
	if len(ends) != 1 || !strings.Contains(ends[0], `"finish_reason":"stop"`) || len(ids) != 1 {
		t.Errorf("the last chunk does not say that the answer was continued (%q), or it has several names: %q", ends, ids)
	}
	// Each of the two has read the prompt, the second the forty tokens as well.
	if len(a.usage) != 1 || a.usage[0].Completion < failoverTokens || a.usage[0].Prompt < 40 {
		t.Errorf("usage %+v", a.usage)
	}
}

// flapping asks on: all calls succeed, and the primary is soon left alone.
func flapping(t testing.TB, s *failoverStage, a *answer) {
	a.complete(t, failoverTokens)
	for range 29 {
		again := s.ask(t)
		again.complete(t, failoverTokens)
	}
	if n := calls(s.primary, s.key); n > 10 {
		t.Errorf("the primary was asked %d times in 30 calls", n)
	}
}

// accounted holds what the client and the log were told against what the secondary did.
func accounted(t testing.TB, s *failoverStage, a *answer) {
	wholeFromSecond(t, s, a)
	q := awaitCall(t, s.secondary, s.key, func(q wall.Request) bool { return q.End == wall.Complete })
	if len(a.usage) != 1 || a.usage[0].Completion != failoverTokens || a.usage[0].Prompt != q.Prompt {
		t.Errorf("usage %+v, the secondary counted %d and %d", a.usage, q.Prompt, failoverTokens)
	}
	if !strings.Contains(a.body, `"model":"large"`) {
		t.Errorf("the model that answered is not named:\n%.300s", a.body)
	}
	line := s.g.accessLine(t, "assistant")
	if line["target"] != "secondary/large" || line["attempts"] != "2" || line["out"] != fmt.Sprint(failoverTokens) {
		t.Errorf("access line %v", line)
	}
}

// failoverStage is a gateway over two servers, for one scenario.
type failoverStage struct {
	g                  *gatewayUnderTest
	primary, secondary *wall.Wall
	key, body          string
}

func (s *failoverStage) ask(t testing.TB) *answer {
	a := s.g.do(t, http.MethodPost, "/chat/completions", s.body)
	return &a
}

// asked counts the calls of both.
func (s *failoverStage) asked(t testing.TB, primary, secondary int) {
	t.Helper()
	if n1, n2 := calls(s.primary, s.key), calls(s.secondary, s.key); n1 != primary || n2 != secondary {
		t.Errorf("%d calls of the primary and %d of the secondary, want %d and %d", n1, n2, primary, secondary)
	}
}

// stageFailover boots a configuration in which $PRIMARY and $SECONDARY stand for the servers.
func stageFailover(t testing.TB, f *failover, config string) *failoverStage {
	s := &failoverStage{key: f.name}
	var first, second string
	first, s.primary = wall.Start(t, wall.Named("primary"))
	second, s.secondary = wall.Start(t, wall.Named("secondary"))
	s.g = boot(t, strings.NewReplacer("$PRIMARY", first, "$SECONDARY", second).Replace(config))
	s.body = fmt.Sprintf(`{"model":"assistant","stream":true%s,"messages":[{"role":"user","content":"[[wall@primary tokens=%d %s key=%s]] [[wall@secondary tokens=%d %s key=%s]]"}]}`,
		askUsage, failoverTokens, f.primary, f.name, failoverTokens, f.secondary, f.name)
	return s
}

// truthful fails the test if an answer tells anything but a beginning of the true text, or ends
// as if it were all of it when it is not.
func truthful(t testing.TB, a *answer) {
	t.Helper()
	if a.status != http.StatusOK {
		readError(t, a.body)
		return
	}
	n, err := wall.Verify("wall", a.text[0])
	if err != nil {
		t.Errorf("the text is not what was told: %v", err)
	}
	good, bad := a.done && a.finish[0] != "" && n == failoverTokens && len(a.errors) == 0, !a.done && a.finish[0] == "" && len(a.errors) == 1
	if good == bad {
		t.Errorf("%d tokens, [DONE] %t, finish %q, errors %+v", n, a.done, a.finish[0], a.errors)
	}
}

// quicker has a configuration's time limits end in a test's time. Each must be in it.
func quicker(t testing.TB, config string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(config, pairs[i]) {
			t.Fatalf("%q is not in the configuration", pairs[i])
		}
	}
	return strings.NewReplacer(pairs...).Replace(config)
}

// TestSixteenFailures plays the sixteen scenarios under the shipped example, with its times
// divided by five, and prints how many of them end ideally.
func TestSixteenFailures(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../../deploy/failover.toml")
	if err != nil {
		t.Fatal(err)
	}
	if _, warnings, err := loadText(t, string(example), nil); err != nil || len(warnings) > 0 {
		t.Fatalf("deploy/failover.toml: %v, %q", err, warnings)
	}
	config := quicker(t, string(example), "${PRIMARY_URL:-http://127.0.0.1:8001/v1}", "$PRIMARY", "${SECONDARY_URL:-http://127.0.0.1:8002/v1}", "$SECONDARY",
		`headers_timeout = "10s"`, `headers_timeout = "2s"`, `first_token_failover = "10s"`, `first_token_failover = "2s"`, `between_tokens_timeout = "15s"`, `between_tokens_timeout = "3s"`)
	playFailovers(t, "deploy/failover.toml (two targets, first token within 10s, continuation; times / 5)", config, true)
}

// TestSixteenFailuresDefaults plays them with nothing configured but two targets of a model:
// then each must end truthfully.
func TestSixteenFailuresDefaults(t *testing.T) {
	t.Parallel()
	config := `
[timeouts]
headers = "3s"
first_token_failover = "3s"
between_tokens = "6s"

[[upstreams]]
name = "primary"
base_url = "$PRIMARY"

[[upstreams]]
name = "secondary"
base_url = "$SECONDARY"

[[models]]
name = "assistant"
targets = [{ upstream = "primary", model = "large" }, { upstream = "secondary", model = "large", priority = 1 }]
`
	playFailovers(t, "the defaults over two targets (times / 10)", config, false)
}

func playFailovers(t *testing.T, title, config string, ideal bool) {
	var mu sync.Mutex
	lines := make([]string, len(failovers))
	good := 0
	t.Run("scenarios", func(t *testing.T) {
		for i := range failovers {
			f := &failovers[i]
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				s := stageFailover(t, f, config)
				start := time.Now()
				a := s.ask(t)
				took := time.Since(start)
				truthful(t, a)
				if ideal {
					f.ideal(t, s, a)
				}
				mu.Lock()
				defer mu.Unlock()
				verdict := "pass"
				if t.Failed() {
					verdict = "FAIL"
				} else {
					good++
				}
				lines[i] = fmt.Sprintf("  %s  %-32s %s  status %d, %2d tokens, %d ends, %5.2fs", f.name, f.what, verdict, a.status, len(a.text[0])/len(wall.Text("wall", 1)), len(a.errors)+len(a.finish[0])/max(len(a.finish[0]), 1), took.Seconds())
			})
		}
	})
	claim := "end ideally"
	if !ideal {
		claim = "end truthfully"
	}
	t.Logf("%s\n%s\n  %d of %d %s", title, strings.Join(lines, "\n"), good, len(failovers), claim)
}
