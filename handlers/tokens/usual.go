package tokens

import (
	"math/bits"
	"sync"
)

// usual remembers how long answers are, by model and key, in steps of a quarter of the
// size. Its zero value is ready; it is safe for concurrent use.
type usual struct {
	mu sync.Mutex
	by map[pair]*lengths
}

type pair struct{ model, key string }

const (
	// pairs bounds the memory: some 300 bytes each. Beyond it any other one is forgotten.
	pairs = 4096
	// enough is how many answers must have been seen before they count.
	enough = 10
	// fresh is how many answers count: at twice as many all of them lose half their weight.
	fresh = 500
	// steps reach 2^24 tokens, four for each power of two.
	steps = 24 * 4
)

// lengths counts answers by their length.
type lengths struct {
	total uint32
	at    [steps]uint16
}

func (u *usual) add(model, key string, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	l := u.by[pair{model, key}]
	if l == nil {
		if len(u.by) >= pairs {
			for p := range u.by {
				delete(u.by, p)
				break
			}
		}
		if u.by == nil {
			u.by = map[pair]*lengths{}
		}
		l = new(lengths)
		u.by[pair{model, key}] = l
	}
	l.add(n)
}

func (l *lengths) add(n int64) {
	l.at[step(n)]++
	if l.total++; l.total < 2*fresh {
		return
	}
	l.total = 0
	for i := range l.at {
		l.at[i] /= 2
		l.total += uint32(l.at[i])
	}
}

// p90 is a length that nine of ten answers do not exceed.
func (u *usual) p90(model, key string, otherwise int64) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	l := u.by[pair{model, key}]
	if l == nil || l.total < enough {
		return otherwise
	}
	above := l.total / 10
	for i := steps - 1; i >= 0; i-- {
		if n := uint32(l.at[i]); n > above {
			return upper(i)
		} else {
			above -= n
		}
	}
	return otherwise
}

// step is the place of a length: its power of two, and the two bits behind it.
func step(n int64) int {
	n = min(max(n, 4), 1<<24-1)
	power := bits.Len64(uint64(n)) - 1
	return power*4 + int(n>>(power-2))&3
}

// upper is the largest length of a step.
func upper(i int) int64 {
	power := i / 4
	if power < 2 {
		return 4
	}
	return int64(4+i%4+1)<<(power-2) - 1
}
