package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/handlers"
	"sluice/providers/openai"
	"sluice/providers/providertest/wall"
	"sluice/providers/router"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// overHTTP2 serves the handlers over TLS and HTTP/2, in front of an upstream that
// speaks HTTP/2 too.
func overHTTP2(t *testing.T, writeLimit time.Duration) (*httptest.Server, *wall.Wall) {
	t.Helper()
	w := wall.New()
	server := httptest.NewUnstartedServer(w)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	up := openai.New(openai.Options{AskUsage: true, MaxEvent: 1 << 20, MaxAnswer: 1 << 20, Upstream: upstream.Options{Name: "up", BaseURL: server.URL + "/v1",
		HTTP2: true, RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}})
	catalog := router.NewCatalog(nil, []router.Upstream{{Name: "up", Models: []string{"*"}, Target: up.Target}}, time.Second, time.Minute)
	gw := httptest.NewUnstartedServer(handlers.New(handlers.Options{
		Provider: router.New(catalog, router.Options{Tries: 1, HoldEvents: 64, HoldBytes: 1 << 18}), Catalog: catalog, Auth: anyone{},
		Relay:      streaming.Relay{Heartbeat: time.Minute},
		Total:      func(context.Context, string) time.Duration { return time.Minute },
		WriteLimit: writeLimit, Body: 1 << 20, BodyVision: 1 << 20, Depth: 64,
		Observer: handlers.NewObserver(nil), Drain: handlers.NewDrain(), Log: slog.New(slog.DiscardHandler),
	}))
	gw.EnableHTTP2 = true
	gw.StartTLS()
	t.Cleanup(gw.Close)
	return gw, w
}

func postHTTP2(t *testing.T, ctx context.Context, gw *httptest.Server, model string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, gw.URL+"/v1/chat/completions",
		strings.NewReader(`{"model":"`+model+`","stream":true,"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := gw.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.ProtoMajor != 2 {
		t.Fatalf("the client got %s", resp.Proto)
	}
	return resp
}

// A write deadline that has passed resets an idle HTTP/2 stream, so it must not be
// left armed between two tokens.
func TestHTTP2StreamOutlivesTheWriteLimit(t *testing.T) {
	gw, w := overHTTP2(t, 200*time.Millisecond)
	resp := postHTTP2(t, t.Context(), gw, "wall:tokens=3,delay=500ms")
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(string(body), "data: [DONE]\n\n") {
		t.Errorf("%v, the stream ends with %q", err, body)
	}
	if got := w.Requests(); len(got) != 1 {
		t.Errorf("%d upstream calls", len(got))
	}
}

// A client that resets its stream cancels the upstream's stream, not the connections.
func TestHTTP2Cancel(t *testing.T) {
	gw, w := overHTTP2(t, 5*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	resp := postHTTP2(t, ctx, gw, "wall:tokens=1000,delay=10ms")
	if _, err := io.ReadFull(resp.Body, make([]byte, 500)); err != nil {
		t.Fatal(err)
	}
	cancel()
	gone, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if _, err := w.Await(gone, func(r wall.Request) bool { return !r.Gone.IsZero() }); err != nil {
		t.Errorf("the upstream still generates a second later: %v", err)
	}
}
