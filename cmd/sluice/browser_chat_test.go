package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// browserGateway serves pages of one other origin beside its own.
func browserGateway(t *testing.T, more string) (g *gatewayUnderTest, w *wall.Wall, pages string) {
	t.Helper()
	base, w := wall.Start(t)
	s := servePages(t, func() *gatewayUnderTest { return g })
	g = bootProcess(t, more+fmt.Sprintf("\n[websocket]\norigins = [%q]\n[[upstreams]]\nname = \"wall\"\nbase_url = %q\nmodels = [\"wall*\"]\nlist_models = false\n", s.URL, base))
	return g, w, s.URL
}

// TestBrowser lets pages of another origin and of the gateway's own ask over both
// transports.
func TestBrowser(t *testing.T) {
	t.Parallel()
	g, w, pages := browserGateway(t, "")
	for _, from := range []struct{ name, page string }{{"other origin", pages}, {"same origin", strings.TrimSuffix(g.URL, "/v1") + "/livez"}} {
		for _, transport := range transports {
			t.Run(from.name+", "+transport, func(t *testing.T) {
				t.Parallel()
				p := openTab(t, from.page, pages, g.URL)
				s := &browserStage{g: g, w: w, p: p, asker: asker{g.URL, g.Key, transport, nil}, keys: strings.ReplaceAll(from.name, " ", "-") + "-" + transport}
				for _, part := range []struct {
					name string
					run  func(*testing.T, *browserStage)
				}{
					{"deltas one by one", checkPageDeltas}, {"demo", checkPageDemo}, {"tools", checkPageTools}, {"completion", checkPageCompletion}, {"errors", checkPageErrors},
					{"stop", checkPageStop}, {"many", checkPageMany},
				} {
					t.Run(part.name, func(t *testing.T) { part.run(t, s) })
				}
			})
		}
	}
}

// browserStage is one page with one transport.
type browserStage struct {
	g *gatewayUnderTest
	w *wall.Wall
	p *tab
	asker
	keys string // makes names unique
	made int
}

// model returns a scripted model and the key of its calls.
func (s *browserStage) model(script string) (model, key string) {
	s.made++
	key = fmt.Sprintf("%s-%d", s.keys, s.made)
	return wallModel(key, script), key
}

func checkPageDeltas(t *testing.T, s *browserStage) {
	const tokens, pace = 40, 30 * time.Millisecond
	model, _ := s.model("tokens=40,delay=30ms,reasoning=3")
	r := s.p.ask(t, s.chat(model))
	if r.Error != nil || r.Answer == nil {
		t.Fatalf("%+v", r.Error)
	}
	if n, err := wall.Verify("wall", r.Answer.Content); n != tokens || err != nil || r.Answer.Finish != "stop" {
		t.Errorf("%d tokens, %v, finish %q", n, err, r.Answer.Finish)
	}
	if n, err := (wall.Chain{Seed: "wall"}).Reasoning().Verify(r.Answer.Reasoning); n != 3 || err != nil {
		t.Errorf("%d reasoning tokens: %v", n, err)
	}
	if u := r.Answer.Usage; u == nil || u.Prompt != 3 || u.Completion != tokens+3 {
		t.Errorf("usage %+v", u)
	}
	if len(r.Deltas) < tokens*3/4 || r.Chunks < len(r.Deltas) {
		t.Errorf("%d deltas and %d chunks for %d tokens", len(r.Deltas), r.Chunks, tokens)
	}
	var gaps []time.Duration
	for i, at := range r.At[1:] {
		gaps = append(gaps, time.Duration(at-r.At[i])*time.Millisecond)
	}
	if m := median(gaps); m < pace/3 || m > 3*pace {
		t.Errorf("the median gap between two deltas is %v, want %v", m, pace)
	}
	if a := r.Answer; a.TTFT == nil || a.Total == nil || *a.Total < *a.TTFT || *a.Total < int(tokens/2*pace/time.Millisecond) {
		t.Errorf("ttft %v, total %v", a.TTFT, a.Total)
	}
	if len(r.Accepted) != 1 || r.Accepted[0].ID != r.Answer.RequestID || r.Accepted[0].Position != 0 {
		t.Errorf("accepted %+v, answer %q", r.Accepted, r.Answer.RequestID)
	}
	line := s.g.accessLine(t, model)
	if want := map[string]string{"websocket": "ws", "sse": "sse"}[s.transport]; line["request_id"] != r.Answer.RequestID || line["transport"] != want {
		t.Errorf("the page has request %s over %s, the log %v", r.Answer.RequestID, want, line)
	}
}

