package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/handlers"
	"sluice/handlers/auth"
	"sluice/handlers/dialect"
	"sluice/providers"
	"sluice/providers/openai"
	"sluice/providers/router"
	"sluice/providers/upstream"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// The five contracts that every room is written against, each as a test of the
// rooms together.

type anyone struct{}

func (anyone) Authenticate(http.Header) (auth.Principal, error) { return auth.Principal{Key: "k"}, nil }

type noModels struct{}

func (noModels) Models(context.Context) []providers.Model { return nil }
func (noModels) Has(context.Context, string) bool         { return false }
func (noModels) Capabilities(context.Context, string) (none providers.Capabilities) {
	return none
}

// scripted is a provider that plays steps.
type scripted []streamtest.Step

func (s scripted) Stream(ctx context.Context, _ *providers.Request, p *streaming.Progress) streaming.Stream {
	p.SetTarget("scripted")
	return streamtest.Stream(ctx, s...)
}

// serveProvider puts the handlers in front of a provider.
func serveProvider(t *testing.T, p providers.Provider, relay streaming.Relay) (*httptest.Server, *handlers.Observer) {
	t.Helper()
	o := handlers.NewObserver(nil)
	srv := httptest.NewServer(handlers.New(handlers.Options{
		Provider: p, Catalog: noModels{}, Auth: anyone{}, Relay: relay,
		Total:      func(context.Context, string) time.Duration { return time.Minute },
		WriteLimit: 5 * time.Second, Body: 1 << 20, BodyVision: 1 << 20, Depth: 64,
		Observer: o, Drain: handlers.NewDrain(), Log: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(srv.Close)
	return srv, o
}

func post(t *testing.T, url, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

const streamed = `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}`

func metric(t *testing.T, o *handlers.Observer, line string) bool {
	t.Helper()
	w := httptest.NewRecorder()
	o.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return strings.Contains(w.Body.String(), line+"\n")
}

func text(index int, s string) streaming.Event {
	return streaming.Event{Kind: streaming.Text, Index: index, Text: s}
}

// Contract 1: a panic in an adapter settles what was delivered, and the client is told.
func TestContractPanicSettlesWhatWasDelivered(t *testing.T) {
	srv, o := serveProvider(t, scripted{
		{Batch: []streaming.Event{text(0, "one "), text(0, "two ")}}, {Batch: []streaming.Event{text(0, "three")}}, {Panic: "adapter fault"},
	}, streaming.Relay{})
	body, err := io.ReadAll(post(t, srv.URL, streamed).Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(body); !strings.Contains(got, "three") || !strings.Contains(got, `data: {"error":{"message":`) || strings.Contains(got, "[DONE]") || strings.Contains(got, "adapter fault") {
		t.Errorf("the client read %s", got)
	}
	for _, line := range []string{
		`gateway_tokens_total{estimated="true",model="m",type="output"} 3`,
		`gateway_stream_outcome_total{end="internal_error",operation="chat"} 1`,
		`gateway_active_streams{transport="sse"} 0`,
	} {
		if !metric(t, o, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// Contract 2: content and usage come in one read, then silence: the text is out at once.
func TestContractTextIsOutAtOnce(t *testing.T) {
	hold := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		const id = `"id":"c1","object":"chat.completion.chunk","created":1700000000,"model":"m"`
		_, _ = io.WriteString(w, `data: {`+id+`,"choices":[{"index":0,"delta":{"role":"assistant","content":"all of it"},"finish_reason":null}]}`+"\n\n"+
			`data: {`+id+`,"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`+"\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hold)
	up := openai.New(openai.Options{Upstream: upstream.Options{Name: "up", BaseURL: server.URL}, AskUsage: true, MaxEvent: 1 << 20, MaxAnswer: 1 << 20})
	catalog := router.NewCatalog(nil, []router.Upstream{{Name: "up", Models: []string{"m"}, Target: up.Target}}, time.Second, time.Minute)
	srv, _ := serveProvider(t, router.New(catalog, router.Options{Tries: 1, HoldEvents: 64, HoldBytes: 1 << 18}), streaming.Relay{})
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(post(t, srv.URL, streamed).Body).ReadString('\n')
		lines <- line
	}()
	select {
	case line := <-lines:
		if !strings.Contains(line, "all of it") {
			t.Errorf("the first line is %q", line)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the text waits for something")
	}
}

// Contract 3: heartbeats carry the stream's identity and are legal, for one and two
// choices, chat and completions.
func TestContractHeartbeats(t *testing.T) {
	const head = `"id":"id-1","object":"%","created":1700000000,"model":"m-1","choices":[`
	meta := streaming.Event{Kind: streaming.Meta, Meta: &streaming.MetaData{ID: "id-1", Created: 1700000000, Model: "m-1"}}
	stop := func(i int) streaming.Event { return streaming.Event{Kind: streaming.Stop, Index: i, Stop: "stop"} }
	pause := 16 * time.Second
	for name, c := range map[string]struct {
		completions bool
		choices     int
		want        []string // heartbeats, in order; % stands for the object
	}{
		"chat n=1":        {false, 1, []string{": keep-alive\n", `data: {` + head + `{"index":0,"delta":{},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n"}},
		"chat n=2":        {false, 2, []string{": keep-alive\n", `data: {` + head + `{"index":0,"delta":{},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n"}},
		"completions n=1": {true, 1, []string{": keep-alive\n", `data: {` + head + `{"index":0,"text":"","logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				steps := []streamtest.Step{{Wait: pause, Batch: []streaming.Event{meta, text(0, "a")}}}
				if c.choices == 2 {
					steps = append(steps, streamtest.Step{Batch: []streaming.Event{text(1, "b"), stop(1)}})
				}
				steps = append(steps, streamtest.Step{Wait: pause, Batch: []streaming.Event{stop(0)}}, streamtest.Step{Wait: 10 * pause})
				o := dialect.Options{ID: "fallback", Model: "fallback", WantsUsage: true, Choices: c.choices}
				enc, object := dialect.NewChat(streaming.SSEFraming, o), "chat.completion.chunk"
				if c.completions {
					enc, object = dialect.NewCompletions(streaming.SSEFraming, o), "text_completion"
				}
				beats := &recorder{Encoder: enc}
				w := httptest.NewRecorder()
				r := streaming.Relay{Heartbeat: 15 * time.Second, CommitAfter: 10 * time.Second}
				if err := r.Run(t.Context(), func(ctx context.Context) streaming.Stream { return streamtest.Stream(ctx, steps...) },
					streaming.NewSSE(w, 1, beats, 0, nil), streaming.NewProgress(time.Now())); err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, b := range beats.heartbeats {
					if b != "" {
						got = append(got, b)
					}
				}
				if len(got) != len(c.want) {
					t.Fatalf("heartbeats %q", got)
				}
				for i, want := range c.want {
					if want = strings.Replace(want, "%", object, 1); got[i] != want {
						t.Errorf("heartbeat %d is\n%q, want\n%q", i, got[i], want)
					}
				}
				if !strings.HasSuffix(w.Body.String(), "data: [DONE]\n\n") {
					t.Errorf("the stream ends with %q", w.Body.String())
				}
			})
		})
	}
}

// recorder keeps what an encoder gives as heartbeats.
type recorder struct {
	streaming.Encoder
	heartbeats []string
}

func (r *recorder) AppendHeartbeat(dst []byte) []byte {
	out := r.Encoder.AppendHeartbeat(dst)
	r.heartbeats = append(r.heartbeats, string(out[len(dst):]))
	return out
}

// Contract 4: what the router holds back survives the reuse of the buffers it came in.
func TestContractHeldPreambleSurvivesReuse(t *testing.T) {
	raw := func(kind streaming.Kind, s string) streamtest.Step {
		return streamtest.Step{Batch: []streaming.Event{{Kind: kind, Raw: []byte(s), Dialect: streaming.Opaque}}}
	}
	target := &router.Target{Name: "t", Weight: 1, Provider: scripted{raw(streaming.Lifecycle, "role"), raw(streaming.Lifecycle, "filter"), raw(streaming.Text, "text")}}
	r := router.New(fixed{&router.Pool{Targets: []*router.Target{target}}}, router.Options{Tries: 1, HoldEvents: 64, HoldBytes: 1 << 18})
	var got []string
	for batch, err := range r.Stream(t.Context(), &providers.Request{}, streaming.NewProgress(time.Now())) {
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range batch {
			if ev.Raw != nil {
				got = append(got, string(ev.Raw))
			}
		}
	}
	if strings.Join(got, " ") != "role filter text" {
		t.Errorf("got %q", got)
	}
}

type fixed struct{ pool *router.Pool }

func (f fixed) Resolve(context.Context, string) (*router.Pool, error) { return f.pool, nil }

// Contract 5: a stalled sink slows only itself.
func TestContractStalledSinkSlowsOnlyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var steps []streamtest.Step
		for range 100 {
			steps = append(steps, streamtest.Step{Wait: 10 * time.Millisecond, Batch: []streaming.Event{text(0, "x")}})
		}
		open := func(ctx context.Context) streaming.Stream { return streamtest.Stream(ctx, steps...) }
		r := streaming.Relay{Heartbeat: time.Second}
		stalled := make(chan error, 1)
		go func() {
			sink := &streamtest.Sink{Block: func() error { time.Sleep(10 * time.Second); return streaming.ErrSlow }}
			stalled <- r.Run(t.Context(), open, sink, streaming.NewProgress(time.Now()))
		}()
		start := time.Now()
		if err := r.Run(t.Context(), open, &streamtest.Sink{}, streaming.NewProgress(time.Now())); err != nil || time.Since(start) != time.Second {
			t.Errorf("the other stream took %v, %v", time.Since(start), err)
		}
		if err := <-stalled; !errors.Is(err, streaming.ErrSlow) {
			t.Errorf("the stalled stream ended with %v", err)
		}
	})
}

// A model that only a pattern of the configuration lets through can be looked up as
// it can be asked for.
func TestModelBehindAPattern(t *testing.T) {
	g := boot(t, "[[upstreams]]\nname = \"up\"\nbase_url = \"http://127.0.0.1:1/v1\"\nmodels = [\"gpt-*\"]\nlist_models = false\n")
	for id, status := range map[string]int{"gpt-9": http.StatusOK, "other": http.StatusNotFound} {
		if a := g.do(t, http.MethodGet, "/models/"+id, ""); a.status != status || status == http.StatusOK && !strings.Contains(a.body, `"id":"gpt-9"`) {
			t.Errorf("%s: %d %s", id, a.status, a.body)
		}
	}
}
