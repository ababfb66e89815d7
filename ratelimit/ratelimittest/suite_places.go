package ratelimittest

import (
	"fmt"
	"slices"
	"time"

	"sluice/ratelimit"
)

var placesCases = []suiteCase{
	{"a call denied by concurrency changes no other bucket (row 51)", func(d *desk) {
		d.rules(perMinute(ratelimit.Requests, 10), perMinute(ratelimit.Tokens, 1000), places(1))
		d.reserve("a", anyone, tokens(10, 10))
		denied := d.refuse("b", anyone, tokens(10, 10))
		if over := overIDs(denied); !slices.Equal(over, []string{"places"}) || denied.RetryAfter <= 0 {
			d.Fatalf("denied %+v, want by places, with a guess of when", denied)
		}
		d.wantLeft(anyone, "key-0", 9)
		d.wantLeft(anyone, "key-1", 980)
	}},
	{"a call denied by rate takes no place", func(d *desk) {
		d.rules(places(2), perMinute(ratelimit.Requests, 1))
		d.reserve("a", anyone, tokens(1, 1))
		d.refuse("b", anyone, tokens(1, 1))
		d.wantLeft(anyone, "places", 1)
	}},
	{"a place is freed by its own call and by no other (LiteLLM 36459)", func(d *desk) {
		d.rules(places(2))
		d.reserve("a", anyone, tokens(1, 1))
		d.reserve("b", anyone, tokens(1, 1))
		d.refuse("c", anyone, tokens(1, 1))
		d.settle("c", tokens(0, 0))
		d.settle("stranger", tokens(0, 0))
		d.refuse("d", anyone, tokens(1, 1))
		d.settle("a", tokens(1, 1))
		d.settle("a", tokens(1, 1))
		d.reserve("e", anyone, tokens(1, 1))
		d.refuse("f", anyone, tokens(1, 1))
		d.wantLeft(anyone, "places", 0)
	}},
	{"a place is held for as long as its call runs", func(d *desk) {
		d.rules(places(1))
		d.reserve("a", anyone, tokens(1, 1))
		d.Advance(10 * time.Hour)
		d.refuse("b", anyone, tokens(1, 1))
		d.settle("a", tokens(1, 1))
		d.reserve("b", anyone, tokens(1, 1))
	}},
	{"places of several keys, freed in any order", func(d *desk) {
		d.rules(places(8), ratelimit.Rule{ID: "all", Scope: ratelimit.Org, Dim: ratelimit.Streams, Amount: 12})
		for i := range 6 {
			d.reserve(fmt.Sprint("ann ", i), anyone, tokens(1, 1))
			d.reserve(fmt.Sprint("bob ", i), other, tokens(1, 1))
		}
		if over := overIDs(d.refuse("x", anyone, tokens(1, 1))); !slices.Equal(over, []string{"all"}) {
			d.Fatalf("over %v, want the org's", over)
		}
		for n, i := range []int{2, 5, 0, 3, 1, 4} {
			d.settle(fmt.Sprint("ann ", i), tokens(1, 1))
			d.settle(fmt.Sprint("bob ", 5-i), tokens(1, 1))
			d.wantLeft(anyone, "places", int64(3+n))
			d.wantLeft(other, "places", int64(3+n))
			d.wantLeft(anyone, "all", int64(2+2*n))
		}
	}},
	{"a lowered limit of places ends no call and admits none until enough have ended", func(d *desk) {
		d.rules(places(3))
		for _, id := range []string{"a", "b", "c"} {
			d.reserve(id, anyone, tokens(1, 1))
		}
		d.rules(places(1))
		d.settle("a", tokens(1, 1))
		d.wantLeft(anyone, "places", -1)
		d.settle("b", tokens(1, 1))
		d.refuse("d", anyone, tokens(1, 1))
		d.settle("c", tokens(1, 1))
		d.reserve("d", anyone, tokens(1, 1))
	}},
}
