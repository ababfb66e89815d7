package ratelimit

import (
	"context"
	"sync"
	"time"

	"sluice/ratelimit/ledger"
)

// Book keeps the rows of settled calls. Post is called once for each, concurrently; it does
// not block for long, and the row is not kept by the caller.
type Book interface {
	Post(row *ledger.Row)
}

// MemoryOptions say how a Memory works. Only Rules is needed.
type MemoryOptions struct {
	Rules *Rules
	// Book gets the rows of settled calls; nil drops them.
	Book Book
	// Now is the clock of the buckets; nil is the time of the process: monotonic, with days
	// and months by the wall clock.
	Now func() time.Time
	// MaxNames bounds the buckets of one rule; 0 means 65,536, of about 450 bytes each. When
	// a rule has more names in use, one that has not been used for long is forgotten, so
	// that its bucket is full again. Names with calls that run are not forgotten.
	MaxNames int
	// Settled is how many ids of settled calls are remembered at most, for at least the time
	// Remembered; 0 means 65,536, of about 40 bytes each. When more are settled in that time,
	// the older half is forgotten.
	Settled int
}

// Memory is the Limiter of a single process. Its buckets begin full.
//
// One mutex guards all of it: a decision is about several buckets at once, and takes a few
// hundred nanoseconds.
type Memory struct {
	rules *Rules
	book  Book
	clock *clock

	maxNames, maxSettled int

	mu       sync.Mutex
	set      *ruleSet // whose rules the slots have
	slots    map[slotKey]*slot
	families map[string]*family // by rule id
	calls    map[string]*call   // open, by id
	routes   map[routeKey]*route
	settled  settledIDs
	free     []*call
	armed    bool // a sweep will come
}

var _ Limiter = (*Memory)(nil)

// NewMemory returns a limiter whose buckets are full. It starts nothing that has to be stopped.
func NewMemory(o MemoryOptions) *Memory {
	m := &Memory{
		rules: o.Rules, book: o.Book, clock: newClock(o.Now),
		maxNames: o.MaxNames, maxSettled: o.Settled,
		slots: map[slotKey]*slot{}, families: map[string]*family{}, calls: map[string]*call{},
		routes: map[routeKey]*route{}, settled: newSettledIDs(),
	}
	if m.maxNames <= 0 {
		m.maxNames = 1 << 16
	}
	if m.maxSettled <= 0 {
		m.maxSettled = 1 << 16
	}
	m.set = m.rules.set.Load()
	return m
}

// Reserve implements Limiter. Its error is a *Denied.
func (m *Memory) Reserve(_ context.Context, c *Call) (Grant, error) {
	var in room
	buckets, slots, now := m.enter(&in, &c.Who)
	defer m.mu.Unlock()
	if len(buckets) == 0 {
		return Grant{}, nil
	}
	if m.calls[c.ID] == nil && !m.settled.has(m.settled.hash(c.ID)) {
		if d := deny(buckets, slots, c.Want, now); d != nil {
			return Grant{}, d
		}
		m.take(c, buckets, slots, now)
		if !in.known {
			m.remember(&c.Who, buckets, slots)
		}
	}
	return grant(buckets, slots, now), nil
}

// follow puts the rules in force into the buckets that are there.
func (m *Memory) follow() {
	set := m.rules.set.Load()
	if set == m.set {
		return
	}
	m.set = set
	for _, s := range m.slots {
		if rule := set.byID[s.key.rule]; rule != nil && rule.Dim == s.key.dim {
			s.rule = rule
		}
	}
}

// deny says what a call is over, or nil when every bucket has enough.
func deny(buckets []Bucket, slots []*slot, want Cost, now instant) *Denied {
	var over, large *Denied
	for i := range buckets {
		b, s := &buckets[i], slots[i]
		if prompt := want.prompt(b.Rule.Dim); prompt > b.Rule.Full() {
			large = large.add(s.level(b, now), prompt, 0)
		} else if n := need(b.Rule, want); n > 0 && n > s.left(b.Rule) {
			over = over.add(s.level(b, now), n, s.wait(b.Rule, n, now))
		}
	}
	if large != nil {
		large.TooLarge = true
		return large
	}
	return over
}

func (d *Denied) add(l Level, need int64, wait time.Duration) *Denied {
	if d == nil {
		d = new(Denied)
	}
	d.Over = append(d.Over, Shortage{Level: l, Need: need})
	d.RetryAfter = max(d.RetryAfter, wait)
	return d
}

// take reserves what the call wants in all buckets, which have enough.
func (m *Memory) take(c *Call, buckets []Bucket, slots []*slot, now instant) {
	open := m.newCall(c.ID)
	open.at = now
	for i := range buckets {
		if slots[i] == nil {
			slots[i] = m.newSlot(&buckets[i], now)
		}
		open.hold(slots[i], need(buckets[i].Rule, c.Want))
	}
}

func grant(buckets []Bucket, slots []*slot, now instant) Grant {
	g := Grant{Levels: make([]Level, len(buckets))}
	for i := range buckets {
		slots[i].tell(&g.Levels[i], &buckets[i], now)
		g.Hard = g.Hard || buckets[i].Rule.Hard
	}
	return g
}

// Extend implements Limiter. It takes from hard budgets only, from all of them or from
// none. Its error is a *Denied. An id without an open reservation takes nothing.
func (m *Memory) Extend(_ context.Context, c *Call, more Cost) error {
	now := m.clock.read()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.follow()
	open := m.calls[c.ID]
	if open == nil {
		return nil
	}
	var d *Denied
	for _, h := range open.held {
		s, n := h.slot, more.in(h.slot.rule)
		if !s.rule.Hard || n == 0 {
			continue
		}
		if s.advance(now); n > s.fill.level {
			wait := s.wait(s.rule, min(n, s.rule.Full()), now)
			d = d.add(s.level(&Bucket{Rule: s.rule}, now), n, wait)
		}
	}
	if d != nil {
		return d
	}
	for i := range open.held {
		if h := &open.held[i]; h.slot.rule.Hard {
			h.take(more.in(h.slot.rule))
		}
	}
	return nil
}

// Settle implements Limiter. It returns nil.
func (m *Memory) Settle(_ context.Context, s *Settlement) error {
	if m.settle(s) && m.book != nil && s.Row.ID != "" { // an attempt has no row
		m.book.Post(&s.Row)
	}
	return nil
}

// settle reports whether the settlement counts.
func (m *Memory) settle(s *Settlement) bool {
	now := m.clock.read()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.follow()
	h := m.settled.hash(s.Call.ID)
	if c := m.calls[s.Call.ID]; c != nil {
		for i := range c.held {
			c.held[i].settle(s.Used, c.at, now)
		}
		m.retire(c)
		delete(m.calls, s.Call.ID)
	} else if m.settled.has(h) {
		return false
	}
	m.settled.add(h)
	m.forgetSettled(now)
	m.arm()
	return true
}

// Peek implements Limiter. It returns no error.
func (m *Memory) Peek(_ context.Context, who *Subject) ([]Level, error) {
	var in room
	buckets, slots, now := m.enter(&in, who)
	defer m.mu.Unlock()
	return grant(buckets, slots, now).Levels, nil
}
