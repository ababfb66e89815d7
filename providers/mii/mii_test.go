package mii

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/mii/wire"
	"sluice/providers/providertest"
	"sluice/streaming"
)

func request(t testing.TB, op providers.Op, body string) *providers.Request {
	t.Helper()
	req, err := providers.Parse(op, "/x", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	req.ID = "req_1"
	return req
}

func chat(t testing.TB, members string) *providers.Request {
	t.Helper()
	return request(t, providers.Chat, `{"model":"public","messages":[{"role":"user","content":"Hi"}]`+members+`}`)
}

// heard is what one answer said.
type heard struct {
	text, thought, stop string
	usage               *streaming.UsageData
	model, dropped      string
	err                 *providers.Error
}

func hear(t testing.TB, p providers.Provider, req *providers.Request) (h heard) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for batch, err := range p.Stream(ctx, req, streaming.NewProgress(time.Now())) {
		if err != nil {
			if h.err = providers.AsError(err); h.err == nil {
				t.Fatalf("%T: %v", err, err)
			}
			return h
		}
		for _, ev := range batch {
			switch ev.Kind {
			case streaming.Reasoning:
				h.thought += ev.Text
			case streaming.Usage:
				u := *ev.Usage
				h.usage = &u
			case streaming.Meta:
				h.model, h.dropped = ev.Meta.Model, ev.Meta.Header.Get("X-Sluice-Dropped-Params")
			default:
				h.text += ev.Text
				h.stop += ev.Stop
			}
		}
	}
	return h
}

// older serves any method: it checks the request and sends the replies.
func older(t testing.TB, method string, replies ...proto.Message) (baseURL string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		got, _ := grpc.MethodFromServerStream(s)
		if got != method {
			t.Errorf("method %s, want %s", got, method)
		}
		var r wire.MultiStringRequest
		if err := s.RecvMsg(&r); err != nil {
			return err
		}
		for _, m := range replies {
			if err := s.SendMsg(m); err != nil {
				return err
			}
		}
		return nil
	}))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // ends by Stop
	}()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return "http://" + l.Addr().String()
}

