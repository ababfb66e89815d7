package streaming

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"
)

// Relay pumps a stream into a sink and keeps the client's side alive while the
// upstream is silent.
type Relay struct {
	// Heartbeat is the silence towards the client after which it gets a sign of life; 0 means never.
	Heartbeat time.Duration
	// CommitAfter is how long the status is held back; then the first heartbeat commits it.
	CommitAfter time.Duration
	// Total bounds the whole answer over all attempts; 0 means no bound.
	Total time.Duration
}

// Run ranges over the stream that open returns and sends every batch to dst, in
// the caller's goroutine. The context given to open ends when the client has gone,
// a write fails, Total has passed or p was cancelled; why is its cause. Run returns nil after a true
// end and else what ended the answer. After it returns nobody touches dst. A panic
// of the stream or the sink ends the answer as a *PanicError.
func (r Relay) Run(parent context.Context, open func(context.Context) Stream, dst Sink, p *Progress) (err error) {
	x := &run{relay: r, dst: dst, progress: p}
	ctx := &x.scope
	ctx.Begin(parent)
	defer ctx.Cancel(nil)
	if r.Total > 0 {
		timer := time.AfterFunc(r.Total, func() { ctx.Cancel(ErrTotal) })
		defer timer.Stop()
		ctx.EndBy(time.Now().Add(r.Total))
	}
	p.attach(x)
	x.startBeat()
	if ctx.Err() == nil {
		err = x.pump(ctx, open)
	}
	switch {
	case p.wasFirst(context.Cause(ctx)): // also where it ended a write that was stuck
		err = p.Cancelled()
	case x.sendErr != nil: // net/http ends the context of a failed write, which would hide why it failed
		err = x.sendErr
	case ctx.Err() != nil:
		err = endCause(ctx)
	}
	return x.finish(err)
}

// run is one Run. mu serialises the sink between the pump and the heartbeat timer.
type run struct {
	relay    Relay
	progress *Progress
	scope    Scope

	mu    sync.Mutex
	dst   Sink
	last  time.Duration // uptime of the last write towards the client
	wait  time.Duration
	beat  *time.Timer
	ended bool

	sendErr error // of the pump's own Send
}

func (x *run) startBeat() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.last = Uptime()
	if x.relay.Heartbeat > 0 {
		x.wait = x.relay.Heartbeat
		if c := x.relay.CommitAfter; c > 0 && c < x.wait {
			x.wait = c
		}
		x.beat = time.AfterFunc(time.Hour, x.heartbeat) // armed only once the field is set
		x.beat.Reset(x.wait)
	}
}

// pump is the hot path: per batch one lock, one clock reading and one Send.
func (x *run) pump(ctx context.Context, open func(context.Context) Stream) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	for batch, err := range open(ctx) {
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			continue
		}
		if err := x.send(batch); err != nil {
			return err
		}
	}
	return nil
}

func (x *run) send(batch []Event) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := Uptime()
	if len(batch) > 1 || batch[0].Kind != Meta { // nothing is written of a description alone
		x.last = now
	}
	x.progress.Count(batch, now)
	if err := x.dst.Send(batch); err != nil {
		x.sendErr = err
		x.scope.Cancel(err)
		return err
	}
	return nil
}

// lookAgain is how soon a heartbeat that met a write looks whether it is due.
const lookAgain = time.Second

// heartbeat is called by its timer, which is armed lazily: writes only note their
// time, and the timer sleeps on for what is missing.
func (x *run) heartbeat() {
	defer func() {
		if v := recover(); v != nil {
			x.scope.Cancel(&PanicError{Value: v, Stack: debug.Stack()})
		}
	}()
	if !x.mu.TryLock() { // a write is under way: the client is not waiting for a sign of life
		x.beat.Reset(min(x.relay.Heartbeat, lookAgain))
		return
	}
	defer x.mu.Unlock()
	if x.ended {
		return
	}
	if silent := Uptime() - x.last; silent < x.wait {
		x.beat.Reset(x.wait - silent)
		return
	}
	sent, err := x.dst.Heartbeat()
	if err != nil {
		x.scope.Cancel(err)
		return
	}
	if sent {
		x.progress.heartbeats.Add(1)
	}
	x.last = Uptime()
	x.wait = x.relay.Heartbeat
	x.beat.Reset(x.wait)
}

func (x *run) finish(end error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended = true
	if x.beat != nil {
		x.beat.Stop()
	}
	if err := x.dst.End(end); err != nil && end == nil {
		return err
	}
	return end
}

// endCause says why ctx ended; a bare cancellation is the client's.
func endCause(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) {
		return ErrClientGone
	}
	return cause
}
