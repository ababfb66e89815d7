//go:build prove

package ratelimit_test

import (
	"testing"
	"time"
)

// TestGuardRedisMinute is TestGuardRedis with a Redis that is away for a minute each time.
func TestGuardRedisMinute(t *testing.T) {
	guardStory(t, 60_000, time.Minute, 15*time.Second)
}
