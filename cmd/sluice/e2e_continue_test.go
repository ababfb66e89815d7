package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/providers/providertest/wall"
)

// TestContinuationOfPrompt has a second server go on behind a prompt, and looks at what is
// billed: both calls, as the client is told.
func TestContinuationOfPrompt(t *testing.T) {
	t.Parallel()
	base1, w1 := wall.Start(t, wall.Named("one"))
	base2, w2 := wall.Start(t, wall.Named("two"))
	g := boot(t, strings.Replace(overTwo(base1, base2, "pool", "", "", ""), "[[models]]\n", "[[models]]\ncontinuation = true\n", 1))
	body := fmt.Sprintf(`{"model":"pool","stream":true,"max_tokens":500%s,"prompt":"[[wall@one tokens=60 reset=20 key=p]] [[wall@two tokens=60 prefill=continue key=p]] "}`, askUsage)
	a := g.do(t, http.MethodPost, "/completions", body)
	if n, err := wall.Verify("wall", a.text[0]); n != 60 || err != nil || !a.done || a.finish[0] != "stop" || len(a.errors) != 0 {
		t.Fatalf("%d tokens, %v, done %t, finish %q, %+v", n, err, a.done, a.finish[0], a.errors)
	}
	if strings.Count(a.body, `"x_sluice":{"continued":true}`) != 1 || calls(w1, "p") != 1 || calls(w2, "p") != 1 {
		t.Errorf("%d and %d calls:\n%s", calls(w1, "p"), calls(w2, "p"), a.body)
	}
	rest := awaitCall(t, w2, "p", func(q wall.Request) bool { return q.End == wall.Complete })
	if len(a.usage) != 1 || a.usage[0].Prompt <= rest.Prompt || a.usage[0].Completion < 60 {
		t.Fatalf("usage %+v, the second server alone was given %d", a.usage, rest.Prompt)
	}
	line := g.accessLine(t, "pool")
	if line["in"] != fmt.Sprint(a.usage[0].Prompt) || line["out"] != fmt.Sprint(a.usage[0].Completion) || line["estimated"] != "true" || line["attempts"] != "2" || line["end"] != "ok" {
		t.Errorf("usage %+v, access line %v", a.usage, line)
	}
	rows := g.usage(t, "").Data
	if len(rows) != 1 || rows[0].Requests != 1 || rows[0].Input != int64(a.usage[0].Prompt) || rows[0].Output != int64(a.usage[0].Completion) {
		t.Errorf("billed %+v, told %+v", rows, a.usage)
	}
	// In one piece there is nothing to go on behind: it is asked for again.
	whole := g.do(t, http.MethodPost, "/completions", strings.Replace(strings.Replace(body, `"stream":true`, `"stream":false`, 1), askUsage, "", 1))
	if whole.status != http.StatusOK || !strings.Contains(whole.body, wall.Text("wall", 60)) || strings.Contains(whole.body, "x_sluice") {
		t.Errorf("%d %s", whole.status, whole.body)
	}
}
