package router

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// Who sends headers with the whole answer only may take as long as a first token,
// and is not asked again for an answer that it may still be working on.
func TestHeadersWithTheWholeAnswer(t *testing.T) {
	plain := &providers.Request{Model: "m"}
	passed := &providers.Request{Model: "m", Stream: true, Op: providers.Passthrough}
	after := func(d time.Duration) *fake {
		return &fake{scripts: [][]streamtest.Step{script(streamtest.Step{Wait: d, Batch: meta.Batch}, streamtest.Step{Batch: streamtest.Text(0, "hello")})}}
	}
	for name, c := range map[string]struct {
		req     *providers.Request
		targets []*fake
		want    string
		calls   []int
		took    time.Duration
	}{
		"slow":                    {plain, []*fake{after(90 * time.Second)}, "hello", []int{1}, 90 * time.Second},
		"slow, passthrough":       {passed, []*fake{after(90 * time.Second)}, "hello", []int{1}, 90 * time.Second},
		"dead, and nowhere to go": {plain, []*fake{after(time.Hour)}, "", []int{1}, 2 * time.Minute},
		"dead, another left":      {plain, []*fake{after(time.Hour), after(time.Second)}, "hello", []int{1, 1}, 41 * time.Second},
		"dead, both":              {plain, []*fake{after(time.Hour), after(time.Hour)}, "", []int{1, 1}, 160 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := poolOf(c.targets...)
				p.FailoverAfter = 40 * time.Second
				start := time.Now()
				got, _, err := askFor(t.Context(), options(), p, c.req)
				if took := time.Since(start); took < c.took || took > c.took+time.Second {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if e := providers.AsError(err); got != c.want || (c.want == "") != (e != nil && e.Kind == providers.Timeout) {
					t.Errorf("got %q, %v", got, err)
				}
				for i, want := range c.calls {
					if c.targets[i].calls != want {
						t.Errorf("target %d was asked %d times, want %d", i, c.targets[i].calls, want)
					}
				}
			})
		})
	}
}

// The time that a client takes to read is not the upstream's, and the clocks go on after it.
func TestSlowReader(t *testing.T) {
	between := Phases{Headers: 30 * time.Second, FirstToken: 2 * time.Minute, Between: time.Minute, Silence: 90 * time.Second}
	text := streamtest.Step{Batch: streamtest.Text(0, "a")}
	for name, c := range map[string]struct {
		steps []streamtest.Step
		says  string
		took  time.Duration
	}{
		"tokens":                  {script(meta, text, text, text), "", 300 * time.Second},
		"events that are none":    {script(meta, text, role, role, streamtest.Step{Wait: 50 * time.Second, Batch: text.Batch}), "", 450 * time.Second},
		"a stall after it":        {script(meta, text, streamtest.Step{Wait: time.Hour}), "stopped in the middle", 160 * time.Second},
		"a stall after no tokens": {script(meta, text, streamtest.Step{Wait: 40 * time.Second, Batch: role.Batch}, streamtest.Step{Wait: time.Hour}), "stopped in the middle", 260 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := poolOf(&fake{scripts: [][]streamtest.Step{c.steps}})
				p.Targets[0].Phases = between
				var end error
				start := time.Now()
				for batch, err := range New(onePool{p}, options()).Stream(t.Context(), &providers.Request{Model: "m", Stream: true}, streaming.NewProgress(start)) {
					end = err
					if len(batch) > 0 {
						time.Sleep(100 * time.Second) // the client
					}
				}
				took := time.Since(start)
				if c.says == "" && end != nil || c.says != "" && (end == nil || !strings.Contains(end.Error(), c.says)) || took != c.took {
					t.Errorf("%v after %v, want %q after %v", end, took, c.says, c.took)
				}
			})
		})
	}
}

// Tokens of an image are not counted by its bytes.
func TestFailoverCountsText(t *testing.T) {
	ask := func(content string) time.Duration {
		body := `{"model":"m","stream":true,"messages":[{"role":"user","content":` + content + `}]}`
		req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(body), 64)
		if err != nil {
			t.Fatal(err)
		}
		p := poolOf(&fake{}, &fake{})
		c := &chase{Router: New(onePool{p}, options()), pool: p, req: req, most: 3}
		return c.firstToken(p.Targets[0], 1)
	}
	if d := ask(`[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("A", 200_000) + `"}}]`); d != 30*time.Second {
		t.Errorf("an image of 200 kB adds to the limit: %v", d)
	}
	if d := ask(`"` + strings.Repeat("word ", 7000) + `"`); d != 40*time.Second {
		t.Errorf("a text of 35 kB makes it %v, want 40s", d)
	}
}

func TestCoolDownIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := poolOf(&fake{scripts: [][]streamtest.Step{fails(&providers.Error{Kind: providers.RateLimited, Message: "no", RetryAfter: 24 * time.Hour})}},
			&fake{scripts: [][]streamtest.Step{done}})
		if _, _, err := ask(t, context.Background(), options(), p); err != nil {
			t.Fatal(err)
		}
		if !p.Targets[0].state().cool(uptime() + 4*time.Minute) {
			t.Error("the wish of the upstream was not heard")
		}
		if p.Targets[0].state().cool(uptime() + maxCool) {
			t.Errorf("the target is gone for longer than %v", maxCool)
		}
	})
}
