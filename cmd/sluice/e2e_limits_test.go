package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
	"sluice/ratelimit/ledger"
)

// limited is a configuration over the wall with limits. Their periods are long, so that
// nothing flows in while a test runs.
func limited(baseURL, limits string) string { return overWall(baseURL, limits) }

// level is one of the limits that GET /v1/usage tells.
type level struct {
	ID, Scope, Name, Unit, Per string
	Limit, Remaining           json.Number
	Reset                      int64 `json:"reset_ms"`
}

// ownUsage is the answer of GET /v1/usage.
type ownUsage struct {
	Object, Key string
	GroupBy     []string `json:"group_by"`
	Limits      []level
	Data        []struct {
		Start           int64
		Model           string
		Calls, Requests int64
		Input           int64       `json:"input_tokens"`
		Output          int64       `json:"output_tokens"`
		Cost            json.Number `json:"cost_usd"`
		Estimated       int64       `json:"estimated_calls"`
	}
}

func (g *gatewayUnderTest) usage(t testing.TB, query string) (u ownUsage) {
	t.Helper()
	a := g.do(t, http.MethodGet, "/usage"+query, "")
	if a.status != http.StatusOK {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &u); err != nil || u.Object != "usage" {
		t.Fatalf("%v in %s", err, a.body)
	}
	return u
}

// left is what a limit of the caller has left.
func (g *gatewayUnderTest) left(t testing.TB, id string) string {
	t.Helper()
	for _, l := range g.usage(t, "").Limits {
		if l.ID == id {
			return string(l.Remaining)
		}
	}
	t.Fatalf("the caller has no limit %q", id)
	return ""
}

// awaitLeft waits until a limit has so much left.
func (g *gatewayUnderTest) awaitLeft(t testing.TB, id, want string) {
	t.Helper()
	got := ""
	g.eventually(t, "limit "+id+" has "+want, func() bool { got = g.left(t, id); return got == want })
}

const dailyLimits = `
[[limits]]
id = "day"
scope = "key"
requests_per_day = 100
tokens_per_day = 10_000
`

// promptEstimate is what chatBody's prompt is taken to have.
const promptEstimate = 13

