package ratelimittest

import (
	"slices"
	"time"

	"sluice/ratelimit"
)

var settleCases = []suiteCase{
	{"what was not used comes back, up to exactly full", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 1000))
		d.reserve("a", anyone, tokens(100, 400))
		d.settle("a", tokens(100, 100))
		d.wantLeft(anyone, "key-1", 800)
		d.reserve("b", anyone, tokens(100, 700))
		d.settle("b", ratelimit.Cost{Requests: 1})
		d.wantLeft(anyone, "key-1", 800)
		d.Advance(12 * time.Second)
		d.wantLeft(anyone, "key-1", 1000)
		d.reserve("c", anyone, tokens(0, 100))
		d.Advance(3 * time.Second) // 50 flow in, 100 come back
		d.settle("c", ratelimit.Cost{Requests: 1})
		d.wantLeft(anyone, "key-1", 1000)
		if reset := d.level(anyone, "key-1").Reset; reset != 0 {
			d.Fatalf("full in %v, want now", reset)
		}
	}},
	{"a client that drops before the usage pays for what was generated", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 1000), perMinute(ratelimit.Requests, 10))
		d.reserve("a", anyone, tokens(20, 500))
		d.settle("a", tokens(20, 137))
		d.wantLeft(anyone, "key-1", 1000-157)
		d.wantLeft(anyone, "key-0", 9)
		if rows := d.rows("a"); len(rows) != 1 || rows[0].Input != 20 || rows[0].Output != 137 {
			d.Fatalf("rows %+v, want one of 20 and 137 tokens", rows)
		}
	}},
	{"a call that failed through no fault of its caller costs no request either", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 1000), perMinute(ratelimit.Requests, 10))
		d.reserve("a", anyone, tokens(20, 500))
		d.settle("a", ratelimit.Cost{})
		d.wantLeft(anyone, "key-1", 1000)
		d.wantLeft(anyone, "key-0", 10)
	}},
	{"ten times the estimate is owed and waited out exactly (row 52)", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 1000))
		d.reserve("a", anyone, tokens(10, 90))
		d.settle("a", tokens(10, 990))
		d.wantLeft(anyone, "key-1", 0)
		d.reserve("free", anyone, ratelimit.Cost{Requests: 1})
		d.settle("free", tokens(0, 5000))
		d.wantLeft(anyone, "key-1", -5000)
		d.wantWait(anyone, tokens(1, 0), 300060*time.Millisecond)
	}},
	{"only the first settlement counts", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 1000), places(3))
		d.reserve("a", anyone, tokens(10, 90))
		d.reserve("b", anyone, tokens(10, 90))
		d.settle("a", tokens(10, 20))
		d.settle("a", tokens(0, 0))
		d.settle("a", tokens(10, 900))
		d.wantLeft(anyone, "key-1", 1000-30-100)
		d.wantLeft(anyone, "places", 2)
		if rows := d.rows("a"); len(rows) != 1 || rows[0].Output != 20 {
			d.Fatalf("rows %+v, want the first", rows)
		}
	}},
	{"an id without a reservation changes no bucket, and its row is written once", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 1000), places(3))
		d.reserve("a", anyone, tokens(10, 90))
		for range 2 {
			d.settle("stranger", tokens(10, 500))
		}
		d.wantLeft(anyone, "key-1", 900)
		d.wantLeft(anyone, "places", 2)
		if n := len(d.rows("stranger")); n != 1 {
			d.Fatalf("%d rows, want 1", n)
		}
	}},
	{"the same id again gets the same answer and is charged once (row 40)", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 100), places(1))
		first := d.reserve("a", anyone, tokens(10, 90))
		for range 3 {
			again := d.reserve("a", anyone, tokens(10, 90))
			if !slices.Equal(first.Levels, again.Levels) || first.Hard != again.Hard {
				d.Fatalf("granted %+v, at first %+v", again, first)
			}
		}
		d.refuse("b", anyone, tokens(1, 0))
		d.settle("a", tokens(10, 10))
		d.wantLeft(anyone, "key-1", 80)
		d.reserve("a", anyone, tokens(10, 90)) // the reply of the settlement came first
		d.wantLeft(anyone, "key-1", 80)
		d.wantLeft(anyone, "places", 1)
	}},
	{"a denied id may try again", func(d *desk) {
		d.rules(perMinute(ratelimit.Requests, 1))
		d.reserve("a", anyone, tokens(1, 1))
		d.refuse("b", anyone, tokens(1, 1))
		d.Advance(time.Minute)
		d.reserve("b", anyone, tokens(1, 1))
	}},
	{"a lowered limit caps what is left, also in the middle of a call (row 54)", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 1000))
		d.reserve("a", anyone, tokens(0, 100))
		d.rules(perMinute(ratelimit.Tokens, 60))
		d.wantLeft(anyone, "key-1", 60)
		d.reserve("b", anyone, tokens(10, 20))
		d.wantLeft(anyone, "key-1", 30)
		d.settle("a", tokens(0, 10))
		d.wantLeft(anyone, "key-1", 60)
		d.settle("b", tokens(10, 20))
		d.wantLeft(anyone, "key-1", 60)
		d.reserve("c", anyone, tokens(10, 100))
		d.wantLeft(anyone, "key-1", 0)
		d.Advance(30 * time.Second)
		d.wantLeft(anyone, "key-1", 30)
	}},
	{"a raised limit is not cut by a call from before", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 100))
		d.reserve("a", anyone, tokens(0, 100))
		d.rules(perMinute(ratelimit.Tokens, 1000))
		d.Advance(time.Minute)
		d.reserve("b", anyone, tokens(0, 200))
		d.wantLeft(anyone, "key-1", 800)
		d.settle("a", tokens(0, 50))
		if left := d.left(anyone, "key-1"); left < 800 {
			d.Fatalf("%d left after a refund, were 800", left)
		}
	}},
	{"only hard budgets are extended, all of them or none", extend},
	{"a removed rule is settled without complaint", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 100), places(1))
		d.reserve("a", anyone, tokens(10, 10))
		d.rules()
		d.settle("a", tokens(10, 10))
		d.rules(places(1))
		d.wantLeft(anyone, "places", 1)
	}},
}

