package handlers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/handlers/tokens"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/streaming"
)

// tally is a limiter that grants everything, or fails, and keeps what it was asked.
type tally struct {
	mu       sync.Mutex
	calls    []ratelimit.Call
	settled  []ratelimit.Settlement
	extended int64
	fails    error // of Reserve
	lost     error // of Settle
	hard     bool
}

func (l *tally) Reserve(_ context.Context, c *ratelimit.Call) (ratelimit.Grant, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, *c)
	return ratelimit.Grant{Hard: l.hard}, l.fails
}

func (l *tally) Extend(_ context.Context, _ *ratelimit.Call, more ratelimit.Cost) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.extended += more.Output
	return fmt.Errorf("the store: %w", ratelimit.ErrUnavailable)
}

func (l *tally) Settle(ctx context.Context, s *ratelimit.Settlement) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.settled = append(l.settled, *s)
	return l.lost
}

func (l *tally) Peek(context.Context, *ratelimit.Subject) ([]ratelimit.Level, error) {
	return nil, l.fails
}

// tallied is a server over oddities whose answers are held against one limit of tokens.
func tallied(l *tally) *Server {
	rules, err := ratelimit.NewRules([]ratelimit.Rule{{ID: "l", Scope: ratelimit.Key, Dim: ratelimit.Tokens, Amount: 1000, Per: ratelimit.Minute}})
	if err != nil {
		panic(err)
	}
	return New(Options{
		Provider: oddities{}, Auth: namedDoor{}, WriteLimit: time.Second, Body: 1 << 20, Depth: 64, Observer: NewObserver(nil), Drain: NewDrain(),
		Total: func(_ context.Context, model string) time.Duration {
			if model == "panics-early" {
				panic("the wiring is broken")
			}
			return time.Hour
		},
		Quota: &Quota{Limiter: l, Applies: rules.Match, Tokens: tokens.New(nil), Prices: ratelimit.Prices{{Model: "*", Price: ratelimit.Price{Input: 1e6, Output: 2e6}}}},
		Log:   slog.New(slog.DiscardHandler),
	})
}

type namedDoor struct{}

func (namedDoor) Authenticate(http.Header) (auth.Principal, error) {
	return auth.Principal{Key: "app", Org: "acme", Team: "red", User: "ann"}, nil
}

func chatOn(s *Server, ctx context.Context, model string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/chat/completions", strings.NewReader(`{"model":"`+model+`","stream":true,"max_tokens":50,"messages":[{"role":"user","content":"hi"}]}`))
	r.RemoteAddr = "[2001:db8:1:2:3:4:5:6]:1234"
	w := httptest.NewRecorder()
	func() {
		defer func() { _ = recover() }() // of an answer that was aborted
		s.ServeHTTP(w, r)
	}()
	return w
}

// TestSettledOnce: each answer that was reserved is settled, once, at what was delivered,
// whatever breaks.
func TestSettledOnce(t *testing.T) {
	for model, want := range map[string]struct {
		end              string
		requests, output int64
	}{
		"fine":         {"ok", 1, 2},
		"panics":       {"internal_error", 1, 2},
		"panics-early": {"internal_error", 0, 0},
	} {
		l := &tally{}
		s := tallied(l)
		chatOn(s, t.Context(), model)
		if len(l.calls) != 1 || len(l.settled) != 1 {
			t.Fatalf("%s: %d reserved, %d settled", model, len(l.calls), len(l.settled))
		}
		call, done := l.calls[0], l.settled[0]
		if w := call.Want; w.Requests != 1 || w.Output != 50 || w.Input == 0 || w.Money != w.Input+2*w.Output {
			t.Errorf("%s: reserved %+v", model, w)
		}
		if who := call.Who; who.Org != "acme" || who.Team != "red" || who.User != "ann" || who.Key != "app" || who.Model != model || who.IP != "2001:db8:1:2::" {
			t.Errorf("%s: for %+v", model, who)
		}
		if u := done.Used; u.Requests != want.requests || (want.output == 0) != (u.Output == 0) || u.Output > 0 && u.Money != u.Input+2*u.Output {
			t.Errorf("%s: used %+v", model, u)
		}
		if r := done.Row; r.End != want.end || r.ID != call.ID || r.Output != done.Used.Output || r.Money != done.Used.Money || r.Reserved != call.Want.Input+50 || r.Transport != "sse" || r.Start.IsZero() {
			t.Errorf("%s: recorded %+v", model, r)
		}
	}
}

