// Package ratelimit knows buckets: what a call may take from them before it runs,
// what it gives back when it has ended, and who is told to wait. It knows nothing of
// models, upstreams or clients beyond their names.
//
// A call is reserved at its estimate, may be extended while it runs and is settled
// once at what it really cost. Levels are signed: who used more than was reserved is
// in debt and waits it out.
package ratelimit

import (
	"context"
	"errors"
	"time"

	"sluice/ratelimit/ledger"
)

// Remembered is how long a settled id is known to be settled, at least. Limiters may know it
// for longer.
const Remembered = 10 * time.Minute

// Limiter guards the door. All methods may be called concurrently, from any replica.
type Limiter interface {
	// Reserve takes what the call may cost from every bucket that applies, or from
	// none. It returns *Denied when a bucket has too little, and an error that wraps
	// ErrUnavailable when nobody can tell. An id that was granted is granted again, also
	// when it is settled, and takes nothing again; the levels are those of then. A bucket
	// that the call costs nothing does not deny it, even in debt.
	Reserve(ctx context.Context, c *Call) (Grant, error)
	// Extend takes more for a call that runs and costs more than was reserved. Only
	// hard budgets are taken from and can deny it; other buckets go into debt when the call
	// is settled. An id without an open reservation takes nothing and is not denied.
	Extend(ctx context.Context, c *Call, more Cost) error
	// Settle replaces what was reserved by what was used, frees the call's places and
	// writes its row to the ledger, within a bounded time of its own. Only the first settlement of an id counts. An id
	// without a reservation changes no bucket; its row is written.
	Settle(ctx context.Context, s *Settlement) error
	// Peek reads the levels of all buckets that apply, changing none.
	Peek(ctx context.Context, who *Subject) ([]Level, error)
}

// ErrUnavailable is wrapped by errors that mean: the store of the buckets could not be
// reached in time, so whether the call is within its limits is not known.
var ErrUnavailable = errors.New("the store of the limits is not available")

// Dim is what a limit counts.
type Dim uint8

const (
	// Requests counts calls.
	Requests Dim = iota
	// Tokens counts input and output tokens together.
	Tokens
	// Input counts prompt tokens.
	Input
	// Output counts generated tokens.
	Output
	// Frames counts video frames.
	Frames
	// FrameBytes counts bytes of video frames.
	FrameBytes
	// Money counts nano-dollars (1e-9 US dollars).
	Money
	// Streams counts calls that run at the same time.
	Streams
)

// Cost is what a call takes, by dimension. Money is in nano-dollars.
type Cost struct {
	Requests, Input, Output, Frames, FrameBytes, Money int64
}

// Of is the cost in one dimension. Every call takes one place of Streams.
func (c Cost) Of(d Dim) int64 {
	switch d {
	case Requests:
		return c.Requests
	case Tokens:
		return c.Input + c.Output
	case Input:
		return c.Input
	case Output:
		return c.Output
	case Frames:
		return c.Frames
	case FrameBytes:
		return c.FrameBytes
	case Money:
		return c.Money
	default:
		return 1
	}
}

// prompt is the part of the cost that is known before the call runs.
func (c Cost) prompt(d Dim) int64 {
	switch d {
	case Tokens, Input:
		return c.Input
	case Frames:
		return c.Frames
	case FrameBytes:
		return c.FrameBytes
	default:
		return 0
	}
}

// Scope says whose bucket it is: each name within the scope has one.
type Scope uint8

const (
	// Global is one bucket for everybody.
	Global Scope = iota
	// Provider has one bucket per upstream. The router checks it per attempt.
	Provider
	// IP has one bucket per client address.
	IP
	// Model has one bucket per model name, for all callers together.
	Model
	// Org has one bucket per organisation.
	Org
	// Team has one bucket per team of an organisation.
	Team
	// User has one bucket per user.
	User
	// Key has one bucket per key.
	Key
	// KeyModel has one bucket per key and model.
	KeyModel
)

// Shared reports whether tenants share the scope's buckets. Shared buckets live in a hash
// slot of their own: they are checked by a script of their own.
func (s Scope) Shared() bool { return s <= Model }

// Per is the time in which a bucket of Amount fills.
type Per uint8

const (
	// AtOnce is the period of Streams.
	AtOnce Per = iota
	// Second, Minute, Hour and Day fill steadily.
	Second
	Minute
	Hour
	Day
	// CalendarDay and CalendarMonth fill at once when a day or month begins (UTC). What
	// was reserved in an earlier period is not given back to a later one.
	CalendarDay
	CalendarMonth
)

