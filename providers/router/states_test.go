package router

import (
	"fmt"
	"testing"
)

// Names that callers make up fill no memory, also when each of them has failed; what runs is
// remembered.
func TestStatesAreBounded(t *testing.T) {
	s := newStates()
	busy := s.of("busy", "u")
	busy.running.Add(1)
	for i := range 3 * maxStates {
		s.of(fmt.Sprint(i), "u").odd.Store(i%8 != 0)
		if len(s.known) > maxStates {
			t.Fatalf("%d states after %d names", len(s.known), i)
		}
	}
	if s.of("busy", "u") != busy {
		t.Error("the state of a target that runs is another one")
	}
}
