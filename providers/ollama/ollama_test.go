package ollama

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// fake is a server that knows some models, by what they can do.
type fake struct {
	traits map[string]string // what /api/show answers, by model
	mu     sync.Mutex
	shows  int
	chats  []map[string]json.RawMessage
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body map[string]json.RawMessage
	var model string
	if json.NewDecoder(r.Body).Decode(&body) == nil {
		_ = json.Unmarshal(body["model"], &model) // "" is an unknown model
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.URL.Path {
	case "/api/tags":
		io.WriteString(w, `{"models":[{"name":"a:latest","model":"a:latest","modified_at":"2026-01-02T03:04:05.5Z","size":7,"details":{"family":"llama"}},{"name":""},{"name":"b","modified_at":"0001-01-01T00:00:00Z"}]}`)
	case "/api/show":
		f.shows++
		if f.traits[model] == "" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, f.traits[model])
	default:
		f.chats = append(f.chats, body)
		w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprintf(w, `{"model":%q,"message":{"role":"assistant","content":"ok"},"done":true,"done_reason":"stop"}`+"\n", model)
	}
}

func start(t *testing.T, traits map[string]string) (*fake, string) {
	t.Helper()
	f := &fake{traits: traits}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return f, srv.URL
}

// chatWith sends a chat request with more members to a model, and returns its Meta.
func chatWith(t *testing.T, p *Provider, model, members string) (*streaming.MetaData, error) {
	t.Helper()
	return askBody(t, p, model, `{"model":"m","messages":[{"role":"user","content":"Hi"}]`+members+`}`)
}

func askBody(t *testing.T, p *Provider, model, body string) (meta *streaming.MetaData, failed error) {
	t.Helper()
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	for batch, err := range p.Target(model).Stream(t.Context(), req, streaming.NewProgress(time.Now())) {
		if err != nil {
			return meta, err
		}
		for i := range batch {
			if batch[i].Meta != nil {
				meta = batch[i].Meta
			}
		}
	}
	return meta, nil
}

const (
	plain   = `{"capabilities":["completion"],"details":{"family":"llama"}}`
	thinks  = `{"capabilities":["completion","tools","thinking","vision"],"details":{"family":"qwen3"}}`
	leveled = `{"capabilities":["completion","tools","thinking"],"details":{"family":"gptoss"}}`
	old     = `{"details":{"family":"llama"}}`

	oneTool  = `,"tools":[{"type":"function","function":{"name":"f"}}]`
	anyImage = `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:;base64,iVBORw0KGgo="}}]}]}`
)

// routed refuses as the router does.
func routed(t *testing.T, p *Provider, model, body string) error {
	t.Helper()
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	can := p.Target(model).(target).Capabilities(t.Context(), req.Needs())
	if lacks := can.No & req.Needs() &^ can.Dropped; lacks != 0 {
		return req.Refusal(can, lacks)
	}
	_, err = askBody(t, p, model, body)
	return err
}

// What a model is known not to do is refused before it is asked.
func TestCapabilities(t *testing.T) {
	f, url := start(t, map[string]string{"plain": plain, "thinking": thinks, "leveled": leveled, "old": old, "vectors": `{"capabilities":["embedding"]}`})
	for _, c := range []struct{ model, members, refused, think string }{
		{"plain", oneTool, "tools", ""}, {"thinking", oneTool, "", ""}, {"old", oneTool, "", ""}, {"unknown", oneTool, "", ""},
		{"plain", `,"reasoning_effort":"high"`, "reasoning_effort", ""}, {"plain", `,"reasoning_effort":"none"`, "", "false"},
		{"thinking", `,"reasoning_effort":"low"`, "", "true"}, {"old", `,"reasoning_effort":"low"`, "", "true"},
		{"leveled", `,"reasoning_effort":"minimal"`, "", `"low"`}, {"leveled", `,"reasoning_effort":"max"`, "", `"high"`},
		{"plain", "image", "messages[0].content[0]", ""}, {"thinking", "image", "", ""}, {"vectors", "", "model", ""}, {"vectors", `,"n":2`, "n", ""},
	} {
		p := newTarget(url, nil).Provider
		f.chats = nil
		body := anyImage
		if c.members != "image" {
			body = `{"model":"m","messages":[{"role":"user","content":"Hi"}]` + c.members + `}`
		}
		if c.model == "vectors" && c.members == "" {
			p.Target(c.model).(target).traits(t.Context()) // a plain chat asks nobody
		}
		err := routed(t, p, c.model, body)
		e := providers.AsError(err)
		switch {
		case c.refused != "" && (e == nil || e.Kind != providers.BadRequest || e.Param != c.refused || len(f.chats) > 0):
			t.Errorf("%s %s: %v, want %s refused and nothing sent", c.model, c.members, err, c.refused)
		case c.refused == "" && (err != nil || len(f.chats) != 1 || string(f.chats[0]["think"]) != c.think):
			t.Errorf("%s %s: %v, sent %s, want think %s", c.model, c.members, err, f.chats, c.think)
		}
	}
}