func TestGenerations(t *testing.T) {
	const hi = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
	detail := func(finish string, n int64) []*wire.GenerationDetails {
		return []*wire.GenerationDetails{{FinishReason: finish, PromptTokens: 3, GeneratedTokens: n}}
	}
	v01 := func(text, finish string, n int64) proto.Message {
		return &wire.GenerationReply{Response: []string{text}, Indices: []int64{0}, Details: detail(finish, n)}
	}
	current := func(text, finish string) proto.Message {
		return &wire.MultiGenerationReply{Response: []*wire.SingleGenerationReply{{Response: text, FinishReason: finish, PromptTokens: 3, GeneratedTokens: 1, TimeTaken: -1, ModelTimeTaken: -1}}}
	}
	for name, c := range map[string]struct {
		generation   Generation
		method       string
		replies      []proto.Message
		stream       bool
		text, stop   string
		tokens       int64 // 0: not told
		fails        providers.ErrorKind
		failsMessage string
	}{
		"0.1, streamed": {generation: V01, method: wire.ModelResponse_GeneratorReplyStream_FullMethodName, stream: true, text: "Hello", stop: "stop", tokens: 6,
			replies: []proto.Message{v01("Hel", "GenerationFinishReason.NONE", 1), v01("lo", "none", 2), v01("</s>", "GenerationFinishReason.NONE", 3), v01("", "GenerationFinishReason.STOP", 3)}},
		"0.1":                  {generation: V01, method: wire.ModelResponse_GeneratorReply_FullMethodName, text: "Hello", stop: "length", tokens: 5, replies: []proto.Message{v01("Hello", "GenerationFinishReason.LENGTH", 2)}},
		"0.1, as declared":     {generation: V01, method: wire.ModelResponse_GeneratorReply_FullMethodName, text: "Hello", stop: "stop", replies: []proto.Message{&wire.MultiStringReply{Response: []string{"Hello"}, TimeTaken: 1, ModelTimeTaken: 2}}},
		"0.0":                  {generation: V00, method: wire.ModelResponse_GeneratorReply_FullMethodName, text: "Hello", stop: "stop", replies: []proto.Message{&wire.MultiStringReply{Response: []string{"Hello"}, TimeTaken: 1}}},
		"0.0, with the prompt": {generation: V00, method: wire.ModelResponse_GeneratorReply_FullMethodName, text: "Hello", stop: "stop", replies: []proto.Message{&wire.MultiStringReply{Response: []string{hi + "Hello"}}}},
		"legacy, streamed":     {generation: Legacy, method: legacyMethod, stream: true, text: "Hello", stop: "stop", replies: []proto.Message{&wire.MultiStringReply{Response: []string{"Hello"}}}},
		"current server as 0.1": {generation: V01, method: wire.ModelResponse_GeneratorReplyStream_FullMethodName, stream: true, replies: []proto.Message{current("Hi", "none")},
			fails: providers.Protocol, failsMessage: "mii.generation"},
		"current server as 0.0": {generation: V00, method: wire.ModelResponse_GeneratorReply_FullMethodName, replies: []proto.Message{current("Hi", "stop")}, fails: providers.Protocol, failsMessage: "mii.generation"},
		"0.1 server as current": {method: wire.ModelResponse_GeneratorReplyStream_FullMethodName, stream: true, replies: []proto.Message{v01("Hi", "none", 1)}, fails: providers.Protocol, failsMessage: "mii.generation"},
		"0.0 server as current": {method: wire.ModelResponse_GeneratorReply_FullMethodName, replies: []proto.Message{&wire.MultiStringReply{Response: []string{"\n\x00"}}}, fails: providers.Protocol, failsMessage: "mii.generation"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, older(t, c.method, c.replies...))
			o.Generation = c.generation
			members := ""
			if c.stream {
				members = `,"stream":true`
			}
			h := hear(t, open(t, o).Target("m"), chat(t, members))
			if c.fails != 0 {
				if h.err == nil || h.err.Kind != c.fails || !strings.Contains(h.err.Message, c.failsMessage) {
					t.Errorf("%+v", h)
				}
				return
			}
			if h.err != nil || h.text != c.text || h.stop != c.stop || h.model != "m" || (h.usage == nil) != (c.tokens == 0) || h.usage != nil && h.usage.Total != c.tokens {
				t.Errorf("%+v, usage %+v", h, h.usage)
			}
		})
	}
}

// The older RESTful gateways answer a string that holds JSON.
func TestOldREST(t *testing.T) {
	var got string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = string(body)
		_, _ = io.WriteString(w, `"{\n  \"response\": [\n    \"Hello\"\n  ],\n  \"timeTaken\": 0.5\n}"`+"\n")
	}))
	defer srv.Close()
	o := restOptions(t, srv.URL)
	o.Generation = Legacy
	h := hear(t, open(t, o).Target("m"), chat(t, `,"stream":true,"max_tokens":5`))
	if h.err != nil || h.text != "Hello" || h.stop != "stop" || h.usage != nil {
		t.Errorf("%+v", h)
	}
	if want := `{"kwargs":{"do_sample":true,"max_new_tokens":5,"temperature":1,"top_p":1},"request":{"query":["\u003c|im_start|\u003euser`; !strings.HasPrefix(got, want) {
		t.Errorf("sent %s", got)
	}
}

// What the server cannot do is left out where the configuration says so, and named.
func TestDropped(t *testing.T) {
	body := message("", "stop", 0)
	o := options(t, serve(t, &providertest.Script{Body: []byte(body)}))
	o.Drop = true
	h := hear(t, open(t, o).Target("m"), chat(t, `,"stream":true,"seed":1,"tools":[{"type":"function","function":{"name":"f"}}],"top_k":4,"user":"u"`))
	if names := strings.Split(h.dropped, ", "); h.err != nil || !slices.Equal(names, []string{"seed", "tools", "top_k"}) {
		t.Errorf("%+v", h)
	}
}