func checkPageDemo(t *testing.T, s *browserStage) {
	r := s.p.ask(t, s.chat("demo-echo"))
	if r.Error != nil || r.Answer == nil || !strings.Contains(r.Answer.Content, words) || len(r.Deltas) < 3 {
		t.Errorf("%+v, %+v", r.Answer, r.Error)
	}
}

func checkPageTools(t *testing.T, s *browserStage) {
	model, _ := s.model("tools=2,args=6,tool_interleave")
	task := s.chat(model)
	var tools []any
	for _, name := range []string{"look_up", "write_down"} {
		tools = append(tools, map[string]any{"type": "function", "function": map[string]any{"name": name, "parameters": map[string]any{"type": "object"}}})
	}
	task.Request["tools"] = tools
	r := s.p.ask(t, task)
	if r.Error != nil || r.Answer == nil || r.Answer.Finish != "tool_calls" || len(r.Answer.Tools) != 2 {
		t.Fatalf("%+v, %+v", r.Answer, r.Error)
	}
	for i, c := range r.Answer.Tools {
		n, err := wall.Chain{Seed: "wall"}.VerifyArgs(i, c.Function.Arguments)
		if want := []string{"look_up", "write_down"}[i]; c.ID == "" || c.Type != "function" || c.Function.Name != want || n != 6 || err != nil {
			t.Errorf("call %d: %+v, %d tokens, %v", i, c, n, err)
		}
	}
}

func checkPageCompletion(t *testing.T, s *browserStage) {
	model, _ := s.model("tokens=8")
	r := s.p.ask(t, pageTask{Options: s.options(nil), Request: map[string]any{"model": model, "prompt": words}, Complete: true})
	r.complete(t, 8)
}

