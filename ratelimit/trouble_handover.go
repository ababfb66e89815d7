package ratelimit

import (
	"context"
	"errors"
	"sync"
)

// seen remembers what the primary last said of its buckets, in two generations of bounded size.
type seen struct {
	clock    *clock
	mu       sync.Mutex
	now, old map[seenKey]seenLevel
}

type seenKey struct{ rule, org, label string }

type seenLevel struct {
	left int64
	at   instant
}

const maxSeen = 1 << 15 // of a generation

func (s *seen) note(who *Subject, levels []Level) {
	if len(levels) == 0 {
		return
	}
	at := s.clock.read()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.now) >= maxSeen {
		s.old, s.now = s.now, nil
	}
	if s.now == nil {
		s.now = map[seenKey]seenLevel{}
	}
	for i := range levels {
		l := &levels[i]
		if l.Rule.Dim == Streams {
			continue
		}
		k := seenKey{rule: l.Rule.ID, label: l.Name}
		if !l.Rule.Scope.Shared() {
			k.org = who.Org
		}
		s.now[k] = seenLevel{l.Left, at}
	}
}

// level is what should be left in a bucket now, if nobody used it since it was seen.
func (s *seen) level(b *Bucket) (left int64, known bool) {
	k := seenKey{b.Rule.ID, b.Org, b.Label()}
	s.mu.Lock()
	l, known := s.now[k]
	if !known {
		l, known = s.old[k]
	}
	s.mu.Unlock()
	if !known {
		return 0, false
	}
	f := fill{level: l.left, at: l.at.of(b.Rule)}
	f.advance(b.Rule, s.clock.read().of(b.Rule))
	return f.level, true
}

// begin marks a bucket at its first use in an episode of trouble. It begins with its share
// of what the primary last said was left. One that the primary has said nothing of may have
// been used up elsewhere: it begins empty, and fills at the share.
func (h *here) begin(b *Bucket, s *share, seen *seen) {
	if s.rule.Dim == Streams {
		return
	}
	key := keyOf(b)
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.marks[key]
	if m != nil && m.episode == h.episode || m == nil && len(h.marks) >= maxMarks {
		return
	}
	level := s.rule.Full()
	if left, known := seen.level(b); known && left < b.Rule.Full() {
		level = left / int64(max(h.n, 1))
	} else if !known && m == nil {
		level = s.unseen
	}
	now, by, cut := h.local.lower(b, s.rule, level)
	if m == nil {
		h.marks[key] = &mark{bucket: *b, budget: s.budget, episode: h.episode, without: now, cut: cut}
		return
	}
	m.episode = h.episode
	m.without.level -= by
}

// trouble begins another episode.
func (h *here) trouble() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.episode++
}

// lower makes the bucket of a rule hold not more than level. It returns it, by how much it
// was lowered, and what rules have cut of it.
func (m *Memory) lower(b *Bucket, r *Rule, level int64) (f fill, by, cut int64) {
	own := *b
	own.Rule = r
	now := m.clock.read()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.slots[keyOf(&own)]
	if s == nil {
		s = m.newSlot(&own, now)
	}
	s.rule = r
	s.advance(now)
	if by = s.fill.level - level; by <= 0 {
		return s.fill, 0, s.cut
	}
	s.fill.level, s.fill.fraction = level, 0
	return s.fill, by, s.cut
}

// extend takes more of the hard budgets. The error wraps ErrUnavailable when their grace
// is used up.
func (h *here) extend(c *Call, more Cost) error {
	err := h.local.Extend(context.Background(), c, more)
	var d *Denied
	if errors.As(err, &d) {
		return unavailable(d.Over[0].Rule)
	}
	return err
}

func (h *here) settle(c *Call, used Cost) {
	_ = h.local.Settle(context.Background(), &Settlement{Call: c, Used: used}) // it has no error
}

// debts is what was used here and not handed over yet, at most so many. Money is charged with the
// settlement of its call.
func (h *here) debts(most int) (debts []Debt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, m := range h.marks {
		if m.bucket.Rule.Dim == Money {
			continue
		}
		if n := h.local.spent(key, m); n != 0 {
			debts = append(debts, Debt{m.bucket, n})
		}
		if len(debts) == most {
			break
		}
	}
	return debts
}

// spent is what a marked bucket is below what it would be without its use here. From now
// on that counts as handed over. What was handed over comes back when calls turn out to
// have used less than they reserved.
func (m *Memory) spent(key slotKey, k *mark) int64 {
	now := m.clock.read()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.slots[key]
	if s == nil { // full, and forgotten
		return 0
	}
	s.advance(now)
	k.without.level -= max(s.cut-k.cut, 0)
	k.cut = s.cut
	k.without.advance(s.rule, now.of(s.rule))
	n := max(k.without.level-s.fill.level, -k.handed)
	k.handed += n
	k.without = s.fill
	return n
}

// clear forgets the marks, once everything is handed over. Budgets have their grace again.
func (h *here) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, m := range h.marks {
		if m.budget {
			h.local.refill(key)
		}
	}
	clear(h.marks)
}

func (m *Memory) refill(key slotKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.slots[key]; s != nil {
		s.fill.level, s.fill.fraction = s.rule.Full(), 0
	}
}

// charge is debts that the primary may or may not have taken: they are sent until it says so.
type charge struct {
	id    string
	debts []Debt
}

// debtsAtOnce bounds one Charge.
const debtsAtOnce = 256

// handOver tells the primary what was used beside it. It returns whether anything is left.
func (g *Guard) handOver(ctx context.Context, owed *charge) (next *charge, more bool) {
	if g.charger == nil {
		return nil, g.finish()
	}
	for {
		if owed == nil {
			debts := g.here.debts(debtsAtOnce)
			if len(debts) == 0 {
				return nil, g.finish()
			}
			owed = &charge{g.chargeID(), debts}
		}
		if _, err := g.ask(ctx, nil, func(ctx context.Context) error { return g.charger.Charge(ctx, owed.id, owed.debts) }); err != nil {
			return owed, true
		}
		owed = nil
	}
}

// finish forgets the marks if no call that was decided here is open. It returns whether
// there is one.
func (g *Guard) finish() (more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.calls) > 0 {
		return true
	}
	g.here.clear()
	return false
}