// A model is asked what it can do once in a while, and not at all by plain calls.
func TestTraitsAreRemembered(t *testing.T) {
	f, url := start(t, map[string]string{"thinking": thinks})
	p := newTarget(url, nil).Provider
	for range 3 {
		for model, members := range map[string]string{"thinking": oneTool, "other": ""} {
			if err := routed(t, p, model, `{"model":"m","messages":[{"role":"user","content":"Hi"}]`+members+`}`); err != nil {
				t.Fatal(err)
			}
		}
	}
	if f.shows != 1 {
		t.Errorf("asked %d times what the model can do", f.shows)
	}
	for i := range maxTraits + 5 {
		p.shown.put(fmt.Sprint(i), &traits{})
	}
	if len(p.shown.models) > maxTraits {
		t.Errorf("%d models remembered", len(p.shown.models))
	}
}

func TestDrop(t *testing.T) {
	f, url := start(t, map[string]string{"plain": plain})
	p := newTarget(url, func(o *Options) { o.Drop = true }).Provider
	meta, err := chatWith(t, p, "plain", oneTool+`,"tool_choice":"required","logit_bias":{"1":1},"n":2,"reasoning_effort":"high","user":"u"`)
	if err != nil {
		t.Fatal(err)
	}
	if got := meta.Header.Get("x-sluice-dropped-params"); got != "tool_choice, n, logit_bias, tools, reasoning_effort" &&
		got != "tool_choice, logit_bias, n, tools, reasoning_effort" {
		t.Errorf("dropped %q", got)
	}
	if sent := f.chats[0]; sent["tools"] != nil || sent["think"] != nil || sent["n"] != nil {
		t.Errorf("sent %s", sent)
	}
	if err := routed(t, p, "plain", anyImage); providers.AsError(err) == nil || providers.AsError(err).Kind != providers.BadRequest {
		t.Errorf("an image was dropped: %v", err)
	}
}

// What the configuration says stands behind what a caller asks for.
func TestConfigured(t *testing.T) {
	f, url := start(t, nil)
	p := newTarget(url, func(o *Options) {
		o.KeepAlive, o.ModelOptions = "5m", []byte(`{"num_ctx":4096,"temperature":0.1,"stop":["x"]}`)
	}).Provider
	for members, want := range map[string]string{
		"": `"5m" {"num_ctx":4096,"temperature":0.1,"stop":["x"]}`,
		`,"keep_alive":7,"temperature":1,"stop":"y","options":{"num_ctx":9}`: `7 {"num_ctx":9,"temperature":1,"stop":["y"]}`,
	} {
		f.chats = nil
		if _, err := chatWith(t, p, "m", members); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s %s", f.chats[0]["keep_alive"], f.chats[0]["options"]); got != want {
			t.Errorf("%s: sent %s, want %s", members, got, want)
		}
	}
	p.opt.KeepAlive = "-1"
	if _, err := chatWith(t, p, "m", ""); err != nil || string(f.chats[1]["keep_alive"]) != "-1" {
		t.Errorf("sent %s, %v", f.chats[1]["keep_alive"], err)
	}
}

func TestModels(t *testing.T) {
	_, url := start(t, nil)
	got, err := newTarget(url, nil).Models(t.Context())
	if err != nil || len(got) != 3 || got[0].ID != "a:latest" || got[1].ID != "a" || got[0].Created != 1767323045 || got[0].OwnedBy != "ollama" ||
		!strings.Contains(string(got[0].Raw), `"family":"llama"`) || got[2].ID != "b" || got[2].Created != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, body := range []string{`{"data":[]}`, `<html>`, ``} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
		if _, err := newTarget(srv.URL, nil).Models(t.Context()); providers.AsError(err) == nil || providers.AsError(err).Kind != providers.Protocol {
			t.Errorf("%q: %v", body, err)
		}
		srv.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newTarget(url, nil).Models(ctx); err == nil {
		t.Error("models although nobody waits for them")
	}
}

