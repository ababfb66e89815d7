package ratelimittest

import (
	"time"

	"sluice/ratelimit"
)

// money is a budget of each key.
func money(per ratelimit.Per, amount int64) ratelimit.Rule {
	return ratelimit.Rule{ID: "money", Scope: ratelimit.Key, Dim: ratelimit.Money, Amount: amount, Per: per}
}

func costs(n int64) ratelimit.Cost { return ratelimit.Cost{Requests: 1, Money: n} }

// goTo moves the clock to the next time that it is that moment of a year; with a leap day
// if February is to have one.
func (d *desk) goTo(month time.Month, day, hour, minute int, leap bool) {
	d.Helper()
	now := d.Now().UTC()
	for year := now.Year(); ; year++ {
		isLeap := time.Date(year, 2, 29, 0, 0, 0, 0, time.UTC).Month() == time.February
		at := time.Date(year, month, day, hour, minute, 0, 0, time.UTC)
		if isLeap == leap && at.After(now) {
			d.Advance(at.Sub(now))
			return
		}
	}
}

var calendarCases = []suiteCase{
	{"a budget of a day fills when the day begins, not before", func(d *desk) {
		d.rules(money(ratelimit.CalendarDay, 1000))
		d.goTo(time.June, 30, 18, 0, false)
		d.reserve("a", anyone, costs(900))
		d.Advance(5 * time.Hour)
		d.wantLeft(anyone, "money", 100)
		if reset := d.level(anyone, "money").Reset; reset != time.Hour {
			d.Fatalf("full in %v, want 1h", reset)
		}
		d.wantWait(anyone, costs(101), time.Hour)
	}},
	{"a day that begins owes nothing for the one before", func(d *desk) {
		d.rules(money(ratelimit.CalendarDay, 1000))
		d.goTo(time.June, 30, 18, 0, false)
		d.reserve("a", anyone, costs(900))
		d.settle("a", costs(50000))
		d.wantLeft(anyone, "money", -49000)
		d.wantWait(anyone, costs(1000), 6*time.Hour)
	}},
	{"the last day of February in a leap year", func(d *desk) {
		d.rules(money(ratelimit.CalendarMonth, 1000))
		d.goTo(time.February, 28, 12, 0, true)
		d.reserve("a", anyone, costs(1000))
		d.Advance(24 * time.Hour)
		d.wantLeft(anyone, "money", 0)
		d.wantWait(anyone, costs(1), 12*time.Hour)
	}},
	{"the last day of February in another year", func(d *desk) {
		d.rules(money(ratelimit.CalendarMonth, 1000))
		d.goTo(time.February, 28, 12, 0, false)
		d.reserve("a", anyone, costs(1000))
		d.wantWait(anyone, costs(1), 12*time.Hour)
	}},
	{"months of 31 and 30 days, and the year's end", func(d *desk) {
		d.rules(money(ratelimit.CalendarMonth, 1000))
		for _, m := range []time.Month{time.March, time.April, time.December} {
			last := time.Date(2001, m+1, 0, 0, 0, 0, 0, time.UTC).Day()
			d.goTo(m, last, 23, 59, false)
			d.wantLeft(anyone, "money", 1000)
			id := "last of " + m.String()
			d.reserve(id, anyone, costs(1000))
			d.Advance(time.Minute - time.Microsecond)
			d.wantLeft(anyone, "money", 0)
			d.Advance(time.Microsecond)
			d.wantLeft(anyone, "money", 1000)
		}
	}},
	{"a settlement gives nothing to a later period", func(d *desk) {
		d.rules(money(ratelimit.CalendarDay, 1000))
		d.goTo(time.June, 30, 23, 59, false)
		d.reserve("a", anyone, costs(800))
		d.Advance(2 * time.Minute)
		d.reserve("b", anyone, costs(500))
		d.settle("a", costs(100))
		d.wantLeft(anyone, "money", 500)
		d.settle("b", costs(100))
		d.wantLeft(anyone, "money", 900)
	}},
	{"what a call used beyond its reservation of an earlier period is owed in the later one", func(d *desk) {
		d.rules(money(ratelimit.CalendarMonth, 1000))
		d.goTo(time.January, 31, 23, 59, true)
		d.reserve("a", anyone, costs(800))
		d.Advance(2 * time.Minute)
		d.settle("a", costs(1100))
		d.wantLeft(anyone, "money", 700)
	}},
	{"a day's clock that runs back does not fill twice", func(d *desk) {
		d.rules(money(ratelimit.CalendarDay, 1000))
		d.goTo(time.June, 30, 0, 0, false)
		d.reserve("a", anyone, costs(1000))
		d.Advance(-time.Hour)
		d.wantLeft(anyone, "money", 0)
		d.Advance(2 * time.Hour)
		d.wantLeft(anyone, "money", 0)
		d.wantWait(anyone, costs(1), 23*time.Hour)
	}},
	{"budgets are exact to the nano-dollar", func(d *desk) {
		d.rules(money(ratelimit.CalendarMonth, ratelimit.MaxBudget))
		d.goTo(time.June, 15, 0, 0, false)
		d.reserve("a", anyone, costs(ratelimit.MaxBudget-1))
		d.wantLeft(anyone, "money", 1)
		d.settle("a", costs(1))
		d.wantLeft(anyone, "money", ratelimit.MaxBudget-1)
		for _, id := range []string{"b", "c", "d"} { // debt has a floor
			d.reserve(id, anyone, ratelimit.Cost{Requests: 1})
			d.settle(id, costs(ratelimit.MaxBudget))
		}
		d.wantLeft(anyone, "money", -ratelimit.MaxBudget)
	}},
}
