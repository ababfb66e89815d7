package anthropic

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

func chatRequest(t testing.TB, body string) *providers.Request {
	t.Helper()
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// sent translates a request for a model and returns what would be sent.
func sent(t *testing.T, opt Options, model, more string) (*request, error) {
	t.Helper()
	tg := newTarget(opt, model)
	return tg.translate(chatRequest(t, `{"model":"x","messages":[{"role":"user","content":"Hi"}]`+more+`}`))
}

func compact(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestModelNames(t *testing.T) {
	for name, want := range map[string]string{
		"claude-3-haiku-20240307":                    "haiku 300 true",
		"claude-3-5-sonnet-latest":                   "sonnet 305 true",
		"claude-3-7-sonnet-20250219":                 "sonnet 307 true",
		"claude-sonnet-4-20250514":                   "sonnet 400 true",
		"claude-opus-4-1-20250805":                   "opus 401 true",
		"Claude-Haiku-4-5":                           "haiku 405 true",
		"us.anthropic.claude-opus-4-1-20250805-v1:0": "opus 401 true",
		"claude-opus-4-1@20250805":                   "opus 401 true",
		"claude-fable-5-1":                           "fable 501 true",
		"claude-opus-latest":                         "opus 9900 true",
		"claude-2.1":                                 " 201 true",
		"m":                                          " 0 false",
		"kimi-k2":                                    " 0 false",
	} {
		line, v, ok := parseModel(name)
		if got := fmt.Sprint(line, " ", v, " ", ok); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestModelRules asks for the same of many models.
func TestModelRules(t *testing.T) {
	effort := `,"reasoning_effort":"medium","temperature":0.5`
	schema := `,"response_format":{"type":"json_schema","json_schema":{"name":"n","description":"d","schema":{"type":"object"}}}`
	forced := `,"tools":[{"type":"function","function":{"name":"f","strict":true}}],"tool_choice":"required","reasoning_effort":"high"`
	for _, c := range []struct {
		model, more, want string
	}{
		{"claude-3-haiku-20240307", `,"temperature":0.5`, `"max_tokens":4096,"temperature":0.5`},
		{"claude-3-haiku-20240307", effort, "refused reasoning_effort"},
		{"claude-3-haiku-20240307", `,"reasoning_effort":"none"`, `"max_tokens":4096`},
		{"claude-3-5-haiku-latest", "", `"max_tokens":8192`},
		{"claude-3-7-sonnet-20250219", effort, `"max_tokens":64000,"thinking":{"type":"enabled","budget_tokens":8192} dropped temperature`},
		{"claude-opus-4-1", `,"temperature":0.5,"top_p":0.9`, `"max_tokens":32000,"temperature":0.5 dropped top_p`},
		{"claude-opus-4-1", `,"top_p":0.9`, `"max_tokens":32000,"top_p":0.9`},
		{"claude-sonnet-4-5", effort, `"max_tokens":64000,"thinking":{"type":"enabled","budget_tokens":8192} dropped temperature`},
		{"claude-sonnet-4-6", effort, `"max_tokens":128000,"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"medium"} dropped temperature`},
		{"claude-sonnet-4-6", `,"reasoning_effort":"minimal"`, `"max_tokens":128000,"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"low"}`},
		{"claude-sonnet-4-6", `,"reasoning_effort":"none","temperature":0.5`, `"max_tokens":128000,"thinking":{"type":"disabled"},"temperature":0.5`},
		{"claude-opus-4-7", `,"temperature":0.5,"top_k":5`, `"max_tokens":128000 dropped temperature, top_k`},
		{"claude-opus-4-7", `,"temperature":1,"top_p":1.0`, `"max_tokens":128000`},
		{"claude-sonnet-5", `,"reasoning_effort":"none"`, `"max_tokens":128000,"thinking":{"type":"disabled"}`},
		{"claude-sonnet-5-5", `,"reasoning_effort":"none"`, "refused reasoning_effort"},
		{"claude-haiku-5-5", `,"reasoning_effort":"none"`, `"max_tokens":128000,"thinking":{"type":"disabled"}`},
		{"claude-fable-5-1", `,"reasoning_effort":"none"`, "refused reasoning_effort"},
		{"claude-fable-5-1", forced, "refused tool_choice"},
		{"claude-opus-5-5", forced, "refused tool_choice"},
		{"claude-sonnet-5", forced, `"max_tokens":128000,"tools":[{"name":"f","input_schema":{"type":"object","properties":{},"additionalProperties":false},"strict":true}],"tool_choice":{"type":"any"},"output_config":{"effort":"high"}`},
		{"claude-sonnet-4-20250514", forced, `"max_tokens":64000,"tools":[{"name":"f","input_schema":{"type":"object","properties":{}}}],"tool_choice":{"type":"any"} dropped tools.strict, reasoning_effort`},
		{"claude-sonnet-4-5", schema, `"max_tokens":64000,"output_config":{"format":{"type":"json_schema","schema":{"type":"object","additionalProperties":false}}}`},
		{"claude-opus-5-5", schema + effort, `"max_tokens":128000,"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"medium","format":{"type":"json_schema","schema":{"type":"object","additionalProperties":false}}} dropped temperature`},
		{"claude-sonnet-4-20250514", schema, `"max_tokens":64000,"tools":[{"name":"answer","description":"d","input_schema":{"type":"object"}}],"tool_choice":{"type":"tool","name":"answer","disable_parallel_tool_use":true}`},
		{"claude-sonnet-4-20250514", schema + forced, "refused response_format"},
		{"claude-opus-4-6", `,"thinking":{"type":"adaptive"},"reasoning_effort":"low","temperature":0.1`, `"max_tokens":128000,"thinking":{"type":"adaptive"},"output_config":{"effort":"low"} dropped temperature`},
		{"claude-opus-4-6", `,"thinking":{"type":"disabled"},"temperature":0.1`, `"max_tokens":128000,"thinking":{"type":"disabled"},"temperature":0.1`},
	} {
		check(t, options("http://up.test"), c.model, c.more, c.want)
	}
}

func check(t *testing.T, opt Options, model, more, want string) {
	t.Helper()
	a, err := sent(t, opt, model, more)
	got := ""
	if err != nil {
		got = "refused " + providers.AsError(err).Param
	} else {
		got = strings.NewReplacer(fmt.Sprintf(`{"model":%q,`, model), "", `,"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}]`, "").Replace(compact(t, &a.out))
		got = strings.TrimSuffix(got, "}")
		if a.header() != nil {
			got += " dropped " + a.header().Get(droppedHeader)
		}
	}
	if got != want {
		t.Errorf("%s %s:\n%s, want\n%s", model, more, got, want)
	}
}

// TestOptionsOverrule: the configuration goes before what a model's name says.
func TestOptionsOverrule(t *testing.T) {
	schema := `,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}`
	for _, c := range []struct {
		set               func(*Options)
		model, more, want string
	}{
		{func(o *Options) { o.Version = "2026-10-21" }, "claude-haiku-4-5", `,"temperature":0.5`, `"max_tokens":64000 dropped temperature`},
		{func(o *Options) { o.Sampling = "send" }, "claude-opus-5", `,"temperature":0.5`, `"max_tokens":128000,"temperature":0.5`},
		{func(o *Options) { o.Sampling = "drop" }, "m", `,"temperature":0.5`, `"max_tokens":8192 dropped temperature`},
		{func(o *Options) { o.MaxTokens = 100 }, "claude-opus-5", ``, `"max_tokens":100`},
		{func(o *Options) { o.Thinking = "adaptive" }, "m", `,"reasoning_effort":"max"`, `"max_tokens":8192,"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"max"}`},
		{func(o *Options) { o.Thinking = "budget" }, "claude-opus-4-6", `,"reasoning_effort":"max"`, `"max_tokens":128000,"thinking":{"type":"enabled","budget_tokens":24576}`},
		{func(o *Options) { o.Thinking = "off" }, "m", `,"reasoning_effort":"low"`, "refused reasoning_effort"},
		{func(o *Options) { o.Thinking, o.Drop = "off", true }, "m", `,"reasoning_effort":"low","seed":1,"n":2`, `"max_tokens":8192 dropped seed, n, reasoning_effort`},
		{func(o *Options) { o.Structured = "off" }, "m", schema, "refused response_format"},
		{func(o *Options) { o.Structured = "tool" }, "m", schema, `"max_tokens":8192,"tools":[{"name":"answer","input_schema":{"type":"object"}}],"tool_choice":{"type":"tool","name":"answer","disable_parallel_tool_use":true}`},
		{func(o *Options) { o.Structured = "native" }, "claude-3-haiku-1", schema, `"max_tokens":4096,"output_config":{"format":{"type":"json_schema","schema":{"type":"object","additionalProperties":false}}}`},
	} {
		opt := options("http://up.test")
		c.set(&opt)
		check(t, opt, c.model, c.more, c.want)
	}
}

// collect ranges over a stream and returns its events.
func collect(t *testing.T, src streaming.Stream) (events []streaming.Event, err error) {
	t.Helper()
	for batch, e := range src {
		err = e
		for i := range batch {
			events = append(events, batch[i].Clone())
		}
	}
	return events, err
}

func (t target) play(tb testing.TB, body, stream string) streaming.Stream {
	req := chatRequest(tb, body)
	return func(yield func([]streaming.Event, error) bool) {
		a, err := t.translate(req)
		if err != nil {
			yield(nil, err)
			return
		}
		t.relay(a, strings.NewReader(stream), streaming.NewProgress(time.Now()), yield)
	}
}

// TestSchemaByTool: where a forced call enforces the schema, its input is the answer's
// text, and the answer ends as a text does.
func TestSchemaByTool(t *testing.T) {
	tg := newTarget(options("http://up.test"), "claude-sonnet-4-20250514")
	body := `{"model":"x","stream":true,"messages":[{"role":"user","content":"Hi"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}`
	stream := strings.NewReplacer(`"type":"text","text":""`, `"type":"tool_use","id":"toolu_1","name":"answer","input":{}`,
		"text_delta", "input_json_delta", `"text":`, `"partial_json":`, "end_turn", "tool_use").Replace(string(transcript(`{"a":`, `1}`)))
	events, err := collect(t, tg.play(t, body, stream))
	if err != nil {
		t.Fatal(err)
	}
	text, stop := "", ""
	for _, ev := range events {
		text, stop = text+ev.Text, ev.Stop+stop
		if ev.Tool != nil {
			t.Errorf("a tool call came: %+v", ev.Tool)
		}
	}
	if text != `{"a":1}` || stop != "stop" {
		t.Errorf("text %s, stop %s", text, stop)
	}
}

func TestModels(t *testing.T) {
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI()+" "+r.Header.Get("X-Api-Key")+" "+r.Header.Get("Anthropic-Version"))
		if r.URL.Query().Get("after_id") == "" {
			_, _ = io.WriteString(w, `{"data":[{"type":"model","id":"claude-b","created_at":"2025-02-19T00:00:00Z","max_tokens":64000},{"id":"claude-old","lifecycle":"retired"}],"has_more":true,"last_id":"claude old"}`)
			return
		}
		_, _ = io.WriteString(w, `{"data":[{"id":"claude-a","created_at":"soon"},{}],"has_more":false,"last_id":"claude-a"}`)
	}))
	defer srv.Close()
	list, err := New(options(srv.URL + "/")).Models(t.Context())
	if err != nil || len(list) != 2 || list[0].ID != "claude-b" || list[0].Created != 1739923200 || list[0].OwnedBy != "anthropic" || list[1].ID != "claude-a" || list[1].Created != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if want := "/v1/models?limit=1000 sk-1 2023-06-01,/v1/models?limit=1000&after_id=claude+old sk-1 2023-06-01"; strings.Join(asked, ",") != want {
		t.Errorf("asked %v", asked)
	}
}