// A bound that a caller asked to pass is told.
func TestBoundedLength(t *testing.T) {
	o := options(t, "http://127.0.0.1:1")
	for members, want := range map[string]string{
		"": "64 ", `,"max_tokens":128`: "128 ", `,"max_tokens":129`: "128 max_tokens", `,"max_tokens":9,"max_completion_tokens":500`: "128 max_completion_tokens",
	} {
		j, err := o.read(chat(t, members), "m")
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(j.maxNewTokens, " ", j.meta.Header.Get("X-Sluice-Dropped-Params")); got != want {
			t.Errorf("%s: %s, want %s", members, got, want)
		}
	}
}

// What one request asks for is bounded as a whole, before any of it is multiplied.
func TestBoundsOnACall(t *testing.T) {
	o := options(t, "http://127.0.0.1:1")
	o.MaxPrompt = maxCall
	many := func(n int) string { return "[" + strings.Repeat(`"a",`, n-1) + `"a"]` }
	long := func(n int) string { return `"` + strings.Repeat("a", n) + `"` }
	for name, c := range map[string]struct {
		op     providers.Op
		prompt string
		n      int
		param  string // "": it is not refused
	}{
		"as many as may be":       {providers.Completions, many(maxAnswers / 4), 4, ""},
		"one more":                {providers.Completions, many(maxAnswers/4 + 1), 4, "prompt"},
		"a body of prompts":       {providers.Completions, many(100_000), 128, "prompt"},
		"a chat":                  {providers.Chat, long(maxCall / 128), 128, "n"},
		"one long prompt":         {providers.Completions, long(maxCall), 1, ""},
		"a long prompt, twice":    {providers.Completions, long(maxCall/2 + 1), 2, "n"},
		"several, long together":  {providers.Completions, "[" + long(maxCall/2) + "," + long(maxCall/2+1) + "]", 1, "prompt"},
		"several, no longer than": {providers.Completions, "[" + long(maxCall/2) + "," + long(maxCall/2) + "]", 1, ""},
	} {
		body := fmt.Sprintf(`{"model":"public","prompt":%s,"n":%d}`, c.prompt, c.n)
		if c.op == providers.Chat {
			body = fmt.Sprintf(`{"model":"public","messages":[{"role":"user","content":%s}],"n":%d}`, c.prompt, c.n)
		}
		j, err := o.read(request(t, c.op, body), "m")
		if c.param == "" {
			if err != nil || len(j.prompts)%c.n != 0 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if e := providers.AsError(err); e == nil || e.Kind != providers.BadRequest || e.Param != c.param || !strings.Contains(e.Message, `"public"`) {
			t.Errorf("%s: %+v, want %s refused", name, e, c.param)
		}
	}
}

func TestThoughts(t *testing.T) {
	body := message("<thi", "none", 1) + message("nk>a\n</think>", "none", 2) + message("\n\nb", "none", 3) + message("", "stop", 3)
	o := options(t, serve(t, &providertest.Script{Body: []byte(body)}))
	o.Think = &kit.Think{}
	h := hear(t, open(t, o).Target("m"), chat(t, `,"stream":true`))
	if h.err != nil || h.thought != "a\n" || h.text != "b" {
		t.Errorf("%+v", h)
	}
}

// TestEnds: a mark of the model's format ends an answer wherever it stands, in legacy
// completions too; a caller's sequence does only where thoughts have ended.
func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		op                  providers.Op
		template, members   string
		says                []string
		thought, text, stop string
	}{
		"a sequence in thoughts":     {providers.Chat, "chatml", `,"stop":"X"`, []string{"<think>aX", "b</think>cX", "d"}, "aXb", "c", "stop"},
		"a mark in thoughts":         {providers.Chat, "chatml", "", []string{"<think>a<|im", "_end|>b</think>c"}, "a", "", "stop"},
		"a mark in the answer":       {providers.Chat, "llama3", "", []string{"a<|eot", "_id|>b"}, "", "a", "stop"},
		"a word of the format":       {providers.Chat, "alpaca", "", []string{"a### Instr", "uction:b"}, "", "a", "stop"},
		"a mark, completions":        {providers.Completions, "llama3", "", []string{"a<|eot", "_id|>b"}, "", "a", "stop"},
		"a mark, whole completions":  {providers.Completions, "chatml", "", []string{"a<|im_end|>b"}, "", "a", "stop"},
		"no mark, only a word":       {providers.Completions, "alpaca", "", []string{"a### Instr", "uction:b"}, "", "a### Instruction:b", "length"},
		"a sequence before the mark": {providers.Chat, "chatml", `,"stop":["b","X"]`, []string{"ab<|im_end|>X"}, "", "a", "stop"},
	} {
		body := ""
		for i, text := range c.says {
			body += message(text, "none", i+1)
		}
		body += message("", "length", len(c.says))
		stream := `,"stream":true`
		if name == "a mark, whole completions" {
			stream, body = "", message(c.says[0], "length", 1)
		}
		o := options(t, serve(t, &providertest.Script{Body: []byte(body)}))
		o.Think, o.Template = &kit.Think{}, template(t, c.template)
		req := chat(t, stream+c.members)
		if c.op == providers.Completions {
			req = request(t, c.op, `{"model":"public","prompt":"Hi"`+stream+c.members+`}`)
		}
		if h := hear(t, open(t, o).Target("m"), req); h.err != nil || h.thought != c.thought || h.text != c.text || h.stop != c.stop {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// A call that is left is counted with what the server may go on to generate, and its
// usage so far is the server's own count.
func TestUnstopped(t *testing.T) {
	script := &providertest.Script{Body: []byte(message("a", "none", 1) + message("b", "none", 2)), Stop: providertest.BehindBody,
		Stopped: make(chan struct{}), Gone: make(chan struct{})}
	p := open(t, options(t, serve(t, script)))
	ctx, leave := context.WithCancel(t.Context())
	prog := streaming.NewProgress(time.Now())
	events := 0
	for batch, err := range p.Target("m").Stream(ctx, chat(t, `,"stream":true,"max_tokens":10`), prog) {
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if events += len(batch); events == 3 {
			leave()
		}
	}
	leave()
	<-script.Gone
	if answers, tokens := p.Unstopped(); answers != 1 || tokens != 8 {
		t.Errorf("%d answers and %d tokens are counted as not stopped", answers, tokens)
	}
	if r := prog.Report(); !r.Reported || r.Usage.Prompt != 3 || r.Usage.Completion != 2 {
		t.Errorf("usage %+v", r.Usage)
	}
	// An answer that ended by itself leaves nothing behind, and one that ended at a stop
	// sequence of the caller's does.
	whole := options(t, serve(t, &providertest.Script{Body: []byte(message("aXb", "none", 1) + message("", "stop", 1))}))
	p = open(t, whole)
	if h := hear(t, p.Target("m"), chat(t, `,"stream":true`)); h.text != "aXb" || h.err != nil {
		t.Errorf("%+v", h)
	}
	if answers, _ := p.Unstopped(); answers != 0 {
		t.Error("an answer that ended is counted")
	}
	if h := hear(t, p.Target("m"), chat(t, `,"stream":true,"stop":"X","max_tokens":10`)); h.text != "a" || h.stop != "stop" || h.usage == nil || h.usage.Completion != 1 {
		t.Errorf("%+v", h)
	}
	if answers, tokens := p.Unstopped(); answers != 1 || tokens != 9 {
		t.Errorf("%d answers and %d tokens after a stop sequence", answers, tokens)
	}
}

// An answer whose connection breaks behind its reason to end, before the call has ended
// well, is cut.
func TestBrokenBehindTheEnd(t *testing.T) {
	script := &providertest.Script{Body: []byte(message("a", "none", 1) + message("", "stop", 1)), Break: true}
	h := hear(t, open(t, options(t, serve(t, script))).Target("m"), chat(t, `,"stream":true`))
	if h.err == nil || h.err.Kind != providers.Truncated || h.stop != "" {
		t.Errorf("%+v", h)
	}
}

// Calls beyond the bound fail at once instead of waiting without a word.
func TestMaxCalls(t *testing.T) {
	script := &providertest.Script{Stop: providertest.BeforeHeaders, Stopped: make(chan struct{}), Gone: make(chan struct{})}
	o := options(t, serve(t, script))
	o.MaxCalls = 1
	p := open(t, o)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range p.Target("m").Stream(ctx, chat(t, `,"stream":true`), streaming.NewProgress(time.Now())) {
		}
	}()
	<-script.Stopped
	if h := hear(t, p.Target("m"), chat(t, "")); h.err == nil || h.err.Kind != providers.Overloaded {
		t.Errorf("%+v", h)
	}
	leave()
	<-ended
	if n := p.calls.Load(); n != 0 {
		t.Errorf("%d calls are still counted", n)
	}
}

// A server that comes back is found again, without a new provider.
func TestReconnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	start := func(l net.Listener) (stop func()) {
		s := grpc.NewServer()
		wire.RegisterModelResponseServer(s, &scripted{t: t, server: s, script: &providertest.Script{Body: []byte(message("a", "stop", 1))}})
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = s.Serve(l) // ends by Stop
		}()
		return func() { s.Stop(); <-served }
	}
	stop := start(l)
	p := open(t, options(t, "http://"+l.Addr().String()))
	if h := hear(t, p.Target("m"), chat(t, "")); h.text != "a" {
		t.Fatalf("%+v", h)
	}
	if _, err := p.Models(t.Context()); err != nil {
		t.Errorf("a server that answers cannot be reached: %v", err)
	}
	stop()
	if h := hear(t, p.Target("m"), chat(t, "")); h.err == nil || h.err.Kind != providers.Unreachable && h.err.Kind != providers.Truncated {
		t.Errorf("without a server: %+v, %v", h, h.err)
	}
	for end := time.Now().Add(10 * time.Second); ; { // until its end has been seen
		if _, err := p.Models(t.Context()); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no server answers, and is reached")
		}
	}
	again, err := net.Listen("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer start(again)()
	for end := time.Now().Add(10 * time.Second); ; {
		h := hear(t, p.Target("m"), chat(t, ""))
		if h.text == "a" {
			break
		}
		if h.err == nil || h.err.Kind != providers.Unreachable || time.Now().After(end) {
			t.Fatalf("with a server again: %+v", h)
		}
	}
}

