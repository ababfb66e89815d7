package ratelimit

import "time"

// slotKey is a bucket's identity. When a rule counts something else than before, its
// buckets are others.
type slotKey struct {
	rule, org, name, model string
	dim                    Dim
}

func keyOf(b *Bucket) slotKey {
	return slotKey{b.Rule.ID, b.Org, b.Name, b.Model, b.Rule.Dim}
}

// slot is one bucket in use. A nil slot is a bucket that nobody has taken from.
type slot struct {
	key    slotKey
	rule   *Rule
	label  string
	fill   fill    // of a bucket that holds an amount
	places []*call // of Streams: the calls that have one
	refs   int     // open calls that will be settled here
	used   int64   // instant.steady of the last look
	cut    int64   // that the level has lost by rules that were lowered
	family *family
	pos    int  // in family.slots
	gone   bool // forgotten: no longer in Memory.slots
}

func (s *slot) advance(now instant) {
	s.used = now.steady
	if s.rule.Dim != Streams {
		s.cut += max(s.fill.level-s.rule.Full(), 0)
		s.fill.advance(s.rule, now.of(s.rule))
	}
}

// left is what can be taken under the rule. The slot was advanced before.
func (s *slot) left(r *Rule) int64 {
	switch {
	case s == nil:
		return r.Full()
	case r.Dim == Streams:
		return r.Amount - int64(len(s.places))
	default:
		return s.fill.level
	}
}

// wait is until there is need. The slot was advanced before.
func (s *slot) wait(r *Rule, need int64, now instant) time.Duration {
	switch {
	case need <= s.left(r):
		return 0
	case r.Dim == Streams:
		return placesRetry
	default:
		return s.fill.wait(r, need, now.of(r))
	}
}

// level is how the bucket stands. The slot was advanced before.
func (s *slot) level(b *Bucket, now instant) (l Level) {
	s.tell(&l, b, now)
	return l
}

// tell is level, written in place.
func (s *slot) tell(l *Level, b *Bucket, now instant) {
	l.Rule = b.Rule
	if s == nil {
		l.Name, l.Left = b.Label(), b.Rule.Full()
		return
	}
	l.Name, l.Left = s.label, s.left(b.Rule)
	l.Reset = s.wait(b.Rule, b.Rule.Full(), now)
}

// idle reports whether forgetting the slot would lose nothing.
func (s *slot) idle(now instant) bool {
	if s.refs > 0 {
		return false
	}
	f := s.fill
	f.advance(s.rule, now.of(s.rule))
	return s.rule.Dim == Streams || f.level >= s.rule.Full()
}

// leave frees the call's place.
func (s *slot) leave(c *call, place int) {
	last := len(s.places) - 1
	moved := s.places[last]
	s.places[place], s.places[last] = moved, nil
	s.places = s.places[:last]
	for i := range moved.held {
		if moved.held[i].slot == s {
			moved.held[i].place = place
		}
	}
}

// family is the slots of one rule.
type family struct {
	slots []*slot
	hand  int // where the search for slots to forget goes on
}

func (f *family) add(s *slot) {
	s.family, s.pos = f, len(f.slots)
	f.slots = append(f.slots, s)
}

func (f *family) remove(s *slot) {
	last := len(f.slots) - 1
	moved := f.slots[last]
	f.slots[s.pos], moved.pos = moved, s.pos
	f.slots[last] = nil
	f.slots = f.slots[:last]
}

// next is the slot at the hand, which moves on.
func (f *family) next() *slot {
	if f.hand++; f.hand >= len(f.slots) {
		f.hand = 0
	}
	return f.slots[f.hand]
}
