package ratelimittest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

var concurrentCases = []suiteCase{
	{"five calls of 175 tokens at once, at 100 a minute: one is admitted (LiteLLM 18730)", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 100))
		if n := d.race(5, func(i int) (string, ratelimit.Cost) { return fmt.Sprint(i), tokens(75, 100) }); n != 1 {
			d.Fatalf("%d admitted, want 1", n)
		}
		d.wantLeft(anyone, "key-1", 0)
	}},
	{"two calls race for the last token, two for the last place (row 50)", func(d *desk) {
		for i := range 20 {
			token := perMinute(ratelimit.Tokens, 1)
			token.ID = fmt.Sprint("token-", i)
			place := places(1)
			place.ID = fmt.Sprint("place-", i)
			for _, r := range []ratelimit.Rule{token, place} {
				d.rules(r)
				if n := d.race(2, func(n int) (string, ratelimit.Cost) { return fmt.Sprint(r.ID, n), tokens(1, 0) }); n != 1 {
					d.Fatalf("%d admitted under %s, want 1", n, r.ID)
				}
				d.wantLeft(anyone, r.ID, 0)
			}
		}
	}},
	{"as many at once as there is room for", func(d *desk) {
		d.rules(perMinute(ratelimit.Requests, 1000), perMinute(ratelimit.Tokens, 470))
		if n := d.race(100, func(i int) (string, ratelimit.Cost) { return fmt.Sprint(i), tokens(3, 7) }); n != 47 {
			d.Fatalf("%d admitted, want 47", n)
		}
		d.wantLeft(anyone, "key-0", 1000-47)
	}},
	{"the same id many times at once is charged once", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 1000), places(5))
		if n := d.race(20, func(int) (string, ratelimit.Cost) { return "same", tokens(1, 99) }); n != 20 {
			d.Fatalf("%d granted, want all", n)
		}
		d.wantLeft(anyone, "key-1", 900)
		d.wantLeft(anyone, "places", 4)
	}},
	{"many settlements of one id at once: one counts", func(d *desk) {
		d.rules(perMinute(ratelimit.Tokens, 1000))
		d.reserve("a", anyone, tokens(0, 500))
		s := &ratelimit.Settlement{Call: d.calls["a"], Used: tokens(0, 100), Row: ledger.Row{ID: "a", Org: anyone.Org, Output: 100}}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if err := d.Limiter.Settle(d.Context(), s); err != nil {
					d.Error(err)
				}
			})
		}
		all.Wait()
		d.wantLeft(anyone, "key-1", 900)
		if n := len(d.rows("a")); n != 1 {
			d.Fatalf("%d rows, want 1", n)
		}
	}},
	{"in every window no more is admitted than may be, and all that may be", windows},
	{"after a storm every level is full and every place free", storm},
}

// race reserves for anyone, n times at once, and returns how often it was granted.
func (d *desk) race(n int, call func(i int) (id string, want ratelimit.Cost)) int {
	var admitted atomic.Int64
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		all.Go(func() {
			id, want := call(i)
			<-begin
			_, err := d.Limiter.Reserve(d.Context(), &ratelimit.Call{ID: id, Who: anyone, Want: want})
			var denied *ratelimit.Denied
			switch {
			case err == nil:
				admitted.Add(1)
			case !errors.As(err, &denied):
				d.Error(err)
			}
		})
	}
	close(begin)
	all.Wait()
	return int(admitted.Load())
}

// windows lets callers hammer while the clock moves, and checks the history.
func windows(d *desk) {
	rule := perMinute(ratelimit.Tokens, 6000)
	rule.Burst = 500
	d.rules(rule)
	const callers, rounds = 8, 150
	var history History
	var clock sync.RWMutex // a call decides at one time, so that the history is exact
	var all sync.WaitGroup
	for who := range callers {
		all.Go(func() {
			for i := range rounds {
				cost := tokens(int64(1+i%7), int64(1+(i*31+who)%90))
				c := &ratelimit.Call{ID: fmt.Sprint(who, "/", i), Who: anyone, Want: cost}
				clock.RLock()
				at := d.Now()
				_, err := d.Limiter.Reserve(d.Context(), c)
				clock.RUnlock()
				var denied *ratelimit.Denied
				if err != nil && !errors.As(err, &denied) {
					d.Error(err)
					return
				}
				if err == nil {
					history.Add(Event{From: at, To: at, Took: cost.Of(rule.Dim)})
				}
				if i%5 == 0 {
					clock.Lock()
					d.Advance(time.Duration(1+(i*17)%400) * time.Millisecond)
					clock.Unlock()
				}
			}
		})
	}
	all.Wait()
	if err := history.Check(&rule); err != nil {
		d.Fatal(err)
	}
	left := d.left(anyone, rule.ID)
	if max := history.Left(&rule, d.Now()); left != max {
		d.Fatalf("%d left, want %d: nothing is lost", left, max)
	}
}

// storm reserves, extends, settles twice and drops calls from many goroutines.
func storm(d *desk) {
	d.rules(perMinute(ratelimit.Tokens, 100000), perMinute(ratelimit.Requests, 1000), places(20),
		ratelimit.Rule{ID: "org", Scope: ratelimit.Org, Dim: ratelimit.Streams, Amount: 30},
		ratelimit.Rule{ID: "day", Scope: ratelimit.User, Dim: ratelimit.Output, Amount: 1e9, Per: ratelimit.CalendarDay, Hard: true})
	d.goTo(time.June, 30, 12, 0, false)
	var granted atomic.Int64
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			who := anyone
			if g%2 == 1 {
				who = other
			}
			for i := range 25 {
				c := &ratelimit.Call{ID: fmt.Sprint(g, "/", i), Who: who, Want: tokens(10, 100)}
				if _, err := d.Limiter.Reserve(d.Context(), c); err != nil {
					continue
				}
				granted.Add(1)
				if err := d.Limiter.Extend(d.Context(), c, tokens(0, 50)); err != nil {
					d.Error(err)
				}
				for range 2 {
					s := &ratelimit.Settlement{Call: c, Used: tokens(10, int64(i)), Row: ledger.Row{ID: c.ID, Org: who.Org}}
					if err := d.Limiter.Settle(d.Context(), s); err != nil {
						d.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	if rows := int64(len(d.Rows())); rows != granted.Load() || rows == 0 {
		d.Errorf("%d rows of %d calls", rows, granted.Load())
	}
	d.Advance(24 * time.Hour)
	for _, who := range []ratelimit.Subject{anyone, other} {
		for _, l := range d.peek(who) {
			if l.Left != l.Rule.Full() || l.Reset != 0 {
				d.Errorf("%s of %s has %d left and is full in %v", l.Rule.ID, who.Key, l.Left, l.Reset)
			}
		}
	}
}
