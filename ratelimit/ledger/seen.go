package ledger

import "hash/maphash"

// seen remembers at least the newest limit ids, and at most twice as many: as hashes of
// 128 bits under random seeds, in tables without pointers (16 bytes for each of up to five
// slots per id). If two ids had one hash, the row of the second would count as a repetition
// and be lost; for each id the chance is 2·limit in 2^128, about one in 10^33. The zero
// value is not usable.
type seen struct {
	seeds    [2]maphash.Seed
	new, old hashSet
	limit    int
}

type hash128 [2]uint64

func newSeen(limit int) *seen {
	return &seen{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, limit: limit}
}

// add reports whether the id is new. An empty id always is.
func (s *seen) add(id string) bool {
	return id == "" || s.addHash(hash128{maphash.String(s.seeds[0], id), maphash.String(s.seeds[1], id)}.some())
}

func (s *seen) hash(id []byte) hash128 {
	return hash128{maphash.Bytes(s.seeds[0], id), maphash.Bytes(s.seeds[1], id)}.some()
}

func (s *seen) addHash(h hash128) bool {
	if s.old.has(h) || !s.new.add(h) {
		return false
	}
	if s.new.count >= s.limit {
		s.new, s.old = s.old, s.new
		s.new.clear()
	}
	return true
}

func (s *seen) has(h hash128) bool { return s.new.has(h) || s.old.has(h) }

// some keeps the zero hash free for empty slots.
func (h hash128) some() hash128 {
	if h == (hash128{}) {
		h[1] = 1
	}
	return h
}

// hashSet is a set with linear probing, at most seven eighths full. The zero value is empty.
type hashSet struct {
	slots []hash128 // a power of two
	count int
}

// find returns the slot that holds h, or that it belongs into.
func (s *hashSet) find(h hash128) *hash128 {
	mask := uint64(len(s.slots) - 1)
	for i := h[0] & mask; ; i = (i + 1) & mask {
		if slot := &s.slots[i]; *slot == h || *slot == (hash128{}) {
			return slot
		}
	}
}

func (s *hashSet) has(h hash128) bool { return s.count > 0 && *s.find(h) == h }

// add reports whether h is new.
func (s *hashSet) add(h hash128) bool {
	if 8*(s.count+1) > 7*len(s.slots) {
		s.grow()
	}
	slot := s.find(h)
	if *slot == h {
		return false
	}
	*slot = h
	s.count++
	return true
}

func (s *hashSet) grow() {
	old := s.slots
	s.slots = make([]hash128, max(64, 2*len(old)))
	for _, h := range old {
		if h != (hash128{}) {
			*s.find(h) = h
		}
	}
}

func (s *hashSet) clear() {
	clear(s.slots)
	s.count = 0
}
