package router

import (
	"math/bits"
	"slices"
)

// set is a set of targets, by their place in the pool. Pools of up to 128 targets cost
// no allocation.
type set struct {
	few  [2]uint64
	more *[]uint64 // the words behind; nil: there are none
}

func (s *set) words() int {
	if s.more == nil {
		return len(s.few)
	}
	return len(s.few) + len(*s.more)
}

func (s *set) word(w int) uint64 {
	if w < len(s.few) {
		return s.few[w]
	}
	return (*s.more)[w-len(s.few)]
}

func (s *set) has(i int) bool {
	w := i >> 6
	return w < s.words() && s.word(w)&(1<<(i&63)) != 0
}

func (s *set) add(i int) {
	w := i >> 6
	if w < len(s.few) {
		s.few[w] |= 1 << (i & 63)
		return
	}
	if s.more == nil {
		s.more = new([]uint64)
	}
	for w -= len(s.few); w >= len(*s.more); {
		*s.more = append(*s.more, 0)
	}
	(*s.more)[w] |= 1 << (i & 63)
}

// clone shares no memory with s.
func (s *set) clone() set {
	c := *s
	if s.more != nil {
		own := slices.Clone(*s.more)
		c.more = &own
	}
	return c
}

func (s *set) clear() {
	s.few = [2]uint64{}
	if s.more != nil {
		clear(*s.more)
	}
}

func (s *set) len() (n int) {
	for w := range s.words() {
		n += bits.OnesCount64(s.word(w))
	}
	return n
}

// after is the first member behind i, -1 when there is none. Begin with -1.
func (s *set) after(i int) int {
	for i++; i < 64*s.words(); i = (i | 63) + 1 {
		if word := s.word(i>>6) >> (i & 63); word != 0 {
			return i + bits.TrailingZeros64(word)
		}
	}
	return -1
}

// nth is the n-th member, from 0; -1 when there are fewer.
func (s *set) nth(n int) int {
	for w := range s.words() {
		word := s.word(w)
		if in := bits.OnesCount64(word); n >= in {
			n -= in
			continue
		}
		for ; n > 0; n-- {
			word &= word - 1
		}
		return w<<6 + bits.TrailingZeros64(word)
	}
	return -1
}
