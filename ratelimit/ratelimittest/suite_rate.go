package ratelimittest

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"sluice/ratelimit"
)

var rateCases = []suiteCase{
	{"a call without limits passes", func(d *desk) {
		g := d.reserve("a", anyone, tokens(10, 10))
		if len(g.Levels) != 0 || g.Hard {
			d.Fatalf("granted %+v, want no levels", g)
		}
		d.settle("a", tokens(10, 10))
		d.settle("a", tokens(10, 10))
		if n := len(d.rows("a")); n != 1 {
			d.Fatalf("%d rows, want 1", n)
		}
	}},
	{"a denied call changes nothing in any dimension (LiteLLM 39309)", func(d *desk) {
		d.rules(perMinute(ratelimit.Requests, 10), perMinute(ratelimit.Input, 1000), perMinute(ratelimit.Output, 50),
			perMinute(ratelimit.Tokens, 1000), perMinute(ratelimit.Frames, 10), perMinute(ratelimit.FrameBytes, 1000),
			perMinute(ratelimit.Money, 1000), places(5))
		cost := ratelimit.Cost{Requests: 1, Input: 10, Output: 30, Frames: 1, FrameBytes: 100, Money: 100}
		d.reserve("a", anyone, cost)
		before := d.peek(anyone)
		if over := overIDs(d.refuse("b", anyone, cost)); !slices.Equal(over, []string{"key-3"}) {
			d.Fatalf("over %v, want only the limit of output", over)
		}
		if after := d.peek(anyone); !reflect.DeepEqual(before, after) {
			d.Fatalf("levels %v after a denial, were %v", after, before)
		}
	}},
	{"frames of video and their bytes are taken, corrected and waited out", func(d *desk) {
		d.rules(perMinute(ratelimit.Frames, 60), perMinute(ratelimit.FrameBytes, 600_000))
		frames := func(n, bytes int64) ratelimit.Cost { return ratelimit.Cost{Requests: 1, Frames: n, FrameBytes: bytes} }
		d.reserve("a", anyone, frames(30, 400_000))
		if over := overIDs(d.refuse("b", anyone, frames(30, 300_000))); !slices.Equal(over, []string{"key-5"}) {
			d.Fatalf("over %v, want only the limit of bytes", over)
		}
		d.settle("a", frames(25, 100_000))
		d.wantLeft(anyone, "key-4", 35)
		d.wantLeft(anyone, "key-5", 500_000)
		d.reserve("c", anyone, frames(35, 500_000))
		d.wantWait(anyone, frames(1, 1000), time.Second)
		if denied := d.refuse("d", anyone, frames(61, 1)); !denied.TooLarge || !slices.Equal(overIDs(denied), []string{"key-4"}) {
			d.Fatalf("61 frames of 60: %+v, want them too large", denied)
		}
	}},
	{"a limit of 10 tokens a minute still serves, into debt that is waited out exactly (LiteLLM 28805)", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 10))
		d.reserve("a", anyone, tokens(5, 1024))
		d.settle("a", tokens(5, 170))
		d.wantLeft(anyone, "key-1", -165)
		d.wantWait(anyone, tokens(5, 1024), 175*6*time.Second)
	}},
	{"an estimate above the burst is served once from a full bucket (row 53)", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 100))
		d.reserve("a", anyone, tokens(1, 0))
		d.wantWait(anyone, tokens(50, 5000), 600*time.Millisecond)
		d.wantLeft(anyone, "key-1", 0)
	}},
	{"a prompt above the burst can never pass", func(d *desk) {
		d.rules(perMinute(ratelimit.Requests, 1), perMinute(ratelimit.Tokens, 100), perMinute(ratelimit.Input, 100))
		d.reserve("a", anyone, tokens(100, 1000))
		denied := d.refuse("b", anyone, tokens(101, 0))
		if !denied.TooLarge || denied.RetryAfter != 0 {
			d.Fatalf("denied %+v, want too large and no retry", denied)
		}
		if over := overIDs(denied); !slices.Equal(over, []string{"key-1", "key-2"}) {
			d.Fatalf("over %v, want those that are too small", over)
		}
		if need := denied.Over[0].Need; need != 101 {
			d.Fatalf("needs %d, want the prompt", need)
		}
	}},
	{"a denial names every limit that fails and the longest wait", func(d *desk) {
		d.rules(perMinute(ratelimit.Requests, 60), perMinute(ratelimit.Input, 60), perMinute(ratelimit.Output, 60))
		d.reserve("a", anyone, ratelimit.Cost{Requests: 10, Input: 60, Output: 30})
		denied := d.refuse("b", anyone, tokens(10, 40))
		if over := overIDs(denied); !slices.Equal(over, []string{"key-2", "key-3"}) {
			d.Fatalf("over %v, want input and output", over)
		}
		for i, want := range []ratelimit.Shortage{
			{Level: ratelimit.Level{Name: "ann-1", Left: 0, Reset: time.Minute}, Need: 10},
			{Level: ratelimit.Level{Name: "ann-1", Left: 30, Reset: 30 * time.Second}, Need: 40},
		} {
			want.Rule = denied.Over[i].Rule
			if denied.Over[i] != want {
				d.Errorf("short of %+v, want %+v", denied.Over[i], want)
			}
		}
		d.wantWait(anyone, tokens(10, 40), 10*time.Second)
	}},
	{"what flows in does not depend on how often anybody looks", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 7))
		d.reserve("a", anyone, tokens(7, 0))
		for range 1000 { // 7/min: a token every 8,571,428.57… µs
			d.Advance(8571 * time.Microsecond)
			d.left(anyone, "key-1")
			d.try("b", anyone, tokens(7, 0))
		}
		d.wantLeft(anyone, "key-1", 0)
		if got := d.level(anyone, "key-1").Reset; got != time.Minute-8571*time.Millisecond {
			d.Fatalf("full in %v, want %v", got, time.Minute-8571*time.Millisecond)
		}
		d.wantWait(anyone, tokens(1, 0), 429*time.Microsecond)
	}},
	{"a burst above the amount", func(d *desk) {
		r := perMinute(ratelimit.Requests, 60)
		r.Burst = 100
		d.rules(r)
		g := d.reserve("a", anyone, ratelimit.Cost{Requests: 100})
		if l := g.Levels[0]; l.Left != 0 || l.Reset != 100*time.Second {
			d.Fatalf("level %+v, want 0 and full in 100 s", l)
		}
		d.wantWait(anyone, ratelimit.Cost{Requests: 1}, time.Second)
		d.Advance(time.Hour)
		d.wantLeft(anyone, "key-0", 100)
	}},
	{"a burst below the amount", func(d *desk) {
		r := perMinute(ratelimit.Requests, 600)
		r.Burst = 1
		d.rules(r)
		d.reserve("a", anyone, tokens(1, 1))
		d.wantWait(anyone, tokens(1, 1), 100*time.Millisecond)
	}},
	{"scopes: who shares a bucket and who does not", scopes},
	{"a rule of the subject applies, and in place of a declared one with its id", func(d *desk) {
		d.rules(perMinute(ratelimit.Requests, 5))
		own, extra := perMinute(ratelimit.Requests, 2), perMinute(ratelimit.Tokens, 9)
		who := anyone
		who.Rules = []*ratelimit.Rule{&own, &extra}
		if g := d.reserve("a", who, tokens(1, 1)); len(g.Levels) != 2 || g.Levels[0].Left != 1 || g.Levels[1].Left != 7 {
			d.Fatalf("levels %+v, want 1 and 7 left", g.Levels)
		}
		if g := d.reserve("b", anyone, tokens(1, 1)); len(g.Levels) != 1 || g.Levels[0].Rule.Amount != 5 {
			d.Fatalf("levels %+v, want the declared one's", g.Levels)
		}
	}},
	{"a bucket in debt does not stop a call that takes nothing of it", func(d *desk) {
		d.rules(perMinute(ratelimit.Frames, 10))
		d.reserve("a", anyone, ratelimit.Cost{Requests: 1, Frames: 1})
		d.settle("a", ratelimit.Cost{Requests: 1, Frames: 100})
		d.refuse("b", anyone, ratelimit.Cost{Requests: 1, Frames: 1})
		d.reserve("c", anyone, tokens(1, 1))
	}},
	{"a clock that runs back stands still, one that was far ahead locks nobody out (row 45)", func(d *desk) {
		d.rules(perMinute(ratelimit.Requests, 60))
		d.reserve("a", anyone, ratelimit.Cost{Requests: 60})
		d.Advance(-90 * time.Second)
		d.wantWait(anyone, ratelimit.Cost{Requests: 1}, 91*time.Second)
		d.Advance(time.Hour)
		d.reserve("b", anyone, ratelimit.Cost{Requests: 60})
		d.Advance(-2 * time.Minute)
		if wait := d.refuse("c", anyone, ratelimit.Cost{Requests: 1}).RetryAfter; wait != 121*time.Second {
			d.Fatalf("retry after %v with a clock that is two periods behind", wait)
		}
		d.Advance(-time.Microsecond)
		d.reserve("d", anyone, ratelimit.Cost{Requests: 60})
		d.wantWait(anyone, ratelimit.Cost{Requests: 1}, time.Second)
	}},
	{"days are long and amounts are large", func(d *desk) {
		r := ratelimit.Rule{ID: "big", Scope: ratelimit.Org, Dim: ratelimit.Tokens, Amount: ratelimit.MaxFlow - 1, Per: ratelimit.Day, Burst: ratelimit.MaxFlow}
		d.rules(r)
		d.reserve("a", anyone, tokens(ratelimit.MaxFlow, 0))
		d.Advance(86399999999 * time.Microsecond) // (86399999999·999999999) / 86400000000
		d.wantLeft(anyone, "big", 999999998)
		d.settle("a", tokens(3*ratelimit.MaxFlow, 0))
		d.wantLeft(anyone, "big", 999999998-2*ratelimit.MaxFlow)
	}},
}

