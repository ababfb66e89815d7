package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// abandoned are scripts whose answers never end by themselves, one for each
// window in which a client can go.
var abandoned = []string{
	"headers=1m", "first=1m", "role=early,first=1m", "tokens=100000,delay=1ms", "stall=3", "tokens=10000000,burst=200",
}

// TestNothingIsLeft abandons streams and wants goroutines, descriptors and
// connections back to what they were.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	checkLeaks(t, 300, 30)
}

// census is what a process holds.
type census struct{ goroutines, descriptors float64 }

// checkLeaks abandons n streams, so many at a time, in a gateway of its own process.
func checkLeaks(t *testing.T, n, parallel int) {
	t.Helper()
	base, w := wall.Start(t)
	// Kept connections to the upstream go soon, so that none is mistaken for a leak.
	g := bootProcess(t, overWall(base, "[log]\naccess = \"off\"\n")+"idle_timeout = \"100ms\"\n")
	abandon(t, g, w, len(abandoned), len(abandoned))
	before := g.census(t, w, nil)
	abandon(t, g, w, n, parallel)
	after := g.census(t, w, &before)
	t.Logf("%d abandoned streams: %v before, %v after", n, before, after)
	if total := g.metric(t, `gateway_stream_outcome_total{end="client_gone",operation="chat"}`); int(total) != n+len(abandoned) {
		t.Errorf("%v answers counted as abandoned, want %d", total, n+len(abandoned))
	}
	if code := g.Stop(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, g.Logs())
	}
}

// abandon opens streams and leaves each as soon as its upstream has it in hand.
func abandon(t *testing.T, g *gatewayUnderTest, w *wall.Wall, n, parallel int) {
	t.Helper()
	slots := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			abandonOne(t, g, w, i)
		})
	}
	all.Wait()
}

func abandonOne(t *testing.T, g *gatewayUnderTest, w *wall.Wall, i int) {
	ctx, leave := context.WithTimeout(t.Context(), patience)
	defer leave()
	key := fmt.Sprintf("leak%p-%d", &i, i)
	r := g.request(ctx, t, http.MethodPost, chatPath, chatBody(wallModel(key, abandoned[i%len(abandoned)]), true, ""))
	var call sync.WaitGroup
	call.Go(func() {
		res, err := g.Client.Do(r)
		if err != nil {
			return
		}
		// The flood is not read: its writes are stuck when the client goes.
		_, _ = io.CopyN(io.Discard, res.Body, 1)
		<-ctx.Done()
		_ = res.Body.Close()
	})
	if _, err := w.Await(ctx, func(q wall.Request) bool { return q.Key == "key:"+key && !q.Read.IsZero() }); err != nil {
		t.Errorf("stream %d: %v", i, err)
	}
	leave()
	call.Wait()
}

// census counts what the gateway holds when it is at rest; with a former census it
// waits until it holds no more than then.
func (g *gatewayUnderTest) census(t *testing.T, w *wall.Wall, former *census) (now census) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if s, err := w.AwaitStats(ctx, func(s wall.Stats) bool { return s.Active == 0 && s.Conns == 0 }); err != nil {
		t.Fatalf("the upstream still has %d calls and %d connections", s.Active, s.Conns)
	}
	g.idle(t)
	g.Client.CloseIdleConnections()
	look := func() census {
		return census{g.metric(t, "go_goroutines"), g.metric(t, "process_open_fds")}
	}
	for end := time.Now().Add(patience); ; <-time.After(50 * time.Millisecond) {
		last := now
		now = look()
		if former == nil && now == last || former != nil && now.goroutines <= former.goroutines && now.descriptors <= former.descriptors {
			return now
		}
		if time.Now().After(end) {
			t.Fatalf("the gateway holds %+v, before it was %+v", now, former)
		}
	}
}
