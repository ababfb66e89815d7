//go:build prove

package main

import "testing"

// TestQuotaStormOfManyCalls is TestQuotaStorm at length.
func TestQuotaStormOfManyCalls(t *testing.T) { runStorms(t, 100_000) }