// TestLimitHeaders: what is told before the first byte is what was reserved.
func TestLimitHeaders(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	for _, stream := range []bool{true, false} {
		t.Run(fmt.Sprintf("stream=%t", stream), func(t *testing.T) {
			t.Parallel()
			g := boot(t, limited(base, dailyLimits))
			a := g.do(t, http.MethodPost, chatPath, chatBody(wallModel("headers", ""), stream, `,"max_tokens":16`), "Origin: https://page.example")
			if a.status != http.StatusOK {
				t.Fatalf("%d: %s", a.status, a.body)
			}
			tokens, reset := strconv.Itoa(10_000-promptEstimate-16), "4m11s" // what was reserved
			if !stream {
				tokens, reset = "9981", "2m45s" // the headers of a whole body come when it is settled
			}
			for name, want := range map[string]string{
				"limit-requests": "100", "remaining-requests": "99", "reset-requests": "14m24s",
				"limit-tokens": "10000", "remaining-tokens": tokens, "reset-tokens": reset,
			} {
				name = "X-Ratelimit-" + name
				if got := a.header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
				if !strings.Contains(a.header.Get("Access-Control-Expose-Headers"), strings.ToLower(name)) {
					t.Errorf("pages cannot read %s", name)
				}
			}
			if left := g.left(t, "day.tokens_per_day"); left != "9981" {
				t.Errorf("settled at %s", left)
			}
			if b := g.do(t, http.MethodGet, "/models", ""); b.header.Get("X-Ratelimit-Limit-Requests") != "" {
				t.Error("a list of models is no answer to which limits apply")
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		g := boot(t, limited(base, "[[limits]]\nid = \"other\"\nscope = \"key\"\nmodels = [\"gpt-*\"]\nrequests_per_day = 1\n"))
		for range 3 {
			if a := g.chat(t, wallModel("free", ""), ""); a.status != http.StatusOK || a.header.Get("X-Ratelimit-Limit-Requests") != "" {
				t.Errorf("%d, %v", a.status, a.header)
			}
		}
	})
}

// TestLimitDenied: who is over a limit is told so in OpenAI's words, changes nothing and
// reaches no upstream.
func TestLimitDenied(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	for name, c := range map[string]struct {
		limit, more string
		good        int // calls that pass
		status      int
		kind, code  string
		final       bool
		message     string
		left        string
	}{
		"requests": {"requests_per_day = 2", "", 2, 429, "requests", "rate_limit_exceeded", true,
			`Rate limit reached: "l" allows 2 requests per day for each key. Limit 2, used 2, requested 1. Please try again in 12h0m0s.`, "0"},
		"tokens": {"tokens_per_day = 60", `,"max_tokens":20`, 2, 429, "tokens", "rate_limit_exceeded", true,
			`Rate limit reached: "l" allows 60 tokens per day for each key. Limit 60, used 38, requested 33. Please try again in`, "22"},
		"output tokens": {"output_tokens_per_day = 20", `,"max_tokens":16`, 1, 429, "tokens", "rate_limit_exceeded", true,
			`Limit 20, used 16, requested 16.`, "4"},
		"a prompt that is too large": {"input_tokens_per_minute = 5", "", 0, 400, "invalid_request_error", "request_too_large", true,
			`The request alone is larger than limit "l" (5 input tokens per minute for each key) ever lets through at once, which is 5. Make it smaller.`, "5"},
		"money": {"usd_per_day = 0.01", `,"max_tokens":16`, 1, 429, "insufficient_quota", "insufficient_quota", true,
			`"l" allows $0.01 per day for each key. Limit $0.01, used $0.0095`, "0.0005"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := boot(t, limited(base, "[[prices]]\nmodels = [\"*\"]\ninput = 500\noutput = 500\n[[limits]]\nid = \"l\"\nscope = \"key\"\n"+c.limit+"\n"))
			model := wallModel(strings.ReplaceAll("denied "+name, " ", "-"), "")
			for range c.good {
				if a := g.chat(t, model, c.more); a.status != http.StatusOK {
					t.Fatalf("%d: %s", a.status, a.body)
				}
			}
			for range 3 {
				a := g.chat(t, model, c.more)
				e := readError(t, a.body)
				if a.status != c.status || e.Type != c.kind || e.Code != c.code || !strings.Contains(e.Message, c.message) {
					t.Errorf("%d: %s", a.status, a.body)
				}
				if got := a.header.Get("X-Should-Retry") == "false"; got != c.final {
					t.Errorf("x-should-retry: %q", a.header.Get("X-Should-Retry"))
				}
				seconds, ms := a.header.Get("Retry-After"), a.header.Get("Retry-After-Ms")
				if s, _ := strconv.ParseFloat(seconds, 64); c.status == 429 && (s < 1 || ms == "") || c.status == 400 && seconds+ms != "" {
					t.Errorf("retry-after %q, -ms %q", seconds, ms)
				}
			}
			if left := g.left(t, "l"); left != c.left {
				t.Errorf("%s is left", left)
			}
			if n := calls(w, strings.ReplaceAll("denied "+name, " ", "-")); n != c.good {
				t.Errorf("the upstream was asked %d times", n)
			}
			if n := g.metric(t, `gateway_limit_denials_total{limit="l"}`); n != 3 {
				t.Errorf("%v denials are counted", n)
			}
			g.awaitLine(t, "a denial", func(l map[string]string) bool { return l["limit"] == "l" && l["end"] != "ok" && l["out"] == "0" })
		})
	}
}

// TestLimitSmall: a limit that is smaller than what a call may need serves one at a time.
func TestLimitSmall(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, limited(base, "[[limits]]\nid = \"l\"\nscope = \"key\"\ntokens_per_day = 100\n"))
	var passed, denied atomic.Int64
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			a := g.chat(t, wallModel(fmt.Sprint("small", i), "first=200ms"), `,"max_tokens":162`)
			switch a.status {
			case http.StatusOK:
				passed.Add(1)
			case http.StatusTooManyRequests:
				denied.Add(1)
			}
		})
	}
	all.Wait()
	if passed.Load() != 1 || denied.Load() != 4 {
		t.Errorf("%d passed, %d were denied", passed.Load(), denied.Load())
	}
	g.awaitLeft(t, "l", "81")
}

