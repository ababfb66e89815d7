package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/ratelimit/fair"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// inLineFor runs one answer that waits in the line of q, as a stream of events.
func inLineFor(t *testing.T, ctx context.Context, q *fair.Queue, tenant string) (*httptest.ResponseRecorder, error) {
	t.Helper()
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(`{"model":"m","stream":true,"max_tokens":10,"messages":[{"role":"user","content":"hi"}]}`), 8)
	if err != nil {
		t.Fatal(err)
	}
	req.ID = "req-" + tenant
	c := &call{req: req, who: auth.Principal{Org: tenant}}
	p := streaming.NewProgress(time.Now())
	a := &account{req: req, p: p}
	rec := httptest.NewRecorder()
	out := streaming.NewSSE(rec, 1, encoder(req, streaming.SSEFraming), time.Second, nil)
	relay := streaming.Relay{Heartbeat: 15 * time.Second, CommitAfter: 10 * time.Second}
	err = relay.Run(ctx, func(ctx context.Context) streaming.Stream {
		return a.inLine(ctx, c, q, streamtest.Stream(ctx,
			streamtest.Step{Wait: time.Second, Batch: streamtest.Text(0, "hello")}, streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Stop, Stop: "stop"}}}))
	}, out, p)
	return rec, err
}

// TestInLine: heartbeats carry on while an answer waits and its position changes, and the
// client is told both.
func TestInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fair.New(fair.Options{Places: 1, Depth: 20, Wait: time.Hour})
		busy, err := q.Wait(t.Context(), "org z", 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		var others sync.WaitGroup
		for i := range 9 { // before it, and each for four seconds
			others.Go(func() {
				p, err := q.Wait(t.Context(), fmt.Sprint("org ", i), 0, func(int) bool { return true })
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(4 * time.Second)
				p.Leave(0)
			})
			synctest.Wait()
		}
		busy.Leave(0)
		start := time.Now()
		rec, err := inLineFor(t, t.Context(), q, "a")
		took := time.Since(start)
		others.Wait()
		if err != nil || !strings.Contains(rec.Body.String(), "hello") {
			t.Fatalf("%v after %v: %s", err, took, rec.Body)
		}
		if n := strings.Count(rec.Body.String(), ": keep-alive\n"); n != 2 || took != 37*time.Second {
			t.Errorf("%d heartbeats in %v: %s", n, took, rec.Body)
		}
		if at := rec.Header().Get(headerQueuePosition); at != "9" {
			t.Errorf("position %q", at)
		}
		if s := q.Stats(); s.Running != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestInLineShort: while the status is held back the wait is told in a header, and an
// answer that need not wait tells nothing.
func TestInLineShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fair.New(fair.Options{Places: 1})
		rec, err := inLineFor(t, t.Context(), q, "a")
		if err != nil || rec.Header().Get(headerQueuePosition) != "" || rec.Header().Get(headerQueueWait) != "" {
			t.Fatalf("%v: %v", err, rec.Header())
		}
		busy, err := q.Wait(t.Context(), "org z", 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(1500*time.Millisecond, func() { busy.Leave(1) })
		rec, err = inLineFor(t, t.Context(), q, "a")
		if err != nil || rec.Header().Get(headerQueuePosition) != "1" || rec.Header().Get(headerQueueWait) != "1500" {
			t.Errorf("%v: %v", err, rec.Header())
		}
	})
}

// TestNotServed: a line that is full or too slow is 429, and a client that leaves frees its
// place in it at once.
func TestNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fair.New(fair.Options{Places: 1, Depth: 1})
		busy, err := q.Wait(t.Context(), "org z", 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = inLineFor(t, t.Context(), q, "a")
		if f := describe(err); f.status != 429 || f.code != "queue_timeout" || f.retryAfter <= 0 {
			t.Errorf("too late: %v, %+v", err, f)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := inLineFor(t, ctx, q, "a")
			done <- err
		}()
		synctest.Wait()
		start := time.Now()
		_, err = inLineFor(t, t.Context(), q, "b")
		if f := describe(err); f.status != 429 || f.code != "queue_full" || time.Since(start) > 0 {
			t.Errorf("full: %v, %+v", err, f)
		}
		cancel()
		if err := <-done; !errors.Is(err, streaming.ErrClientGone) || time.Since(start) > 0 || q.Stats().Waiting != 0 {
			t.Errorf("gone: %v, %+v", err, q.Stats())
		}
		busy.Leave(1)
		if s := q.Stats(); s.Running != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestInLineOverWebSocket: the position is told by a frame.
func TestInLineOverWebSocket(t *testing.T) {
	req := &providers.Request{ID: "r1", Stream: true}
	e := &laneEncoder{Encoder: encoder(req, streaming.LaneFraming(chunkBefore("s"), chunkAfter)), stream: "s", call: &call{req: req}}
	got, err := e.Append(nil, &streaming.Event{Kind: streaming.Meta, Meta: &streaming.MetaData{Queue: &streaming.QueueData{Position: 3}}})
	want := string(streaming.EndMessage(acceptedMessage("s", "r1", 3)))
	if err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
