package ratelimit

import (
	"cmp"
	"slices"
)

// Fullest are up to n buckets of which the largest share is used, debt included; those that
// are full are not among them. It changes no level, forgets nothing and holds nobody up for
// longer than a sweep does. Levels of different buckets may be of slightly different moments.
func (m *Memory) Fullest(n int) []Level {
	var top []Level
	for _, f := range m.ruleFamilies() {
		for at := 0; ; at += sweepAtOnce {
			levels, more := m.levelsFrom(f, at)
			top = append(top, levels...)
			slices.SortFunc(top, func(a, b Level) int {
				return cmp.Or(cmp.Compare(b.share(), a.share()), cmp.Compare(a.Rule.ID, b.Rule.ID), cmp.Compare(a.Name, b.Name))
			})
			top = slices.Delete(top, min(n, len(top)), len(top))
			if !more {
				break
			}
		}
	}
	return top
}

func (l *Level) share() float64 {
	full := float64(l.Rule.Full())
	return (full - float64(l.Left)) / full
}

func (m *Memory) ruleFamilies() []*family {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.follow()
	out := make([]*family, 0, len(m.families))
	for _, f := range m.families {
		out = append(out, f)
	}
	return out
}

// levelsFrom reads some buckets of a rule without noting that they were looked at.
func (m *Memory) levelsFrom(f *family, at int) (out []Level, more bool) {
	now := m.clock.read()
	m.mu.Lock()
	defer m.mu.Unlock()
	end := min(at+sweepAtOnce, len(f.slots))
	for i := at; i < end; i++ {
		s := *f.slots[i]
		s.advance(now)
		if l := (Level{Rule: s.rule, Name: s.label, Left: s.left(s.rule)}); l.Left < s.rule.Full() {
			l.Reset = s.wait(s.rule, s.rule.Full(), now)
			out = append(out, l)
		}
	}
	return out, end < len(f.slots)
}
