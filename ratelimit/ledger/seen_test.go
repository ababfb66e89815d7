package ledger

import (
	"strconv"
	"testing"
)

func TestSeen(t *testing.T) {
	const limit = 100
	s := newSeen(limit)
	for i := range 10 * limit {
		if !s.add(strconv.Itoa(i)) {
			t.Fatalf("id %d is taken for another", i)
		}
		for j := max(0, i-limit+1); j <= i; j++ {
			if id := strconv.Itoa(j); !s.has(id) || s.add(id) {
				t.Fatalf("id %d is forgotten at %d", j, i)
			}
		}
		if n := len(s.new) + len(s.old); n > 2*limit {
			t.Fatalf("%d ids are held", n)
		}
	}
	if s.has("0") || !s.add("") || !s.add("") {
		t.Error("what is not known is known")
	}
}
