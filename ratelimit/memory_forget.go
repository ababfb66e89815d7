package ratelimit

import (
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"
	"weak"
)

const (
	idleFor     = 60e6 // µs: a full bucket that nobody asked for is forgotten
	sweepEvery  = time.Minute
	sweepAtOnce = 1024 // slots for which the mutex is held in one go
	spareCalls  = 1024
	// forgetAmong is how many names are looked at to find one to forget, when there are too many.
	forgetAmong = 16
)

// instant is a moment in microseconds.
type instant struct {
	steady int64 // monotonic
	utc    int64 // since 1970
}

// of is the time that the rule's buckets go by.
func (t instant) of(r *Rule) int64 {
	if r.Per.calendar() {
		return t.utc
	}
	return t.steady
}

// clock reads both times for the price of one: the wall clock is looked at once a second.
type clock struct {
	now      func() time.Time // nil: the process's own
	base     time.Time
	offset   atomic.Int64 // utc - steady
	anchored atomic.Int64 // steady, when the offset was taken
}

func newClock(now func() time.Time) *clock {
	c := &clock{now: now, base: time.Now()}
	c.offset.Store(c.base.UnixMicro())
	return c
}

func (c *clock) read() instant {
	if c.now != nil {
		t := c.now().UnixMicro()
		return instant{t, t}
	}
	steady := time.Since(c.base).Microseconds()
	if steady-c.anchored.Load() >= 1e6 {
		c.offset.Store(time.Now().UnixMicro() - steady)
		c.anchored.Store(steady)
	}
	return instant{steady, steady + c.offset.Load()}
}

// newCall registers an open call.
func (m *Memory) newCall(id string) *call {
	var c *call
	if last := len(m.free) - 1; last >= 0 {
		c = m.free[last]
		m.free = m.free[:last]
	} else {
		c = new(call)
		c.held = c.some[:0]
	}
	m.calls[id] = c
	m.arm()
	return c
}

// retire frees what a settled call holds.
func (m *Memory) retire(c *call) {
	for i, h := range c.held {
		if h.slot.refs--; h.slot.rule.Dim == Streams {
			h.slot.leave(c, h.place)
		}
		c.held[i] = hold{}
	}
	c.held = c.held[:0]
	if len(m.free) < spareCalls {
		m.free = append(m.free, c)
	}
}

func (m *Memory) forgetSettled(now instant) {
	m.settled.turn(m.maxSettled, now.steady-Remembered.Microseconds(), now.steady)
}

// newSlot makes a full bucket, and room for it.
func (m *Memory) newSlot(b *Bucket, now instant) *slot {
	s := &slot{key: keyOf(b), rule: b.Rule, label: b.Label(), used: now.steady, fill: full(b.Rule, now.of(b.Rule))}
	f := m.families[b.Rule.ID]
	if f == nil {
		f = new(family)
		m.families[b.Rule.ID] = f
	}
	if len(f.slots) >= m.maxNames {
		m.makeRoom(f, now)
	}
	f.add(s)
	m.slots[s.key] = s
	m.arm()
	return s
}

// makeRoom forgets one of the family's slots, if not all of those looked at belong to calls
// that run: one whose loss changes nothing, or the one that was not used for longest.
func (m *Memory) makeRoom(f *family, now instant) {
	var oldest *slot
	for range min(forgetAmong, len(f.slots)) {
		s := f.next()
		if s.idle(now) {
			oldest = s
			break
		}
		if s.refs == 0 && (oldest == nil || s.used < oldest.used) {
			oldest = s
		}
	}
	if oldest != nil {
		m.drop(oldest)
	}
}

func (m *Memory) drop(s *slot) {
	delete(m.slots, s.key)
	s.family.remove(s)
	s.gone = true
}

// arm sees to it that a sweep comes. The timer does not keep the limiter alive.
func (m *Memory) arm() {
	if m.armed {
		return
	}
	m.armed = true
	p := weak.Make(m)
	time.AfterFunc(sweepEvery, func() {
		if m := p.Value(); m != nil {
			m.sweep()
		}
	})
}

// sweep forgets full buckets that nobody has used for a while, and settled ids by age.
func (m *Memory) sweep() {
	m.mu.Lock()
	families := slices.Collect(maps.Values(m.families))
	m.mu.Unlock()
	now := m.clock.read()
	for _, f := range families {
		for from := math.MaxInt; from >= 0; {
			from = m.sweepSome(f, from, now)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.families, func(_ string, f *family) bool { return len(f.slots) == 0 })
	m.forgetSettled(now)
	m.armed = false
	if len(m.calls)+len(m.slots)+m.settled.len() > 0 {
		m.arm()
	}
}

// sweepSome looks at some slots, backwards: dropping one moves the last one into its place,
// which was looked at before. It returns where to go on.
func (m *Memory) sweepSome(f *family, from int, now instant) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := min(from, len(f.slots)-1)
	for end := i - sweepAtOnce; i >= 0 && i > end; i-- {
		if s := f.slots[i]; now.steady-s.used >= idleFor && s.idle(now) {
			m.drop(s)
		}
	}
	return i
}
