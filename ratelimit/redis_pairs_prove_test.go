//go:build prove

package ratelimit_test

import "testing"

func TestRedisLedgerIsTheTruthOfManyCalls(t *testing.T) { runPairs(t, 100_000) }
