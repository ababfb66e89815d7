package streaming

import (
	"errors"
	"fmt"
)

// The ends of a stream that are nobody's answer. Every other end is an error of
// the provider.
var (
	// ErrClientGone says that the client closed its connection.
	ErrClientGone = errors.New("the client has gone")
	// ErrSlow says that the client did not take what was written within the write limit.
	ErrSlow = errors.New("the client reads too slowly")
	// ErrTotal says that the answer took longer than the total time limit over all attempts.
	ErrTotal = errors.New("the time limit for the whole answer has passed")
	// ErrDraining says that the gateway is shutting down.
	ErrDraining = errors.New("the gateway is shutting down")
)

// PanicError is a panic of an adapter or an encoder, caught by the relay.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("internal fault: %v", e.Value) }
