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
			if id := strconv.Itoa(j); !s.has(s.hash([]byte(id))) || s.add(id) {
				t.Fatalf("id %d is forgotten at %d", j, i)
			}
		}
		if n := s.new.count + s.old.count; n > 2*limit {
			t.Fatalf("%d ids are held", n)
		}
	}
	if s.has(s.hash([]byte("0"))) || !s.add("") || !s.add("") {
		t.Error("what is not known is known")
	}
}