// Policy is what happens to the calls of a limit while the store cannot be reached.
type Policy uint8

const (
	// Local counts in this process, at the limit divided by the number of replicas.
	Local Policy = iota
	// Open lets calls pass uncounted.
	Open
	// Closed refuses calls.
	Closed
)

// Rule is one declared limit. It is read only once in use.
type Rule struct {
	ID     string // unique; names the limit to callers and operators, and its buckets in the store
	Scope  Scope
	Dim    Dim
	Amount int64 // that flows in per Per; for Streams, at once; more than 0
	Per    Per
	Burst  int64 // level of a full bucket; 0 means Amount; equal to Amount for Streams and calendar periods
	// Models are globs of the model names that the limit is for; none means all.
	Models []string
	// Only are globs of the names in the scope that the limit is for; none means all.
	Only []string
	// Hard lets Extend deny, which ends an answer that runs.
	Hard      bool
	OnTrouble Policy
	// Grace is what a budget lets pass while the store cannot be reached, in units of its
	// dimension, for all replicas together; 0 means a hundredth of Amount, and at most
	// 10,000 where tokens are counted. It is for limits that are Hard or count Money.
	Grace int64
}

// Full is the level of a full bucket.
func (r *Rule) Full() int64 {
	if r.Burst > 0 {
		return r.Burst
	}
	return r.Amount
}

// Subject is who calls, for what. An empty name has no bucket in its scope. One with a
// Provider is an attempt of a call: the rules of Provider are for it, and no others.
type Subject struct {
	Org, Team, User, Key, Model, Provider, IP string
	// Rules are limits that the caller's key carries, beside the declared ones; they have
	// passed CheckRules. One with the ID of a declared rule takes its place.
	Rules []*Rule
}

// Call asks for a reservation.
type Call struct {
	ID   string // of the request; unique over all replicas
	Who  Subject
	Want Cost // the estimate: the prompt and the most that may be generated
	// Used tells what the call has cost so far. It is called now and then from another
	// goroutine until the call is settled; nil means nothing is known. What it told last
	// is what the call is settled at when its replica dies.
	Used func() Cost
	// Lost is called when the store has taken this replica for dead, has given what the call
	// held to others, and there is no place of Streams, or nothing of a hard budget, left for
	// it to go on with. It is called from another goroutine, once at most; nil: nobody asks.
	Lost func(*Denied)
	// Row is written with End "lost" when the call's replica dies. It is read only.
	Row ledger.Row
}

// Settlement ends a call.
type Settlement struct {
	Call *Call
	Used Cost
	Row  ledger.Row
	// Past is set for a settlement that waited in a journal, or of a call that was decided on
	// beside the store.
	Past *Past
}

// Past is what is known of a settlement that could not be told to the store at once. The store
// remembers its id for longer then, since nobody knows when it is told again.
type Past struct {
	// Granted says that what was used is to be charged also if the store does not know the id:
	// it had granted the call, and has lost the reservation, or was never asked.
	Granted bool
	// Sent says that the store may have settled the call. When At, when that was, is longer
	// ago than ids are remembered, an id that it does not know changes nothing, and the
	// settlement ends with ErrForgotten.
	Sent bool
	At   time.Time
}

// Level is the state of one bucket.
type Level struct {
	Rule  *Rule
	Name  string        // in the scope; never a secret
	Left  int64         // may be negative
	Reset time.Duration // until the bucket is full, as it stands; a guess for Streams
}

// Grant is a reservation.
type Grant struct {
	// Levels are the buckets after the reservation, in the order of the rules.
	Levels []Level
	// Hard is set when a hard budget applies, so that the caller must Extend a call that
	// outgrows its estimate.
	Hard bool
}

// Denied says which limits a call is over. Nothing was taken.
type Denied struct {
	Over []Shortage // at least one
	// RetryAfter is when the same call could pass if nobody else calls, rounded up to a
	// microsecond. It is a guess when places of Streams are missing.
	RetryAfter time.Duration
	// TooLarge is set when the call can never pass: its prompt alone is more than a full bucket.
	TooLarge bool
}

// Shortage is a bucket with too little for a call.
type Shortage struct {
	Level
	Need int64
}

func (d *Denied) Error() string {
	s := d.Over[0]
	if d.TooLarge {
		return "the request alone is larger than limit " + s.Rule.ID
	}
	return "over limit " + s.Rule.ID
}
