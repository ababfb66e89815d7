//go:build race

package store

// raced is set when the detector runs: sync.Pool then forgets on purpose.
const raced = true
