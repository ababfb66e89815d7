//go:build prove

package ratelimit

import "testing"

// TestGuardUnderLoadOfManySeeds is TestGuardUnderLoad with other calls and faults.
func TestGuardUnderLoadOfManySeeds(t *testing.T) { guardUnderLoad(t, 8) }
