package streaming_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// TestCancelled ends an answer from outside, whenever that comes.
func TestCancelled(t *testing.T) {
	killed, later := errors.New("killed"), errors.New("too late")
	for name, c := range map[string]struct {
		after  time.Duration
		opened bool
	}{"before the relay": {-1, false}, "in a silence": {time.Second, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, out, opened := streaming.NewProgress(time.Now()), &streamtest.Sink{}, false
				kill := func() { p.Cancel(killed); p.Cancel(later) }
				if c.after < 0 {
					kill()
				} else {
					time.AfterFunc(c.after, kill)
				}
				start := time.Now()
				err := streaming.Relay{Total: time.Hour}.Run(t.Context(), func(ctx context.Context) streaming.Stream {
					opened = true
					return streamtest.Stream(ctx, streamtest.Step{Batch: streamtest.Text(0, "a")}, streamtest.Step{Wait: time.Minute})
				}, out, p)
				if ends := out.Ends(); !errors.Is(err, killed) || opened != c.opened || len(ends) != 1 || !errors.Is(ends[0], killed) || time.Since(start) > max(c.after, 0) {
					t.Errorf("%v, told %v after %v", err, out.Ends(), time.Since(start))
				}
				if !errors.Is(p.Cancelled(), killed) {
					t.Error(p.Cancelled())
				}
			})
		})
	}
}

// TestTries keeps attempts in the order in which they ended, and a bounded number of them.
func TestTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := streaming.NewProgress(time.Now())
		if len(p.Tries(nil)) != 0 {
			t.Error("tries before the first")
		}
		bad := errors.New("bad")
		time.Sleep(time.Second)
		p.SetTarget("a")
		p.SetOpened()
		if r := p.Report(); !r.Opened || r.Target != "a" {
			t.Errorf("%+v", r)
		}
		time.Sleep(time.Second)
		p.EndTry(nil)
		p.EndTry(bad)
		p.EndTry(bad)
		p.AddTry(streaming.Try{Target: "hedge", Begin: time.Second, End: 2 * time.Second, Err: bad})
		p.SetTarget("b")
		if p.Report().Opened {
			t.Error("the second try begins opened")
		}
		time.Sleep(time.Second)
		got := ""
		for _, x := range p.Tries(nil) {
			got += fmt.Sprintf("%s %v-%v %v, ", x.Target, x.Begin, x.End, x.Err)
		}
		if want := "a 1s-2s bad, hedge 1s-2s bad, b 2s-3s <nil>, "; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		for range 100 {
			p.AddTry(streaming.Try{})
		}
		if n := len(p.Tries(nil)); n != 17 {
			t.Errorf("%d tries are kept", n)
		}
	})
}