// Operations without a counterpart are refused and not sent.
func TestNotServed(t *testing.T) {
	f, url := start(t, nil)
	for _, op := range []providers.Op{providers.Moderations, providers.Responses, providers.Passthrough} {
		req, err := providers.Parse(op, "/"+op.String(), "application/json", []byte(`{"model":"m","input":"x"}`), 64)
		if err != nil {
			t.Fatal(err)
		}
		for batch, err := range newTarget(url, nil).Stream(t.Context(), req, streaming.NewProgress(time.Now())) {
			if e := providers.AsError(err); e == nil || e.Kind != providers.BadRequest || len(batch) > 0 {
				t.Errorf("%s: %v", op, err)
			}
		}
	}
	if len(f.chats) > 0 {
		t.Errorf("sent %s", f.chats)
	}
}

// The identity of an answer is the gateway's, and the name that is to be presented.
func TestMeta(t *testing.T) {
	_, url := start(t, nil)
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(`{"model":"public","messages":[{"role":"user","content":"Hi"}]}`), 64)
	if err != nil {
		t.Fatal(err)
	}
	req.ID = "req_42"
	var names []string
	for _, r := range []*providers.Request{req, req.With("shown")} {
		for batch := range newTarget(url, nil).Stream(t.Context(), r, streaming.NewProgress(time.Now())) {
			for i := range batch {
				if m := batch[i].Meta; m != nil {
					names = append(names, m.ID+" "+m.Model)
				}
			}
		}
	}
	if want := []string{"chatcmpl-42 m", "chatcmpl-42 shown"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

// FuzzLine: whatever a server sends ends in order, and what is told is text.
func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"message":{"content":"a","thinking":"b","tool_calls":[{"id":"x","function":{"name":"f","arguments":{"a":[1]}}}]},"done":true,"eval_count":3}` + "\n"))
	f.Add([]byte(`{"response":"a"}` + "\n" + `{"error":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := providers.Parse(providers.Chat, "/x", "application/json", []byte(`{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}`), 64)
		if err != nil {
			t.Fatal(err)
		}
		stopped := false
		for batch, err := range play(req, streaming.NewProgress(time.Now()), strings.NewReader(string(body))) {
			if e := providers.AsError(err); err != nil && (e == nil || e.Kind == providers.Internal) {
				t.Errorf("%v", err)
			}
			for i := range batch {
				ev := &batch[i]
				if stopped && ev.Kind.Commits() || ev.Tool != nil && !json.Valid([]byte(ev.Tool.Args)) && !strings.Contains(string(body), `"`) {
					t.Errorf("%+v", ev)
				}
				stopped = stopped || ev.Kind == streaming.Stop
			}
		}
	})
}

// The list tells what models can do, where the server tells it there; else each is asked.
func TestListTellsTraits(t *testing.T) {
	f, url := start(t, map[string]string{"a:latest": leveled})
	p := newTarget(url, nil).Provider
	if _, err := p.Models(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.shows != 2 { // a:latest and b
		t.Errorf("asked about %d models", f.shows)
	}
	for model, want := range map[string]providers.Feature{"a": providers.Tools | providers.Reasoning, "a:latest": providers.Tools | providers.Reasoning, "b": 0} {
		if can := p.Target(model).(target).Capabilities(t.Context(), 0); can.Yes&ofModel != want {
			t.Errorf("%s: yes %s, no %s", model, can.Yes, can.No)
		}
	}
	told := newTarget(url, nil).Provider
	told.learn(t.Context(), []json.RawMessage{[]byte(`{"name":"x","capabilities":["completion","vision"]}`), []byte(`7`)})
	if can := told.Target("x").(target).Capabilities(t.Context(), providers.Vision); !can.Yes.Has(providers.Vision) || !can.No.Has(providers.Tools) || f.shows != 2 {
		t.Errorf("told yes %s, no %s; asked %d times", can.Yes, can.No, f.shows)
	}
}

// A server that does not answer holds nobody up for long, and is not asked by all at once.
func TestTraitsDoNotBlock(t *testing.T) {
	asked, end := make(chan struct{}, 100), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-end
	}))
	defer srv.Close()
	defer close(end)
	p := newTarget(srv.URL, nil).Provider
	var wg sync.WaitGroup
	begin := time.Now()
	for range 20 {
		wg.Go(func() {
			if can := p.Target("m").(target).Capabilities(t.Context(), providers.Tools); can.No.Has(providers.Tools) {
				t.Error("what is not known is refused")
			}
		})
	}
	wg.Wait()
	if took := time.Since(begin); took > 5*showPatience || len(asked) != 1 {
		t.Errorf("%s, asked %d times", took, len(asked))
	}
}
