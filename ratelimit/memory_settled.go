package ratelimit

import "hash/maphash"

// settledIDs remembers the ids of settled calls, by hashes in two generations: that costs
// little memory, nothing to forget and nothing to collect. Two ids with one hash of 128 bits
// would leave the second call unsettled; among 65,536 ids that is one chance in 10^29.
type settledIDs struct {
	seeds    [2]maphash.Seed
	new, old map[idHash]struct{}
	begun    int64 // steady, of the new generation
}

type idHash [2]uint64

func newSettledIDs() settledIDs {
	return settledIDs{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, new: map[idHash]struct{}{}}
}

func (s *settledIDs) hash(id string) idHash {
	return idHash{maphash.String(s.seeds[0], id), maphash.String(s.seeds[1], id)}
}

func (s *settledIDs) has(h idHash) bool {
	if _, ok := s.new[h]; ok {
		return true
	}
	_, ok := s.old[h]
	return ok
}

func (s *settledIDs) add(h idHash) { s.new[h] = struct{}{} }

// turn begins a generation when the present one has half of most ids, or is older than
// before, a moment.
func (s *settledIDs) turn(most int, before, now int64) {
	if len(s.new) < max(most/2, 1) && s.begun >= before {
		return
	}
	room := min(len(s.new), most/2)
	s.old, s.new, s.begun = s.new, make(map[idHash]struct{}, room), now
}

func (s *settledIDs) len() int { return len(s.new) + len(s.old) }