// scopes has a limit of one call in each scope and asks for a second one as somebody else.
func scopes(d *desk) {
	base := ratelimit.Subject{Org: "acme", Team: "t", User: "u", Key: "k", Model: "m", IP: "i"}
	for i, c := range []struct {
		name  string
		scope ratelimit.Scope
		edit  func(s *ratelimit.Subject)
		free  bool
	}{
		{"global", ratelimit.Global, func(s *ratelimit.Subject) { *s = ratelimit.Subject{} }, false},
		{"ip", ratelimit.IP, func(s *ratelimit.Subject) { *s = ratelimit.Subject{IP: "i"} }, false},
		{"other ip", ratelimit.IP, func(s *ratelimit.Subject) { s.IP = "j" }, true},
		{"model of another org", ratelimit.Model, func(s *ratelimit.Subject) { s.Org = "other" }, false},
		{"other model", ratelimit.Model, func(s *ratelimit.Subject) { s.Model = "n" }, true},
		{"org", ratelimit.Org, func(s *ratelimit.Subject) { *s = ratelimit.Subject{Org: "acme"} }, false},
		{"other org", ratelimit.Org, func(s *ratelimit.Subject) { s.Org = "other" }, true},
		{"team", ratelimit.Team, func(s *ratelimit.Subject) { s.User, s.Key = "v", "l" }, false},
		{"team of the same name elsewhere", ratelimit.Team, func(s *ratelimit.Subject) { s.Org = "other" }, true},
		{"user", ratelimit.User, func(s *ratelimit.Subject) { s.Key, s.Model = "l", "n" }, false},
		{"user of the same name elsewhere", ratelimit.User, func(s *ratelimit.Subject) { s.Org = "" }, true},
		{"key", ratelimit.Key, func(s *ratelimit.Subject) { s.Model, s.IP = "n", "j" }, false},
		{"other key", ratelimit.Key, func(s *ratelimit.Subject) { s.Key = "l" }, true},
		{"key and model", ratelimit.KeyModel, func(s *ratelimit.Subject) { s.IP = "j" }, false},
		{"key and other model", ratelimit.KeyModel, func(s *ratelimit.Subject) { s.Model = "n" }, true},
		{"names that would run together", ratelimit.KeyModel, func(s *ratelimit.Subject) { s.Key, s.Model = "k/m", "m" }, true},
		{"nobody", ratelimit.User, func(s *ratelimit.Subject) { s.User = "" }, true},
		{"an attempt at a provider", ratelimit.Global, func(s *ratelimit.Subject) { s.Provider = "p" }, true},
	} {
		r := ratelimit.Rule{ID: fmt.Sprint("one-", i), Scope: c.scope, Dim: ratelimit.Requests, Amount: 1, Per: ratelimit.Minute}
		d.rules(r)
		d.reserve("first "+c.name, base, tokens(1, 1))
		who := base
		c.edit(&who)
		if _, err := d.try("second "+c.name, who, tokens(1, 1)); (err == nil) != c.free {
			d.Errorf("%s: %v, want it granted: %t", c.name, err, c.free)
		}
		d.settle("first "+c.name, ratelimit.Cost{})
		d.settle("second "+c.name, ratelimit.Cost{})
		d.Advance(time.Minute)
	}
}