// TestLimitSettled: what is paid is what was delivered, however the answer ended.
func TestLimitSettled(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	for name, c := range map[string]struct {
		script, more            string
		end                     string
		requests, input, output int64
		estimated               bool
	}{
		"complete":               {"", "", "ok", 1, 3, 16, false},
		"without usage":          {"usage=none", "", "ok", 1, promptEstimate, 33, true},
		"cut":                    {"cut=5", "", "upstream_truncated", 1, promptEstimate, 10, true},
		"an error in the stream": {"error=5", "", "upstream_error", 1, promptEstimate, 10, true},
		"failed before content":  {"status=503", "", "upstream_overloaded", 0, 0, 0, false},
		"cut before content":     {"cut=0", "", "upstream_truncated", 0, 0, 0, false},
		"the caller's fault":     {"status=400", "", "upstream_refused", 1, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := boot(t, limited(base, "[retry]\ntries = 1\n"+dailyLimits))
			model := wallModel(strings.ReplaceAll(name, " ", "-"), c.script)
			a := g.chat(t, model, c.more)
			if told := a.header.Get("X-Ratelimit-Remaining-Requests"); a.status != http.StatusOK && told != fmt.Sprint(100-c.requests) {
				t.Errorf("the refusal tells of %s requests", told)
			}
			line := g.accessLine(t, model)
			if line["end"] != c.end {
				t.Errorf("ended %s", line["end"])
			}
			u := g.usage(t, "")
			if len(u.Data) != 1 {
				t.Fatalf("%+v", u)
			}
			d := u.Data[0]
			if d.Calls != 1 || d.Requests != c.requests || d.Input != c.input || d.Output != c.output || (d.Estimated == 1) != c.estimated {
				t.Errorf("recorded as %+v, want %+v", d, c)
			}
			if got, want := g.left(t, "day.requests_per_day"), fmt.Sprint(100-c.requests); got != want {
				t.Errorf("%s requests are left, want %s", got, want)
			}
			if got, want := g.left(t, "day.tokens_per_day"), fmt.Sprint(10_000-c.input-c.output); got != want {
				t.Errorf("%s tokens are left, want %s", got, want)
			}
			if line["in"] != fmt.Sprint(c.input) || line["out"] != fmt.Sprint(c.output) {
				t.Errorf("the access line has %v", line)
			}
		})
	}
}

// TestLimitPlaces takes the only place in every window of an answer, and leaves.
func TestLimitPlaces(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	const one = "[[limits]]\nid = \"one\"\nscope = \"key\"\nconcurrent = 1\n"
	for _, tc := range windows {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g := boot(t, limited(base, one+dailyLimits))
			key := strings.NewReplacer(" ", "-", ",", "").Replace("place " + tc.name)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				if res, err := g.Client.Do(g.request(ctx, t, http.MethodPost, chatPath, chatBody(wallModel(key, tc.script), tc.stream, `,"max_tokens":1000`))); err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
			}()
			awaitCall(t, w, key, tc.reached)
			a := g.chat(t, wallModel("second", ""), "")
			if e := readError(t, a.body); a.status != 429 || e.Type != "requests" || !strings.Contains(e.Message, "1 answers at the same time") {
				t.Errorf("a second answer: %d, %s", a.status, a.body)
			}
			leave()
			<-gone
			g.awaitLeft(t, "one", "1")
			if a := g.chat(t, wallModel("third", ""), ""); a.status != http.StatusOK {
				t.Errorf("%d: %s", a.status, a.body)
			}
			if n := g.metric(t, "gateway_limit_reservations_open"); n != 0 {
				t.Errorf("%v reservations are open", n)
			}
		})
	}
	t.Run("one after the other", func(t *testing.T) {
		t.Parallel()
		g := boot(t, limited(base, one))
		for i := range 200 {
			stream := i%2 == 0
			if a := g.do(t, http.MethodPost, chatPath, chatBody(wallModel(fmt.Sprint("turn", i), ""), stream, "")); a.status != http.StatusOK {
				t.Fatalf("call %d: %d, %s", i, a.status, a.body)
			}
		}
	})
}

