//go:build !unix

package proc

import "math"

// RaiseNoFile has nothing to raise here.
func RaiseNoFile() (uint64, error) { return math.MaxInt32, nil }
