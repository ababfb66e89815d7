package streaming_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/streaming"
	"sluice/streaming/streamtest"
)

func run(r streaming.Relay, ctx context.Context, sink streaming.Sink, steps ...streamtest.Step) (*streaming.Progress, error) {
	p := streaming.NewProgress(time.Now())
	err := r.Run(ctx, func(ctx context.Context) streaming.Stream { return streamtest.Stream(ctx, steps...) }, sink, p)
	return p, err
}

func TestHeartbeatTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		sink := &streamtest.Sink{}
		r := streaming.Relay{Heartbeat: 15 * time.Second, CommitAfter: 10 * time.Second}
		_, err := run(r, t.Context(), sink,
			streamtest.Step{Wait: 42 * time.Second, Batch: streamtest.Text(0, "a")},
			streamtest.Step{Wait: 14 * time.Second, Batch: streamtest.Text(0, "b")},
			streamtest.Step{Wait: 31 * time.Second, Batch: streamtest.Text(0, "c")})
		if err != nil {
			t.Fatal(err)
		}
		var at []int
		for _, h := range sink.Heartbeats() {
			at = append(at, int(h.Sub(start).Seconds()))
		}
		want := []int{10, 25, 40, 71, 86} // the status at 10 s, then each 15 s of silence
		if len(at) != len(want) {
			t.Fatalf("heartbeats at %v, want %v", at, want)
		}
		for i := range want {
			if at[i] != want[i] {
				t.Errorf("heartbeats at %v, want %v", at, want)
			}
		}
	})
}

func TestEnds(t *testing.T) {
	boom := errors.New("boom")
	slow := &streamtest.Sink{Block: func() error { return streaming.ErrSlow }}
	for name, c := range map[string]struct {
		relay streaming.Relay
		sink  *streamtest.Sink
		steps []streamtest.Step
		want  error
	}{
		"true end":     {streaming.Relay{}, nil, []streamtest.Step{{Batch: streamtest.Text(0, "a")}}, nil},
		"sign of life": {streaming.Relay{}, nil, []streamtest.Step{{}, {Batch: streamtest.Text(0, "a")}}, nil},
		"failure":      {streaming.Relay{}, nil, []streamtest.Step{{Batch: streamtest.Text(0, "a")}, {Err: boom}}, boom},
		"total":        {streaming.Relay{Total: time.Minute}, nil, []streamtest.Step{{Wait: time.Hour}}, streaming.ErrTotal},
		"slow client":  {streaming.Relay{}, slow, []streamtest.Step{{Batch: streamtest.Text(0, "a")}, {Wait: time.Hour}}, streaming.ErrSlow},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := c.sink
				if sink == nil {
					sink = &streamtest.Sink{}
				}
				_, err := run(c.relay, t.Context(), sink, c.steps...)
				if !errors.Is(err, c.want) || c.want == nil && err != nil {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if ends := sink.Ends(); len(ends) != 1 || !errors.Is(ends[0], c.want) {
					t.Errorf("the sink was ended with %v", ends)
				}
			})
		})
	}
}

func TestClientGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, cancel)
		start := time.Now()
		_, err := run(streaming.Relay{Heartbeat: time.Second}, ctx, &streamtest.Sink{}, streamtest.Step{Wait: time.Hour})
		if !errors.Is(err, streaming.ErrClientGone) || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestDrainingIsItsOwnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(streaming.ErrDraining) })
		_, err := run(streaming.Relay{}, ctx, &streamtest.Sink{}, streamtest.Step{Wait: time.Hour})
		if !errors.Is(err, streaming.ErrDraining) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPanicEndsTheAnswer(t *testing.T) {
	sink := &streamtest.Sink{}
	p, err := run(streaming.Relay{}, t.Context(), sink, streamtest.Step{Batch: streamtest.Text(0, "abc")}, streamtest.Step{Panic: "ouch"})
	if fault := new(streaming.PanicError); !errors.As(err, &fault) || fault.Value != "ouch" || len(sink.Ends()) != 1 {
		t.Errorf("got %v, ends %v", err, sink.Ends())
	}
	if r := p.Report(); r.Usage.Completion != 1 || !r.Usage.Estimated {
		t.Errorf("what was delivered is not counted: %+v", r)
	}
}

// A heartbeat that panics must not take the process down.
func TestPanicInHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := run(streaming.Relay{Heartbeat: time.Second}, t.Context(), panicky{&streamtest.Sink{}}, streamtest.Step{Wait: time.Hour})
		if fault := new(streaming.PanicError); !errors.As(err, &fault) {
			t.Errorf("got %v", err)
		}
	})
}

type panicky struct{ *streamtest.Sink }

func (panicky) Heartbeat() (bool, error) { panic("no pulse") }

func TestNothingAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &streamtest.Sink{}
		_, _ = run(streaming.Relay{Heartbeat: time.Second}, t.Context(), sink, streamtest.Step{Wait: 500 * time.Millisecond})
		time.Sleep(time.Minute)
		if n := len(sink.Heartbeats()); n != 0 {
			t.Errorf("%d heartbeats after the end", n)
		}
	})
}

func TestEstimatePerChoice(t *testing.T) {
	p := streaming.NewProgress(time.Now())
	p.Count([]streaming.Event{{Kind: streaming.Text, Index: 0, Text: "0123456789"}, {Kind: streaming.Text, Index: 1, Text: "a"}, {Kind: streaming.Text, Index: 1, Text: "b"}}, streaming.Uptime())
	if r := p.Report(); r.Usage.Completion != 3+2 {
		t.Errorf("choice 0 is 10 bytes (3 tokens), choice 1 two deltas: got %d", r.Usage.Completion)
	}
	p.SetUsage(&streaming.UsageData{Completion: 7, Total: 9})
	p.SetUsage(&streaming.UsageData{Completion: 8, Total: 10})
	if r := p.Report(); r.Usage.Completion != 8 || r.Usage.Estimated || r.Since != 0 {
		t.Errorf("the last reported usage counts: %+v", r)
	}
	p.Count([]streaming.Event{{Kind: streaming.Text, Index: 1, Text: "c"}}, streaming.Uptime())
	if r := p.Report(); r.Since != 1 {
		t.Errorf("one delta came after the usage: %+v", r)
	}
}
