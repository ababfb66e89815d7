package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// overTwo is a configuration with one model over two upstreams, of which the first
// is asked first: what weighs nothing is only asked when nothing else is left.
func overTwo(first, second, name, script1, script2, more string) string {
	upstream := func(name, base string) string {
		return fmt.Sprintf("\n[[upstreams]]\nname = %q\nbase_url = %q\nmodels = [\"unused\"]\nlist_models = false\n", name, base)
	}
	return more + upstream("first", first) + upstream("second", second) + fmt.Sprintf(
		"\n[[models]]\nname = %q\ntargets = [{ upstream = \"first\", model = %q, weight = 1 }, { upstream = \"second\", model = %q, weight = 0 }]\n",
		name, wallModel("first", script1), wallModel("second", script2))
}

// TestRetry lets one upstream fail before its first content and then answer.
func TestRetry(t *testing.T) {
	t.Parallel()
	for i, tc := range []struct {
		script string
		calls  int
		least  time.Duration
	}{
		{"fail=2:503", 3, 0},
		{"fail=2:500", 3, 0},
		{"fail=1:reset", 2, 0},
		{"fail=1:abort", 2, 0},
		{"fail=2:cut", 3, 0},
		{"fail=1:html", 2, 0},
		{"1*status=429 retry_after=1 | tokens=16", 2, time.Second},
		{"1*status=503 retry_after_ms=300 | tokens=16", 2, 300 * time.Millisecond},
		{"1*error=0 | tokens=16", 2, 0},
		{"1*error=0:vllm | tokens=16", 2, 0},
		{"1*role=early reset=0 | tokens=16", 2, 0},
		{"1*cut=0 | tokens=16", 2, 0},
		{"1*json200 | tokens=16", 2, 0},
		{"1*malformed=0:3 | tokens=16", 2, 0},
		{"1*filter error=0 | filter", 2, 0},
	} {
		for _, stream := range []bool{true, false} {
			if !stream && strings.HasPrefix(tc.script, "1*role") {
				continue // a body has no role of its own
			}
			t.Run(fmt.Sprintf("%s,stream=%t", tc.script, stream), func(t *testing.T) {
				t.Parallel()
				checkRetry(t, fmt.Sprintf("retry%d%t", i, stream), tc.script, stream, tc.calls, tc.least)
			})
		}
	}
}

