//go:build prove

package main

import "testing"

// TestReloadUnderManyStreams is TestReloadUnderStreams at length.
func TestReloadUnderManyStreams(t *testing.T) { reloadUnderStreams(t, 1000, 100) }
