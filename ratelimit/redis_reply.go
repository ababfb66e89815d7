package ratelimit

import (
	"encoding/binary"
	"math"
)

// Verdicts of RESERVE. The third means that buckets have too little, but that some of what they
// miss may be held by calls whose gateway died, so that it is worth to sweep and to try again. The
// fourth means that a call that Redis had lost is reserved again.
const (
	denied = iota
	granted
	heldByDead
	restored
	grantedBefore // told as granted
)

// reservationArg is which of RESERVE's arguments is the reservation.
const reservationArg = 3

// reserveReply is what RESERVE says.
type reserveReply struct {
	verdict, now int64
	took         bool // by this run
	places       []int64
	buckets      []any // packed
}

// bucketBytes is the part of a packed bucket that matters here: level, fraction and time.
const bucketBytes = 3 * 8

// reserved is the reply of RESERVE; false when it is something else.
func (c *redisCall) reserved() (r reserveReply, ok bool) {
	list, _ := c.reply.([]any)
	if len(list) == 0 {
		return r, false
	}
	head, _ := list[0].(string)
	if len(head) < 2*8 {
		return r, false
	}
	r.verdict, r.now, r.buckets = floatAt(head, 0), floatAt(head, 1), list[1:]
	for i := 2; i < len(head)/8; i++ {
		r.places = append(r.places, floatAt(head, i))
	}
	r.took = r.verdict == granted || r.verdict == restored
	if r.verdict == grantedBefore {
		r.verdict = granted
	}
	return r, true
}

// floatAt is the whole number that a script has packed as a number of Lua, at the nth place.
func floatAt(text string, n int) int64 {
	var b [8]byte
	copy(b[:], text[8*n:])
	return int64(math.Float64frombits(binary.LittleEndian.Uint64(b[:])))
}