// Answers beyond the 4 MiB that the library takes by default arrive.
func TestLargeAnswer(t *testing.T) {
	text := strings.Repeat("x", 6<<20)
	o := options(t, serve(t, &providertest.Script{Body: []byte(message(text, "stop", 1))}))
	o.MaxAnswer = 16 << 20
	if h := hear(t, open(t, o).Target("m"), chat(t, "")); h.err != nil || len(h.text) != len(text) {
		t.Errorf("%d bytes, %v", len(h.text), h.err)
	}
}

// The paths that end the service cannot be reached, whatever a caller or a name says.
func TestNothingTerminates(t *testing.T) {
	var bad atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() == "/terminate" || !strings.HasPrefix(r.URL.EscapedPath(), "/mii/") && r.URL.Path != "/healthz" {
			bad.Add(1)
		}
		_, _ = io.WriteString(w, `[]`)
	}))
	defer srv.Close()
	for _, name := range []string{"..%2fterminate", "/terminate", "a/terminate", "x?y#z", "terminate?"} {
		o := restOptions(t, srv.URL)
		o.Deployment = name
		p := open(t, o)
		hear(t, p.Target(name), request(t, providers.Chat, fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hi"}]}`, name)))
		if _, err := p.Models(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if bad.Load() > 0 {
		t.Error("a path outside of the deployment was asked for")
	}
	if wire.File_modelresponse_proto.Services().ByName("ModelResponse").Methods().ByName("Terminate") != nil {
		t.Error("the client knows the method that ends the service")
	}
}
