package router

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// shadowed asks once with a copy, and returns the answer and what became of the copy, if
// one was made. Time is the bubble's.
func shadowed(t *testing.T, opt ShadowOptions, real, copied []streamtest.Step, req *providers.Request) (out string, ended *Copy, s *Shadows, asked *server, err error) {
	t.Helper()
	m, _ := named("m", real)
	x, servers := named("x", copied)
	m.Shadow = Shadow{Model: "x", Percent: 100}
	told := make(chan *Copy, 1)
	opt.Done = func(c *Copy) { told <- c }
	s = NewShadows(opt)
	o := options()
	o.Shadows = s
	prog := streaming.NewProgress(time.Now())
	for batch, e := range New(pools(m, x), o).Stream(t.Context(), req, prog) {
		if e != nil {
			err = e
		}
		for i := range batch {
			out += string(batch[i].Raw) + batch[i].Text
		}
	}
	synctest.Wait()
	time.Sleep(time.Hour) // of the bubble: whatever a copy waits for is over
	synctest.Wait()
	select {
	case ended = <-told:
	default:
	}
	return out, ended, s, servers[0], err
}

var roomy = ShadowOptions{Running: 4, Bytes: 1 << 20, Limit: 5 * time.Minute}

func TestShadow(t *testing.T) {
	usage := streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Usage, Index: -1, Usage: &streaming.UsageData{Prompt: 7, Completion: 3, Total: 10}}}}
	for _, c := range []struct {
		name   string
		copied []streamtest.Step
		failed bool
	}{
		{"answers", append(script(meta, streamtest.Step{Batch: streamtest.Text(0, "other")}), usage), false},
		{"fails", fails(upstream(providers.Unreachable)), true},
		{"refuses", fails(&providers.Error{Kind: providers.Passed, Status: 400, Message: "no"}), true},
		{"hangs", script(meta, streamtest.Step{Wait: 24 * time.Hour}), true},
	} {
		synctest.Test(t, func(t *testing.T) {
			req := &providers.Request{ID: "r", Model: "m", Stream: true, Body: []byte(`{"model":"m"}`), Hints: providers.Hints{Version: ""}}
			start := time.Now()
			out, ended, s, _, err := shadowed(t, roomy, done, c.copied, req)
			if err != nil || out != "rolehellohello" {
				t.Errorf("%s: the answer is %q, %v", c.name, out, err)
			}
			if ended == nil || (ended.Err != nil) != c.failed || ended.Request.ID != "r.shadow" || ended.Target.Name != "x/a" {
				t.Fatalf("%s: the copy ended as %+v", c.name, ended)
			}
			if r := ended.Report; !c.failed && (r.Usage.Prompt != 7 || r.Usage.Completion != 3 || !r.Reported) {
				t.Errorf("%s: it cost %+v", c.name, r.Usage)
			}
			if c.name == "hangs" && ended.Report.Start.Sub(start) != 0 {
				t.Errorf("it began %s later", ended.Report.Start.Sub(start))
			}
			if s.Running() != 0 || ended.Target.state().running.Load() != 0 || ended.Target.state().odd.Load() {
				t.Errorf("%s: something is left", c.name)
			}
			s.Close()
		})
	}
}

func TestShadowBounds(t *testing.T) {
	for name, opt := range map[string]ShadowOptions{
		"running": {Running: 0, Bytes: 1 << 20, Limit: time.Minute},
		"bytes":   {Running: 4, Bytes: 3, Limit: time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, ended, s, x, err := shadowed(t, opt, done, done, &providers.Request{Model: "m", Stream: true, Body: []byte("1234")})
			if err != nil || ended != nil || x.asked() != 0 || s.Dropped() != 1 {
				t.Errorf("%s: %v, %+v, %d dropped", name, err, ended, s.Dropped())
			}
			s.Close()
		})
	}
}

// A failed call is copied as well, one that nobody let in is not.
func TestShadowOfFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ended, s, _, err := shadowed(t, roomy, fails(&providers.Error{Kind: providers.Passed, Status: 400, Message: "no"}), done, &providers.Request{Model: "m", Stream: true})
		if err == nil || ended == nil || ended.Err != nil {
			t.Errorf("%v, %+v", err, ended)
		}
		s.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		m, _ := named("m", done)
		m.Targets[0].Drained = true
		x, servers := named("x", done)
		m.Shadow = Shadow{Model: "x", Percent: 100}
		opt := options()
		opt.Shadows = NewShadows(roomy)
		if _, err := askModel(t.Context(), opt, pools(m, x), "m"); err == nil {
			t.Error("a drained model has answered")
		}
		synctest.Wait()
		if servers[0].asked() != 0 {
			t.Error("a call that was not let in is copied")
		}
		opt.Shadows.Close()
	})
}

// TestShadowStop ends copies with the gateway, and those that come later.
func TestShadowStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := named("m", done)
		x, servers := named("x", script(meta, streamtest.Step{Wait: 24 * time.Hour}))
		m.Shadow = Shadow{Model: "x", Percent: 100}
		opt := options()
		var ended *Copy
		bounds := roomy
		bounds.Done = func(c *Copy) { ended = c }
		opt.Shadows = NewShadows(bounds)
		ctx, leave := context.WithCancel(t.Context())
		if _, err := askModel(ctx, opt, pools(m, x), "m"); err != nil {
			t.Fatal(err)
		}
		leave() // the client's end is not the copy's
		synctest.Wait()
		if opt.Shadows.Running() != 1 {
			t.Fatal("the copy is gone")
		}
		opt.Shadows.Close()
		if ended == nil || !errors.Is(ended.Err, streaming.ErrDraining) {
			t.Errorf("it ended as %+v", ended)
		}
		if _, err := askModel(t.Context(), opt, pools(m, x), "m"); err != nil || servers[0].asked() != 1 {
			t.Errorf("%v, %d calls", err, servers[0].asked())
		}
	})
}

// TestShadowShare copies about as many calls as it should.
func TestShadowShare(t *testing.T) {
	s, n := Shadow{Model: "x", Percent: 20}, 0
	for range 10_000 {
		if s.drawn() {
			n++
		}
	}
	if n < 1800 || n > 2200 {
		t.Errorf("%d of 10,000", n)
	}
	if none := (Shadow{Percent: 100}); none.drawn() {
		t.Error("a copy to nobody")
	}
}

func askPools(t *testing.T, opt Options, b byName, req *providers.Request) (out string, prog *streaming.Progress, err error) {
	t.Helper()
	prog = streaming.NewProgress(time.Now())
	for batch, e := range New(b, opt).Stream(t.Context(), req, prog) {
		if e != nil {
			err = e
		}
		for i := range batch {
			out += string(batch[i].Raw) + batch[i].Text
		}
	}
	return out, prog, err
}

func (s *server) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}
