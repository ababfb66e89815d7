//go:build prove

package main

import (
	"testing"
	"time"
)

func init() { roundTrips = 1000 }

// TestAThousandSockets is TestManySockets at length.
func TestAThousandSockets(t *testing.T) {
	if peak, want := checkManySockets(t, 1000, 5*time.Second, 200*time.Millisecond), 1000*lanesEach; peak != want {
		t.Errorf("%d answers ran side by side, want %d", peak, want)
	}
}