func TestModelsFail(t *testing.T) {
	for body, status := range map[string]int{`{"type":"error","error":{"type":"authentication_error","message":"bad key"}}`: 401, `{"object":"list"}`: 200, `<html>`: 200} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		if list, err := New(options(srv.URL)).Models(t.Context()); err == nil {
			t.Errorf("%s: %v", body, list)
		}
		srv.Close()
	}
}

func TestHeaders(t *testing.T) {
	for auth, want := range map[string]string{"auto": "x-api-key sk", "api-key": "x-api-key sk", "bearer": "authorization Bearer sk", "none": ""} {
		h := (&Options{APIKey: "sk", Auth: auth, Version: "2023-06-01", Betas: []string{"a", "b"}}).sign()
		got := ""
		for _, name := range []string{"x-api-key", "authorization"} {
			if v := h.Get(name); v != "" {
				got += name + " " + v
			}
		}
		if got != want || h.Get("anthropic-beta") != "a,b" || h.Get("anthropic-version") != "2023-06-01" {
			t.Errorf("%s: %v", auth, h)
		}
	}
	if b := withPath("https://proxy.test/anthropic/v1", "/v1"); b != "https://proxy.test/anthropic/v1" {
		t.Error(b)
	}
}

// FuzzStream: whatever a server sends, the stream ends once and breaks no rule that a
// panic would tell.
func FuzzStream(f *testing.F) {
	f.Add(transcript("a", "b"))
	f.Add([]byte("data: {\"type\":\"content_block_start\",\"index\":4095,\"content_block\":{\"type\":\"tool_use\",\"name\":\"f\",\"input\":[1]}}\n\n"))
	req := chatRequest(f, `{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":{"name":"f"}}],"reasoning_effort":"low"}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		ends := 0
		for _, err := range play(req, streaming.NewProgress(time.Now()), strings.NewReader(string(text))) {
			if err != nil {
				ends++
			}
		}
		if ends > 1 {
			t.Errorf("%d errors", ends)
		}
	})
}

// FuzzNarrow: a schema becomes valid JSON or is refused.
func FuzzNarrow(f *testing.F) {
	f.Add([]byte(`{"type":"object","properties":{"a":{"oneOf":[{"minimum":1},true]}},"items":[]}`))
	f.Fuzz(func(t *testing.T, schema []byte) {
		if out, ok := narrow(schema); ok && !json.Valid(out) {
			t.Errorf("%s became %s", schema, out)
		}
	})
}

// FuzzRequest: a body that the gateway took is translated into valid JSON or refused.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}],"tools":[{"type":"function","function":{"name":"f"}}],"stop":"x"}`))
	f.Add([]byte(`{"model":"m","messages":[{"role":"user","content":"a"},{"role":"assistant","content":" ","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1"}],"reasoning_effort":"high"}`))
	tg := newTarget(options("http://up.test"), "m")
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", body, 64)
		if err != nil {
			return
		}
		a, err := tg.translate(req)
		if err != nil {
			if e := providers.AsError(err); e == nil || e.Kind != providers.BadRequest {
				t.Errorf("%s: %v", body, err)
			}
			return
		}
		if out, err := a.body(); err != nil || !json.Valid(out) || len(a.out.Messages) == 0 {
			t.Errorf("%s became %s, %v", body, out, err)
		}
	})
}
