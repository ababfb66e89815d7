package handlers

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// wsLane is the line of answers with one stream_id: one runs, the others wait. Its
// fields are guarded by the session.
type wsLane struct {
	id      string
	out     *streaming.Lane
	framing streaming.Framing
	queue   []*providers.Request
	ctx     context.Context // of the answer that runs
	stop    context.CancelCauseFunc
	cancels int // that the client waits to see answered
}

// enqueue gives a request its place. The client is told the place.
func (x *session) enqueue(stream string, req *providers.Request) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed != nil {
		return x.closed
	}
	l := x.lanes[stream]
	if l == nil {
		if len(x.lanes) >= x.srv.opt.WebSocket.Lanes {
			return tooManyLanes(len(x.lanes))
		}
		l = &wsLane{id: stream, out: x.sock.Lane(), framing: streaming.LaneFraming(chunkBefore(stream), chunkAfter)}
		x.lanes[stream] = l
		x.promote(l, req)
		x.all.Go(func() { x.runLane(l, req) })
		return nil
	}
	if len(l.queue) >= x.srv.opt.WebSocket.Queued {
		return tooManyQueued(len(l.queue))
	}
	if x.waiting+int64(len(req.Body)) > x.limit {
		return tooMuchQueued(x.limit)
	}
	l.queue = append(l.queue, req)
	x.waiting += int64(len(req.Body))
	l.out.Post(acceptedMessage(l.id, req.ID, len(l.queue)))
	return nil
}

func tooManyLanes(n int) error {
	return &providers.Error{Kind: providers.RateLimited, Code: "websocket_stream_limit_reached", Param: "stream_id",
		Message: fmt.Sprintf("%d streams run on this connection already. Wait for one to end, or open another connection.", n)}
}

func tooManyQueued(n int) error {
	return &providers.Error{Kind: providers.RateLimited, Code: "websocket_queue_limit_reached", Param: "stream_id",
		Message: fmt.Sprintf("%d requests wait on this stream already. Wait for one to end, or use another stream_id.", n)}
}

func tooMuchQueued(limit int64) error {
	return &providers.Error{Kind: providers.RateLimited, Code: "websocket_queue_limit_reached", Param: "stream_id",
		Message: "The requests that wait on this connection would be larger than " + byteCount(limit) + " together. Wait for one to end, or use another stream_id."}
}

// promote makes a request the one that runs. mu is held.
func (x *session) promote(l *wsLane, req *providers.Request) {
	l.ctx, l.stop = context.WithCancelCause(x.ctx)
	l.out.Post(acceptedMessage(l.id, req.ID, 0))
}

// next ends the answer that ran and promotes the one that waited longest. A lane
// without one is over.
func (x *session) next(l *wsLane, end error) *providers.Request {
	x.mu.Lock()
	defer x.mu.Unlock()
	l.stop(nil)
	if errors.Is(end, errCancelled) && l.cancels > 0 {
		l.cancels-- // the end of the answer was the reply
	}
	for ; l.cancels > 0; l.cancels-- {
		l.out.Post(appendCancelled(nil, l.id, &streaming.UsageData{}))
	}
	if len(l.queue) == 0 {
		delete(x.lanes, l.id)
		x.closeIdle()
		return nil
	}
	req := l.queue[0]
	l.queue = l.queue[1:]
	x.waiting -= int64(len(req.Body))
	x.promote(l, req)
	for i, r := range l.queue {
		l.out.Post(acceptedMessage(l.id, r.ID, i+1))
	}
	return req
}

// cancel stops what runs on a lane and drops what waits. There is one reply for each
// cancel, with what the stopped answer cost.
func (x *session) cancel(stream string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.lanes[stream]
	if l == nil {
		x.sock.Lane().Post(appendCancelled(nil, stream, &streaming.UsageData{}))
		return
	}
	for _, req := range l.queue {
		x.waiting -= int64(len(req.Body))
		x.srv.opt.Observer.refuse(req.ID, x.remote, x.route, describe(errCancelled))
	}
	l.queue = nil
	l.cancels++
	l.stop(errCancelled)
}

func (x *session) runLane(l *wsLane, req *providers.Request) {
	for req != nil {
		req = x.next(l, x.serve(l, req))
	}
}

// serve walks the line of one answer, as a POST's handler does.
func (x *session) serve(l *wsLane, req *providers.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &streaming.PanicError{Value: v, Stack: debug.Stack()}
			l.out.Post(describe(err).appendErrorMessage(nil, l.id, req.ID))
		}
		x.srv.logPanic(req.ID, err)
	}()
	if err := context.Cause(l.ctx); err != nil {
		return x.turnAway(l, req, err)
	}
	if !x.srv.opt.Drain.Enter() {
		return x.turnAway(l, req, streaming.ErrDraining)
	}
	defer x.srv.opt.Drain.Leave()
	who, err := x.caller()
	if err != nil {
		return x.turnAway(l, req, err)
	}
	p := streaming.NewProgress(time.Now())
	c := &call{req: req, who: who, remote: x.remote, transport: "ws"}
	enc := &laneEncoder{Encoder: encoder(req, l.framing), stream: l.id, call: c, progress: p}
	defer func() { x.tellLimits(l, c.account) }()
	srv, leave := x.newest()
	defer leave()
	return srv.answer(l.ctx, c, l.out.Sink(enc), p)
}

// tellLimits tells the client what its limits leave, when an answer has ended.
func (x *session) tellLimits(l *wsLane, a *account) {
	if a == nil || x.ctx.Err() != nil {
		return
	}
	if levels := a.levelsNow(x.ctx); len(levels) > 0 {
		l.out.Post(appendLimits(nil, levels))
	}
}

// turnAway ends a request whose turn came too late: nothing was asked of an upstream.
func (x *session) turnAway(l *wsLane, req *providers.Request, why error) error {
	desc := describe(why)
	x.srv.opt.Observer.refuse(req.ID, x.remote, x.route, desc)
	if errors.Is(why, errCancelled) {
		l.out.Post(appendCancelled(nil, l.id, &streaming.UsageData{}))
	} else {
		l.out.Post(desc.appendErrorMessage(nil, l.id, req.ID))
	}
	return why
}

// laneEncoder ends an answer with a message of the protocol where the dialect has an
// end of its own.
type laneEncoder struct {
	streaming.Encoder
	stream   string
	call     *call
	progress *streaming.Progress
	finish   string // of the choice that finished first
}

// Append notes the finish reason on the way, and tells the place in the line for the model.
func (e *laneEncoder) Append(dst []byte, ev *streaming.Event) ([]byte, error) {
	if ev.Stop != "" && e.finish == "" {
		e.finish = ev.Stop
	}
	if ev.Meta != nil && ev.Meta.Queue != nil {
		dst = streaming.EndMessage(append(dst, acceptedMessage(e.stream, e.call.req.ID, ev.Meta.Queue.Position)...))
	}
	return e.Encoder.Append(dst, ev)
}

// AppendEnd tells the end: done, cancelled or the error.
func (e *laneEncoder) AppendEnd(dst []byte, err error) []byte {
	r := e.progress.Report()
	u := &e.call.account.bill.usage // settled by now
	switch {
	case err == nil:
		dst = e.Encoder.AppendEnd(dst, nil)
		dst = appendDone(dst, e.stream, e.finish, u, r.TTFT, time.Since(r.Start))
	case errors.Is(err, errCancelled):
		dst = appendCancelled(dst, e.stream, u)
	default:
		dst = describe(err).appendErrorMessage(dst, e.stream, e.call.req.ID)
	}
	return streaming.EndMessage(dst)
}