func extend(d *desk) {
	day := ratelimit.Rule{ID: "day", Scope: ratelimit.Key, Dim: ratelimit.Money, Amount: 1000, Per: ratelimit.CalendarDay, Hard: true}
	team := ratelimit.Rule{ID: "team", Scope: ratelimit.Team, Dim: ratelimit.Output, Amount: 500, Per: ratelimit.CalendarMonth, Hard: true}
	d.rules(day, perMinute(ratelimit.Output, 100), team)
	if g := d.reserve("a", anyone, ratelimit.Cost{Requests: 1, Output: 60, Money: 600}); !g.Hard {
		d.Fatal("the grant does not say that a hard budget applies")
	}
	if err := d.extend("a", ratelimit.Cost{Output: 100, Money: 300}); err != nil {
		d.Fatalf("extending: %v", err)
	}
	d.wantLeft(anyone, "day", 100)
	d.wantLeft(anyone, "key-3", 40)
	d.wantLeft(anyone, "team", 340)
	denied := d.denied("a", d.extend("a", ratelimit.Cost{Output: 100, Money: 101}))
	if over := overIDs(denied); !slices.Equal(over, []string{"day"}) || denied.Over[0].Need != 101 || denied.Over[0].Left != 100 {
		d.Fatalf("over %+v, want the day's by one", denied.Over)
	}
	d.wantLeft(anyone, "day", 100)
	d.wantLeft(anyone, "team", 340)
	d.settle("a", ratelimit.Cost{Requests: 1, Output: 200, Money: 650})
	d.wantLeft(anyone, "day", 350)
	d.wantLeft(anyone, "key-3", -100)
	d.wantLeft(anyone, "team", 300)
	if err := d.extend("a", ratelimit.Cost{Money: 1e6}); err != nil {
		d.Fatalf("extending a settled call: %v", err)
	}
	d.wantLeft(anyone, "day", 350)
}
