package main

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"sluice/providers/providertest/wall"
)

// prompted is a streamed chat request whose prompt says what the wall does.
func prompted(model, script, key string) string {
	return fmt.Sprintf(`{"model":%q,"stream":true,"messages":[{"role":"user","content":"[[wall %s key=%s]]"}]}`, model, script, key)
}

// TestLine bounds the answers of a model: the next one waits and is told so, the one after
// that is refused, and the place of an answer that was left is free at once.
func TestLine(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, fmt.Sprintf("\n[[models]]\nname = \"one\"\nmax_concurrent = 1\nqueue = 1\nqueue_wait = \"20s\"\ntargets = [{ upstream = \"wall\", model = %q }]\n", wallModel("line", "tokens=4"))))
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	first := g.openStream(ctx, t, prompted("one", "tokens=4 stall=1", "first"))
	defer first.Body.Close()
	second := make(chan answer)
	go func() { second <- g.do(t, http.MethodPost, "/chat/completions", prompted("one", "tokens=4", "second")) }()
	g.eventually(t, "the second answer waits", func() bool { return g.metric(t, "gateway_queue_waiting") == 1 })
	refusal := g.do(t, http.MethodPost, "/chat/completions", prompted("one", "tokens=4", "third"))
	if e := refusal.refused(t, http.StatusTooManyRequests); e.Code != "queue_full" || refusal.header.Get("Retry-After") != "1" {
		t.Errorf("%+v, %v", e, refusal.header)
	}
	leave()
	a := <-second
	a.complete(t, 4)
	if a.header.Get("X-Sluice-Queue-Position") != "1" || a.header.Get("X-Sluice-Queue-Wait-Ms") == "" {
		t.Errorf("headers %v", a.header)
	}
}

// TestUpstreamPlaces bounds the attempts at an upstream: the next one goes elsewhere, and
// without another target it is refused, with no attempt made.
func TestUpstreamPlaces(t *testing.T) {
	t.Parallel()
	base1, w1 := wall.Start(t)
	base2, w2 := wall.Start(t)
	bounded := func(name, base string) string {
		return fmt.Sprintf("\n[[upstreams]]\nname = %q\nbase_url = %q\nmodels = [\"unused\"]\nlist_models = false\nmax_concurrent = 1\n", name, base)
	}
	g := boot(t, bounded("first", base1)+bounded("second", base2)+fmt.Sprintf(
		"\n[[models]]\nname = \"both\"\ntargets = [{ upstream = \"first\", model = %q, weight = 1 }, { upstream = \"second\", model = %q, weight = 0 }]\n", wallModel("p", "tokens=4"), wallModel("p", "tokens=4")))
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	for _, target := range []string{"first", "second"} {
		r := g.openStream(ctx, t, prompted("both", "tokens=4 stall=1", target))
		defer r.Body.Close()
		if at := r.Header.Get("X-Sluice-Target"); at != target+"/"+wallModel("p", "tokens=4") {
			t.Errorf("asked %s, want %s", at, target)
		}
	}
	a := g.do(t, http.MethodPost, "/chat/completions", prompted("both", "tokens=4", "third"))
	if e := a.refused(t, http.StatusTooManyRequests); e.Code != "upstream_concurrency_exceeded" || a.header.Get("Retry-After") != "1" {
		t.Errorf("%+v, %v", e, a.header)
	}
	if n, m := calls(w1, "third"), calls(w2, "third"); n+m != 0 {
		t.Errorf("%d and %d calls of what was refused", n, m)
	}
	leave()
	g.idle(t)
	a = g.do(t, http.MethodPost, "/chat/completions", prompted("both", "tokens=4", "fourth"))
	a.complete(t, 4)
}