// TestSettledAfterTheClient has gone: the settlement does not go with it.
func TestSettledAfterTheClient(t *testing.T) {
	l := &tally{}
	ctx, leave := context.WithCancel(t.Context())
	s := tallied(l)
	done := make(chan struct{})
	go func() { defer close(done); chatOn(s, ctx, "waits") }()
	for used := (ratelimit.Cost{}); used.Output == 0; {
		l.mu.Lock()
		if len(l.calls) > 0 {
			used = l.calls[0].Used()
		}
		l.mu.Unlock()
	}
	leave()
	<-done
	if len(l.settled) != 1 || l.settled[0].Row.End != "client_gone" || l.settled[0].Used.Output == 0 {
		t.Errorf("%+v", l.settled)
	}
}

// TestLimiterInTrouble: what cannot be told is told, and what cannot be settled is counted.
func TestLimiterInTrouble(t *testing.T) {
	l := &tally{fails: fmt.Errorf("no connection: %w", ratelimit.ErrUnavailable)}
	s := tallied(l)
	w := chatOn(s, t.Context(), "fine")
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `"code":"quota_unavailable"`) || w.Header().Get("Retry-After") != "1" || len(l.settled) != 0 {
		t.Errorf("%d, %v: %s", w.Code, w.Header(), w.Body)
	}
	l = &tally{lost: errors.New("the disk is full"), hard: true}
	s = tallied(l)
	if w = chatOn(s, t.Context(), "fine"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "[DONE]") {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	r := httptest.NewRecorder()
	s.opt.Observer.Handler().ServeHTTP(r, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{"gateway_settle_failures_total 1", "gateway_limit_reservations_open 0"} {
		if text, _ := io.ReadAll(r.Result().Body); !strings.Contains(string(text), want) && !strings.Contains(r.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestNoLimitNoEstimate: what is not held against tokens is not estimated.
func TestNoLimitNoEstimate(t *testing.T) {
	l := &tally{}
	s := tallied(l)
	none, err := ratelimit.NewRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.opt.Quota.Applies = none.Match
	chatOn(s, t.Context(), "fine")
	if len(l.calls) != 0 || len(l.settled) != 1 || l.settled[0].Row.Reserved != 0 {
		t.Errorf("%+v, %+v", l.calls, l.settled)
	}
	requests, err := ratelimit.NewRules([]ratelimit.Rule{{ID: "r", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 1, Per: ratelimit.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	s.opt.Quota.Applies = requests.Match
	chatOn(s, t.Context(), "fine")
	if len(l.calls) != 1 || l.calls[0].Want != (ratelimit.Cost{Requests: 1}) {
		t.Errorf("%+v", l.calls)
	}
}

func TestSpell(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", -time.Second: "0s", time.Nanosecond: "1ms", 20 * time.Millisecond: "20ms", time.Second: "1s", 8640 * time.Millisecond: "8.64s",
		8641 * time.Millisecond: "8.65s", 6 * time.Minute: "6m0s", 6*time.Minute + time.Millisecond: "6m1s", 25 * time.Hour: "25h0m0s",
	} {
		got := spell(d)
		if back, err := time.ParseDuration(got); got != want || err != nil || back < d {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestDollars(t *testing.T) {
	for n, want := range map[int64]string{0: "0.00", 1: "0.000000001", 5e9: "5.00", 1_500_000_000: "1.50", 123_456_789: "0.123456789", -2_500_000_000: "-2.50"} {
		if got := dollars(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestAddressName(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8::1": "2001:db8::", "2001:db8:0:1::1": "2001:db8:0:1::", "fe80::1%eth0": "fe80::", "": "",
	} {
		if got := addressName(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}

// TestDenials: the words for each kind of limit.
func TestDenials(t *testing.T) {
	rule := func(d ratelimit.Dim, p ratelimit.Per, s ratelimit.Scope) *ratelimit.Rule {
		return &ratelimit.Rule{ID: "l", Scope: s, Dim: d, Amount: 10, Per: p}
	}
	for want, c := range map[string]struct {
		rule *ratelimit.Rule
		kind string
		code string
	}{
		"10 requests per second for each key":                 {rule(ratelimit.Requests, ratelimit.Second, ratelimit.Key), "requests", "rate_limit_exceeded"},
		"10 tokens per minute for each key and model":         {rule(ratelimit.Tokens, ratelimit.Minute, ratelimit.KeyModel), "tokens", "rate_limit_exceeded"},
		"10 input tokens per hour for all callers together":   {rule(ratelimit.Input, ratelimit.Hour, ratelimit.Global), "tokens", "rate_limit_exceeded"},
		"10 answers at the same time for each client address": {rule(ratelimit.Streams, ratelimit.AtOnce, ratelimit.IP), "requests", "rate_limit_exceeded"},
		"$0.00000001 per month for each org":                  {rule(ratelimit.Money, ratelimit.CalendarMonth, ratelimit.Org), "insufficient_quota", "insufficient_quota"},
		"10 bytes of frames per day for each user":            {rule(ratelimit.FrameBytes, ratelimit.Day, ratelimit.User), "requests", "rate_limit_exceeded"},
	} {
		f := describe(&ratelimit.Denied{Over: []ratelimit.Shortage{{Level: ratelimit.Level{Rule: c.rule, Left: 4}, Need: 5}}, RetryAfter: 1500 * time.Microsecond})
		if !strings.Contains(f.message, want) || !strings.Contains(f.message, "used ") || !strings.Contains(f.message, "try again in 2ms") || f.kind != c.kind || f.code != c.code || f.status != 429 {
			t.Errorf("%+v", f)
		}
		if f.retryAfter != 2*time.Millisecond {
			t.Errorf("to be tried again in %v", f.retryAfter)
		}
	}
	d := &ratelimit.Denied{Over: []ratelimit.Shortage{{Level: ratelimit.Level{Rule: rule(ratelimit.Input, ratelimit.Minute, ratelimit.Key)}}}, TooLarge: true}
	if f := describe(d); f.status != 400 || f.code != "request_too_large" || !f.final || f.retryAfter != 0 {
		t.Errorf("%+v", f)
	}
	if f := describe(&budgetExhausted{d}); f.code != "budget_exhausted" || !f.final {
		t.Errorf("%+v", f)
	}
}

// TestUsageWithoutABook answers with the limits alone.
func TestUsageWithoutABook(t *testing.T) {
	s := tallied(&tally{})
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/usage", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"data":[]`) {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	s.opt.Quota.Ledger = brokenBook{}
	w = httptest.NewRecorder()
	if s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/usage", nil)); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
}

type brokenBook struct{}

func (brokenBook) Usage(context.Context, ledger.Query) ([]ledger.Sum, error) {
	return nil, errors.New("no disk")
}

// BenchmarkAnswer is one short answer, with and without limits that apply.
func BenchmarkAnswer(b *testing.B) {
	for name, applies := range map[string]bool{"free": false, "limited": true} {
		b.Run(name, func(b *testing.B) {
			var rules []ratelimit.Rule
			if applies {
				rules = []ratelimit.Rule{{ID: "r", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 1e9, Per: ratelimit.Second}, {ID: "t", Scope: ratelimit.Key, Dim: ratelimit.Tokens, Amount: 1e9, Per: ratelimit.Second}}
			}
			set, err := ratelimit.NewRules(rules)
			if err != nil {
				b.Fatal(err)
			}
			s := tallied(&tally{})
			s.opt.Quota.Applies, s.opt.Quota.Limiter = set.Match, ratelimit.NewMemory(ratelimit.MemoryOptions{Rules: set})
			for b.Loop() {
				chatOn(s, b.Context(), "fine")
			}
		})
	}
}

var _ streaming.Sink = (*till)(nil)
