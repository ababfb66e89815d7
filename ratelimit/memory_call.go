package ratelimit

// call is a reservation.
type call struct {
	at   instant
	held []hold
	some [2]hold // where held begins
}

// hold is what a call has taken from one bucket.
type hold struct {
	slot  *slot
	taken int64
	place int // of Streams: in slot.places
}

// hold reserves n of the slot, which was advanced before.
func (c *call) hold(s *slot, n int64) {
	h := hold{slot: s}
	s.refs++
	if s.rule.Dim == Streams {
		h.place = len(s.places)
		s.places = append(s.places, c)
	} else {
		h.take(n)
	}
	c.held = append(c.held, h)
}

// take takes more from the bucket, which was advanced before.
func (h *hold) take(n int64) {
	h.taken += n
	h.slot.fill.add(h.slot.rule, -n)
}

// settle replaces what was taken by what was used. What was reserved in an earlier calendar
// period is not given back to this one; what was used beyond it is owed now.
func (h *hold) settle(used Cost, reserved, now instant) {
	s := h.slot
	if s.rule.Dim == Streams {
		return
	}
	s.advance(now)
	back := h.taken - used.in(s.rule)
	if back > 0 && s.rule.Per.calendar() && reserved.utc < s.rule.Per.begin(max(now.utc, s.fill.at)) {
		return
	}
	s.fill.add(s.rule, back)
}

// need is what a bucket must have for a call. More than a full bucket is not asked for, so
// that a small one can serve a large call, into debt.
func need(r *Rule, want Cost) int64 { return min(want.in(r), r.Full()) }

// in is the cost in the rule's dimension, within what can be counted.
func (c Cost) in(r *Rule) int64 { return min(max(c.Of(r.Dim), 0), MaxBudget) }