// checkRetry has a gateway and an upstream of its own: on a connection that served
// before, net/http itself would repeat a request that was reset.
func checkRetry(t *testing.T, key, script string, stream bool, want int, least time.Duration) {
	t.Helper()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	// A tag, for a list of scripts does not fit a model's name.
	body := fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"user","content":"[[wall %s key=%s]]"}]}`, key, stream, script, key)
	start := time.Now()
	a := g.do(t, http.MethodPost, "/chat/completions", body)
	if took := time.Since(start); took < least {
		t.Errorf("tried again after %v, not after the %v asked for", took, least)
	}
	if stream {
		a.complete(t, 16)
	} else if a.status != 200 || !strings.Contains(a.body, wall.Text("wall", 16)) {
		t.Errorf("%d %s", a.status, a.body)
	}
	line := g.accessLine(t, key)
	if n := calls(w, key); n != want || line["attempts"] != fmt.Sprint(n) || line["end"] != "ok" {
		t.Errorf("%d calls, want %d; access line %v", n, want, line)
	}
}

// TestNoRetry proves what is never tried again.
func TestNoRetry(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		script string
		calls  int
		status int
		code   string
		header string
	}{
		{"status=503", 4, 503, "server_is_overloaded", "Retry-After: 1"},
		{"status=500", 4, 500, "upstream_error", ""},
		{"reset=pre", 4, 502, "upstream_unreachable", ""},
		{"cut=0", 4, 502, "upstream_truncated", ""},
		{"status=503,retry_after=30", 1, 503, "server_is_overloaded", "Retry-After: 30"},
		{"status=429,retry_after=30", 1, 429, "rate_limit_exceeded", "Retry-After: 30"},
		{"context", 1, 400, "context_length_exceeded", "X-Should-Retry: false"},
		{"content_filter", 1, 400, "content_filter", "X-Should-Retry: false"},
		{"status=404", 1, 404, "model_not_found", "X-Should-Retry: false"},
		{"status=422,err=detail", 1, 422, "", "X-Should-Retry: false"},
		{"status=413", 1, 413, "", "X-Should-Retry: false"},
		{"status=401", 1, 502, "upstream_credential", "X-Should-Retry: false"},
		{"cut=1", 1, 200, "upstream_truncated", ""},
		{"reset=1", 1, 200, "upstream_truncated", ""},
		{"error=1", 1, 200, "", ""},
		{"reasoning=2,tokens=2,cut=1", 1, 200, "upstream_truncated", ""},
		{"tools=1,cut=1", 1, 200, "upstream_truncated", ""},
	} {
		t.Run(tc.script, func(t *testing.T) {
			t.Parallel()
			base, w := wall.Start(t)
			g := boot(t, overWall(base, "[retry]\ntries = 4\nbackoff_min = \"1ms\"\nbackoff_max = \"5ms\"\n"))
			a := g.chat(t, wallModel("once", tc.script), "")
			if tc.status == 200 {
				if len(a.errors) != 1 || a.done || tc.code != "" && a.errors[0].Code != tc.code {
					t.Errorf("errors %+v, done %t", a.errors, a.done)
				}
			} else if e := a.refused(t, tc.status); tc.code != "" && e.Code != tc.code {
				t.Errorf("%+v", e)
			}
			if name, value, ok := strings.Cut(tc.header, ": "); ok && a.header.Get(name) != value {
				t.Errorf("%s: %q, want %q", name, a.header.Get(name), value)
			}
			if n := calls(w, "once"); n != tc.calls {
				t.Errorf("%d calls, want %d", n, tc.calls)
			}
		})
	}
	t.Run("the upstream's words", func(t *testing.T) {
		t.Parallel()
		base, _ := wall.Start(t)
		g := boot(t, overWall(base, ""))
		a := g.chat(t, "wall:status=400,errmsg=Hot%20water%20only,errtype=tea_error,errcode=too_cold,errparam=kettle", "")
		if e := a.refused(t, 400); e != (wireError{"Hot water only", "tea_error", "kettle", "too_cold"}) {
			t.Errorf("%+v", e)
		}
	})
}

// TestFailover lets the first of two targets fail before its first content.
func TestFailover(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ script, more string }{
		{"status=503", ""},
		{"status=429,retry_after=30", ""},
		{"status=503,retry_after=5", ""}, // a pause is for the same target
		{"status=401", ""},
		{"reset=pre", ""},
		{"error=0", ""},
		{"role=early,first=1m", "\n[timeouts]\nfirst_token_failover = \"500ms\"\n"},
		{"headers=1m", "\n[timeouts]\nheaders = \"500ms\"\n"},
	} {
		t.Run(tc.script, func(t *testing.T) {
			t.Parallel()
			base1, w1 := wall.Start(t)
			base2, w2 := wall.Start(t)
			g := boot(t, overTwo(base1, base2, "pool", tc.script, "tokens=16", tc.more))
			start := time.Now()
			a := g.chat(t, "pool", "")
			if a.complete(t, 16); time.Since(start) > 5*time.Second {
				t.Errorf("took %v", time.Since(start))
			}
			if n1, n2 := calls(w1, "first"), calls(w2, "second"); n1 != 1 || n2 != 1 {
				t.Errorf("%d calls of the first, %d of the second", n1, n2)
			}
			if got := a.header.Get("X-Sluice-Target"); got != "second/"+wallModel("second", "tokens=16") {
				t.Errorf("X-Sluice-Target: %q", got)
			}
			awaitCall(t, w1, "first", func(q wall.Request) bool { return q.End != wall.Running })
			if strings.Contains(tc.script, "retry_after=30") {
				if again := g.chat(t, "pool", ""); calls(w1, "first") != 1 {
					t.Errorf("the first target was asked again within its Retry-After: %d", again.status)
				}
			}
		})
	}
}

// TestFailoverBehindHeartbeats changes the target after the status has gone out:
// the client sees signs of life and one answer, with one role.
func TestFailoverBehindHeartbeats(t *testing.T) {
	t.Parallel()
	base1, w1 := wall.Start(t)
	base2, _ := wall.Start(t)
	more := "[timeouts]\ncommit_after = \"60ms\"\n[heartbeat]\ninterval = \"80ms\"\n"
	g := boot(t, overTwo(base1, base2, "pool", "role=early,first=1m", "tokens=16", more)+"first_token_failover = \"500ms\"\n")
	a := g.chat(t, "pool", askUsage)
	a.complete(t, 16)
	if first := strings.Index(a.body, "data: "); a.comments < 1 || strings.Count(a.body[:first], ": keep-alive\n") != a.comments {
		t.Errorf("%d heartbeats:\n%s", a.comments, a.body)
	}
	if strings.Contains(a.body, wallModel("first", "")) || strings.Contains(a.body, `"delta":{},"logprobs":null,"finish_reason":null`) {
		t.Errorf("something of the first target, or a heartbeat after the comments:\n%s", a.body)
	}
	if q := awaitCall(t, w1, "first", func(q wall.Request) bool { return q.End != wall.Running }); q.End != wall.ClientGone {
		t.Errorf("the first target ended with %q", q.End)
	}
	line := g.accessLine(t, "pool")
	if line["attempts"] != "2" || line["end"] != "ok" || !strings.HasPrefix(line["target"], "second/") {
		t.Errorf("access line: %v", line)
	}
}

// TestNoFailoverAfterContent proves that what has been said is not said again.
func TestNoFailoverAfterContent(t *testing.T) {
	t.Parallel()
	base1, _ := wall.Start(t)
	base2, w2 := wall.Start(t)
	g := boot(t, overTwo(base1, base2, "pool", "reset=1", "tokens=16", ""))
	a := g.chat(t, "pool", "")
	if e := a.broken(t, 1); e.Code != "upstream_truncated" || calls(w2, "second") != 0 {
		t.Errorf("%+v, %d calls of the second target", e, calls(w2, "second"))
	}
}

// TestAllDown answers quickly when nothing can answer, and says how long to wait.
func TestAllDown(t *testing.T) {
	t.Parallel()
	base1, w1 := wall.Start(t)
	base2, w2 := wall.Start(t)
	g := boot(t, overTwo(base1, base2, "pool", "status=503,retry_after=30", "status=503,retry_after=20", ""))
	start := time.Now()
	a := g.chat(t, "pool", "")
	a.refused(t, http.StatusServiceUnavailable)
	if took := time.Since(start); took > 5*time.Second || a.header.Get("Retry-After") == "" {
		t.Errorf("took %v, Retry-After %q", took, a.header.Get("Retry-After"))
	}
	if n1, n2 := calls(w1, "first"), calls(w2, "second"); n1 != 1 || n2 != 1 {
		t.Errorf("%d and %d calls", n1, n2)
	}
}