// TestLimitDisconnect: who leaves before usage was told pays for what was generated.
func TestLimitDisconnect(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, limited(base, dailyLimits))
	model := wallModel("leaves", "tokens=100000,delay=5ms")
	ctx, leave := context.WithCancel(t.Context())
	res := g.openStream(ctx, t, chatBody(model, true, `,"max_tokens":5000`))
	awaitCall(t, w, "leaves", func(q wall.Request) bool { return q.Tokens >= 20 })
	leave()
	_, _ = io.Copy(io.Discard, res.Body)
	line := g.accessLine(t, model)
	q := awaitCall(t, w, "leaves", func(q wall.Request) bool { return q.End != wall.Running })
	out, _ := strconv.Atoi(line["out"])
	if line["end"] != "client_gone" || out < 20 || out > q.Tokens*5/2 || line["estimated"] != "true" { // a token of the wall is up to 2.5 estimated ones
		t.Errorf("%d tokens were made, and paid for is %v", q.Tokens, line)
	}
	g.awaitLeft(t, "day.tokens_per_day", fmt.Sprint(10_000-promptEstimate-out))
}

// TestLimitHardBudget ends an answer that outgrows its estimate and the budget.
func TestLimitHardBudget(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	const prices = "[[prices]]\nmodels = [\"*\"]\ninput = 0\noutput = 1_000\n"
	g := boot(t, limited(base, prices+"[[limits]]\nid = \"hard\"\nscope = \"key\"\nusd_per_day = 1.5\nhard = true\n"))
	model := wallModel("long", "tokens=100000,delay=10us")
	a := g.chat(t, model, "")
	if a.status != http.StatusOK || len(a.errors) != 1 || a.errors[0].Code != "budget_exhausted" || a.errors[0].Type != "insufficient_quota" || a.done {
		t.Fatalf("%d: ...%s", a.status, a.body[max(0, len(a.body)-600):])
	}
	line := g.accessLine(t, model)
	out, _ := strconv.Atoi(line["out"])
	if line["end"] != "budget_exhausted" || line["limit"] != "hard" || out < 1024 || out > 1500*5/2 { // a delta of the wall is up to 2.5 estimated tokens
		t.Errorf("%v", line)
	}
	if q := awaitCall(t, w, "long", func(q wall.Request) bool { return q.End != wall.Running }); q.Tokens > 50_000 {
		t.Errorf("the upstream went on to %d tokens", q.Tokens)
	}
	if d := g.usage(t, "").Data; len(d) != 1 || d[0].Output != int64(out) || string(d[0].Cost) != fmt.Sprintf("%.2f", float64(out)/1000) && !strings.HasPrefix(string(d[0].Cost), fmt.Sprint(float64(out)/1000)) {
		t.Errorf("recorded: %+v", d)
	}
	// A rate never ends an answer.
	soft := boot(t, limited(base, "[[limits]]\nid = \"rate\"\nscope = \"key\"\noutput_tokens_per_day = 50\n"))
	if a := soft.chat(t, wallModel("soft", "tokens=3000"), ""); !a.done || len(a.errors) > 0 {
		t.Errorf("...%s", a.body[max(0, len(a.body)-600):])
	}
	if left := soft.left(t, "rate"); left != "-2950" {
		t.Errorf("%s is left", left)
	}
}

// TestLimitDrain: what a drain cuts is settled before the process ends.
func TestLimitDrain(t *testing.T) {
	t.Parallel()
	base, _ := gated(t)
	dir := t.TempDir()
	g := bootProcess(t, limited(base, fmt.Sprintf("[data]\ndir = %q\n[drain]\ndelay = \"0s\"\ntimeout = \"50ms\"\n", dir)+dailyLimits))
	h := hold(t, g, "held")
	g.Signal(t, syscall.SIGTERM)
	_ = h
	if code := g.Wait(); code != exitDrained {
		t.Errorf("exit code %d", code)
	}
	b, err := ledger.OpenBolt(filepath.Join(dir, ledgerFile), ledger.Retention{}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	page, err := b.Rows(t.Context(), ledger.Filter{})
	if err != nil || len(page.Rows) != 1 {
		t.Fatalf("%+v, %v", page, err)
	}
	if r := page.Rows[0]; r.End != "draining" || r.Output < 1 || r.Requests != 1 || !r.Estimated || r.Model != "held" || r.Key != "test" {
		t.Errorf("%+v", r)
	}
}
