package ratelimittest

import (
	"testing"
	"time"

	"sluice/ratelimit"
)

func TestHistory(t *testing.T) {
	rule := ratelimit.Rule{ID: "r", Dim: ratelimit.Tokens, Amount: 60, Burst: 100, Per: ratelimit.Minute}
	at := func(from, to int, took int64) Event { // milliseconds
		base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		return Event{base.Add(time.Duration(from) * time.Millisecond), base.Add(time.Duration(to) * time.Millisecond), took}
	}
	for _, c := range []struct {
		name   string
		events []Event
		ok     bool
	}{
		{"nothing", nil, true},
		{"a burst", []Event{at(0, 0, 40), at(0, 0, 60)}, true},
		{"a token over the burst", []Event{at(0, 0, 40), at(0, 0, 61)}, false},
		{"what flowed in", []Event{at(0, 0, 100), at(2000, 2000, 2)}, true},
		{"a token before it flowed in", []Event{at(0, 0, 100), at(1999, 1999, 2)}, false},
		{"a window in the middle", []Event{at(0, 0, 1), at(600000, 600000, 60), at(600500, 600500, 41), at(900000, 900000, 100)}, false},
		{"in any order", []Event{at(1999, 1999, 2), at(0, 0, 100)}, false},
		{"given back before", []Event{at(0, 0, 100), at(10, 10, -30), at(20, 20, 30)}, true},
		{"given back after", []Event{at(0, 0, 100), at(10, 10, 30), at(20, 20, -30)}, false},
		{"given back some time", []Event{at(0, 0, 100), at(5, 20, -30), at(10, 10, 30)}, true},
		{"taken some time", []Event{at(0, 0, 100), at(0, 5000, 5)}, true},
		{"taken some time too short", []Event{at(0, 0, 100), at(0, 4999, 5)}, false},
		{"taken some time before", []Event{at(-1, 1, 100), at(0, 0, 100)}, false},
	} {
		var h History
		for _, e := range c.events {
			h.Add(e)
		}
		if err := h.Check(&rule); (err == nil) != c.ok {
			t.Errorf("%s: %v, want it right: %t", c.name, err, c.ok)
		}
	}
}

func TestHistoryKnowsWhatIsLeft(t *testing.T) {
	rule := ratelimit.Rule{ID: "r", Dim: ratelimit.Tokens, Amount: 60, Burst: 100, Per: ratelimit.Minute}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var h History
	if left := h.Left(&rule, now); left != 100 {
		t.Fatalf("%d left of a full bucket", left)
	}
	h.Add(Event{now.Add(5 * time.Second), now.Add(5 * time.Second), 20})
	h.Add(Event{now, now, 50})
	if left := h.Left(&rule, now.Add(7999*time.Millisecond)); left != 100-50+5-20+2 {
		t.Fatalf("%d left", left)
	}
}
