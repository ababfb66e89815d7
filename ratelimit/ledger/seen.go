package ledger

import "hash/maphash"

// seen remembers at least the newest limit ids, and at most twice as many. It holds their
// 64-bit hashes under a random seed, so two ids are taken for one with a chance of
// 2·limit in 2^64. The zero value is not usable.
type seen struct {
	seed     maphash.Seed
	new, old map[uint64]struct{}
	limit    int
}

func newSeen(limit int) *seen {
	return &seen{seed: maphash.MakeSeed(), new: map[uint64]struct{}{}, old: map[uint64]struct{}{}, limit: limit}
}

// add reports whether the id is new. An empty id always is.
func (s *seen) add(id string) bool {
	if id == "" {
		return true
	}
	h, before := maphash.String(s.seed, id), len(s.new)
	if _, known := s.old[h]; known {
		return false
	}
	if s.new[h] = struct{}{}; len(s.new) == before {
		return false
	}
	if len(s.new) >= s.limit {
		s.new, s.old = s.old, s.new
		clear(s.new)
	}
	return true
}

func (s *seen) has(id string) bool {
	h := maphash.String(s.seed, id)
	_, isNew := s.new[h]
	_, isOld := s.old[h]
	return isNew || isOld
}
