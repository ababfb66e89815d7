package providers

import (
	"errors"
	"strings"
	"time"
)

// ErrorKind is why an answer failed. The kinds are closed: what each means for a
// client is one table, in the handlers.
type ErrorKind uint8

const (
	// Internal is a fault of the gateway itself.
	Internal ErrorKind = iota
	// BadRequest is a request that the caller must change.
	BadRequest
	// Unauthorized is a caller without a valid credential.
	Unauthorized
	// Forbidden is a caller who may not do this.
	Forbidden
	// NotFound is a route or object that does not exist.
	NotFound
	// ModelNotFound is a model that no upstream serves.
	ModelNotFound
	// MethodNotAllowed is a route that exists for other methods.
	MethodNotAllowed
	// TooLarge is a request over a size limit.
	TooLarge
	// UnsupportedMedia is a request body of a type that the route does not take.
	UnsupportedMedia
	// RateLimited is a caller, or the gateway at its upstream, over a limit.
	RateLimited
	// Overloaded is an upstream that has no room now.
	Overloaded
	// Unreachable is an upstream that could not be connected.
	Unreachable
	// UpstreamFailed is an upstream that answered with a fault of its own.
	UpstreamFailed
	// UpstreamCredential is an upstream that refused the gateway's credential.
	UpstreamCredential
	// Protocol is an upstream that answered in a form that is not its protocol.
	Protocol
	// Truncated is an answer that ended before its true end.
	Truncated
	// Timeout is an upstream that was silent for longer than a phase allows.
	Timeout
	// EventTooLarge is an upstream event over the size limit.
	EventTooLarge
	// Passed is an upstream's refusal that is handed on in its own words and status.
	Passed
)

// Error is why an answer failed, in the words that a client may read.
type Error struct {
	Kind    ErrorKind
	Target  string // where it happened; "" in the gateway
	Status  int    // the upstream's HTTP status, 0 if there was none
	Type    string // the upstream's error type, "" when it gave none
	Code    string
	Param   string
	Message string
	// RetryAfter is how long the upstream wants to be left alone; 0: it did not say.
	RetryAfter time.Duration
	Err        error
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Target != "" {
		b.WriteString(e.Target + ": ")
	}
	b.WriteString(e.Message)
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// AsError returns the *Error in err's chain, or nil.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// Retryable reports whether another try, here or elsewhere, may succeed. It is
// false for everything that the caller must change. See Final for errors where only
// another target helps.
func (e *Error) Retryable() bool {
	switch e.Kind {
	case RateLimited, Overloaded, Unreachable, UpstreamFailed, UpstreamCredential, Protocol, Truncated, Timeout:
		return true
	case Passed:
		return e.Status == 408
	default:
		return false
	}
}

// Final reports whether the same target would fail the same way for this gateway
// however often it is asked: its account has no credit left (OpenAI error codes,
// insufficient_quota). Another target may still answer.
func (e *Error) Final() bool {
	return e.Code == insufficientQuota || e.Type == insufficientQuota
}

const insufficientQuota = "insufficient_quota"

// NotServed reports whether an adapter has refused the request itself, before anything
// was sent: its upstream has no way to serve it. Another target may have one.
func (e *Error) NotServed() bool { return e.Kind == BadRequest && e.Status == 0 }

// Invalid is a BadRequest that names the field and says what to do.
func Invalid(param, message string) *Error {
	return &Error{Kind: BadRequest, Param: param, Message: message}
}
