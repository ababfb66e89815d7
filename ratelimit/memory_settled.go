package ratelimit

import "hash/maphash"

// settledIDs remembers the ids of settled calls by their hashes, so that many of them cost
// little memory and nothing to collect. Two ids with one hash of 128 bits would leave the
// second call unsettled; among 65,536 ids that is one chance in 10^29.
type settledIDs struct {
	seeds [2]maphash.Seed
	known map[idHash]struct{}
	queue []settledID // oldest first, from head on
	head  int
}

type idHash [2]uint64

type settledID struct {
	id idHash
	at int64 // steady
}

func newSettledIDs() settledIDs {
	return settledIDs{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, known: map[idHash]struct{}{}}
}

func (s *settledIDs) hash(id string) idHash {
	return idHash{maphash.String(s.seeds[0], id), maphash.String(s.seeds[1], id)}
}

func (s *settledIDs) has(id string) bool {
	_, ok := s.known[s.hash(id)]
	return ok
}

func (s *settledIDs) add(id string, now int64) {
	h := s.hash(id)
	s.known[h] = struct{}{}
	s.queue = append(s.queue, settledID{h, now})
}

// forget drops the oldest beyond most, and those from before a moment.
func (s *settledIDs) forget(most int, before int64) {
	for s.len() > 0 && (s.len() > most || s.queue[s.head].at < before) {
		delete(s.known, s.queue[s.head].id)
		s.head++
	}
	if s.head > len(s.queue)/2 {
		s.queue = s.queue[:copy(s.queue, s.queue[s.head:])]
		s.head = 0
	}
}

func (s *settledIDs) len() int { return len(s.queue) - s.head }