func checkPageErrors(t *testing.T, s *browserStage) {
	for _, c := range []struct {
		script       string
		status       int // over WebSocket, and over SSE before the stream
		kind, code   string
		words, param string
		tokens       int // before it
		retryAfter   int
	}{
		{script: "context", status: 400, kind: "invalid_request_error", code: "context_length_exceeded", param: "messages", words: "maximum context length"},
		{script: "status=429,retry_after=60,errtype=tokens,errcode=rate_limit_exceeded", status: 429, kind: "tokens", code: "rate_limit_exceeded", retryAfter: 60_000},
		{script: "cut=5", status: 502, kind: "server_error", code: "upstream_truncated", tokens: 5},
		{script: "reset=5", status: 502, kind: "server_error", code: "upstream_truncated", tokens: 5},
		{script: "error=5:openai", status: 502, words: "boom", tokens: 5},
		{script: "nofinish", status: 502, kind: "server_error", code: "upstream_truncated", tokens: 16},
	} {
		t.Run(c.script, func(t *testing.T) {
			model, key := s.model(c.script)
			r := s.p.ask(t, s.chat(model))
			e := r.Error
			if e == nil || e.Name != "SluiceError" {
				t.Fatalf("%+v, %+v", r.Answer, e)
			}
			status := c.status
			if c.tokens > 0 && s.transport == "sse" {
				status = 0 // it had been 200
			}
			if e.Status != status || c.kind != "" && e.Type != c.kind || c.code != "" && e.Code != c.code || e.Param != c.param || !strings.Contains(e.Message, c.words) || e.RetryAfter != c.retryAfter {
				t.Errorf("%+v", *e)
			}
			if n, err := wall.Verify("wall", r.text()); n != c.tokens || err != nil || (e.Partial == nil) != (c.tokens == 0) || e.Partial != nil && *e.Partial != r.text() {
				t.Errorf("%d of %d tokens, %v, partial %v", n, c.tokens, err, e.Partial)
			}
			if line := s.g.accessLine(t, model); line["request_id"] != e.RequestID {
				t.Errorf("the page has request %q, the log %v", e.RequestID, line)
			}
			if n := calls(s.w, key); c.tokens > 0 && n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
	t.Run("no such model", func(t *testing.T) {
		r := s.p.ask(t, s.chat("none"))
		if e := r.Error; e == nil || e.Status != 404 || e.Code != "model_not_found" || e.Param != "model" || e.Partial != nil {
			t.Errorf("%+v, %+v", r.Answer, e)
		}
	})
	t.Run("wrong key", func(t *testing.T) {
		task := s.chat("demo-echo")
		task.Options["apiKey"] = "sk-wrong"
		r := s.p.ask(t, task)
		if e := r.Error; e == nil || e.Name != "SluiceError" || e.Status != 401 || e.Code != "invalid_api_key" {
			t.Errorf("%+v, %+v", r.Answer, e)
		}
	})
}

func checkPageStop(t *testing.T, s *browserStage) {
	for _, c := range []struct {
		name, script string
		after        int                     // deltas, or
		when         func(wall.Request) bool // as the upstream sees it
	}{
		{name: "in the middle", script: "tokens=100000,delay=5ms", after: 3},
		{name: "before the first token", script: "role=early,first=1m", when: func(q wall.Request) bool { return q.Bytes > 0 }},
		{name: "before headers", script: "headers=1m", when: arrived},
	} {
		t.Run(c.name, func(t *testing.T) {
			model, key := s.model(c.script)
			task := s.chat(model)
			task.LeaveAfter = c.after
			name := s.p.start(t, task)
			if c.when != nil {
				awaitCall(t, s.w, key, c.when)
				s.p.leave(t, name)
			}
			r := s.p.finished(t, name)
			if r.Error == nil || r.Error.Name != "AbortError" || len(r.Deltas) != c.after {
				t.Fatalf("%+v, %d deltas", r.Error, len(r.Deltas))
			}
			q := awaitCall(t, s.w, key, ended)
			if q.End != wall.ClientGone || upTo(q, r.LeftAt) > soon {
				t.Errorf("the upstream ended with %q, %v after the page had left", q.End, upTo(q, r.LeftAt))
			}
			end := s.g.accessLine(t, model)["end"]
			if want := map[string]string{"websocket": "cancelled", "sse": "client_gone"}[s.transport]; end != want {
				t.Errorf("the log says %q, want %q", end, want)
			}
		})
	}
}

func checkPageMany(t *testing.T, s *browserStage) {
	const many, tokens = 20, 30
	names := make([]string, many)
	for i := range names {
		model, _ := s.model(fmt.Sprintf("tokens=%d,delay=5ms,seed=%s%d", tokens, s.keys, i))
		names[i] = s.p.start(t, s.chat(model))
	}
	for i, name := range names {
		r := s.p.finished(t, name)
		if r.Error != nil || r.Answer == nil {
			t.Fatalf("answer %d: %+v", i, r.Error)
		}
		if n, err := wall.Verify(fmt.Sprint(s.keys, i), r.Answer.Content); n != tokens || err != nil {
			t.Errorf("answer %d: %d tokens, %v", i, n, err)
		}
	}
}

// TestBrowserStranger is a page that the gateway has not been told of: it may ask over
// SSE, as the default of cors allows, and may not open a WebSocket.
func TestBrowserStranger(t *testing.T) {
	t.Parallel()
	g, _, pages := browserGateway(t, "")
	p := openTab(t, strings.Replace(pages, "127.0.0.1", "localhost", 1), pages, g.URL)
	task := asker{g.URL, g.Key, "websocket", nil}.chat("demo-echo")
	task.Options["retries"] = 1
	if r := p.ask(t, task); r.Error == nil || r.Error.Name != "ConnectionError" || !strings.Contains(r.Error.Message, "websocket.origins") {
		t.Errorf("%+v, %+v", r.Answer, r.Error)
	}
	refused := g.awaitLine(t, "the refusal", func(l map[string]string) bool { return l["msg"] == "refused" })
	if refused["end"] != "forbidden" || refused["status"] != fmt.Sprint(http.StatusForbidden) {
		t.Errorf("%v", refused)
	}
	if r := p.ask(t, asker{g.URL, g.Key, "sse", nil}.chat("demo-echo")); r.Error != nil {
		t.Errorf("%+v", r.Error)
	}
}

// TestBrowserTickets lets pages connect that never see the key, and others that do not
// want to send it.
func TestBrowserTickets(t *testing.T) {
	t.Parallel()
	g, _, pages := browserGateway(t, "")
	p := openTab(t, pages, pages, g.URL)
	a := asker{g.URL, g.Key, "websocket", nil}
	for name, options := range map[string]map[string]any{
		"from the page's server":  a.options(map[string]any{"apiKey": nil, "ticketFrom": "/ticket"}),
		"from the gateway":        a.options(map[string]any{"ticketURL": g.URL + "/tickets"}),
		"with a wrong key for it": a.options(map[string]any{"apiKey": "sk-wrong", "ticketURL": g.URL + "/tickets"}),
	} {
		t.Run(name, func(t *testing.T) {
			task := a.chat("demo-echo")
			task.Options = options
			r := p.ask(t, task)
			if strings.HasPrefix(name, "with a wrong key") {
				if r.Error == nil || r.Error.Status != 401 {
					t.Errorf("%+v, %+v", r.Answer, r.Error)
				}
				return
			}
			if r.Error != nil {
				t.Errorf("%+v", r.Error)
			}
		})
	}
	if strings.Contains(g.Logs(), g.Key) {
		t.Error("the key stands in the log")
	}
}
