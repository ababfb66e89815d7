package handlers

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/ratelimit/fair"
	"sluice/streaming"
)

// Headers that tell of waiting: the place in the line on arrival, and how long it took.
const (
	headerQueuePosition = "X-Sluice-Queue-Position"
	headerQueueWait     = "X-Sluice-Queue-Wait-Ms"
)

// line is where answers of a model wait for a place, nil when it has places for all.
func (s *Server) line(model string) *fair.Queue {
	if s.opt.Line == nil {
		return nil
	}
	return s.opt.Line(model)
}

// inLine lets the stream begin once the model has a place for it. Until then the client
// gets its heartbeats, and a Meta event tells its position whenever that has changed. What
// the answer has cost in tokens decides who of the waiting tenants is served next.
func (a *account) inLine(ctx context.Context, c *call, q *fair.Queue, src streaming.Stream) streaming.Stream {
	if q == nil {
		return src
	}
	return func(yield func([]streaming.Event, error) bool) {
		w := &lineWait{yield: yield, since: time.Now(), p: a.p}
		place, err := q.Wait(ctx, tenantOf(&c.who), a.tokenEstimate(c), w.tell)
		a.p.SetPlace(0)
		if err != nil {
			if !errors.Is(err, fair.ErrStopped) {
				yield(nil, notServed(err))
			}
			return
		}
		defer func() {
			r := a.p.Report()
			u := a.flowed(&r, errUnfinished)
			place.Leave(u.Prompt + u.Completion)
		}()
		if w.told && !w.served() {
			return
		}
		for batch, err := range src {
			if !yield(batch, err) || err != nil {
				return
			}
		}
	}
}

// tenantOf is who shares fairly with others: an organisation, or a key without one.
func tenantOf(who *auth.Principal) string {
	if who.Org != "" {
		return "org " + who.Org
	}
	return "key " + who.Key
}

// tokenEstimate is what the answer may take of its model.
func (a *account) tokenEstimate(c *call) int64 {
	n := a.promptTokens()
	if a.quota != nil && a.quota.Tokens != nil {
		most, _ := a.quota.Tokens.Output(c.req, c.who.Key)
		return n + most
	}
	return n + c.req.MaxTokens()
}

// lineWait tells a client of its waiting.
type lineWait struct {
	yield func([]streaming.Event, error) bool
	p     *streaming.Progress
	since time.Time
	told  bool
}

func (w *lineWait) tell(position int) bool {
	w.p.SetPlace(position)
	m := &streaming.MetaData{Queue: &streaming.QueueData{Position: position, Waited: time.Since(w.since)}}
	if !w.told {
		w.told = true
		m.Header = http.Header{headerQueuePosition: {strconv.Itoa(position)}}
	}
	return w.yield([]streaming.Event{{Kind: streaming.Meta, Meta: m}}, nil)
}

// served tells that the waiting is over.
func (w *lineWait) served() bool {
	took := time.Since(w.since)
	m := &streaming.MetaData{Queue: &streaming.QueueData{Waited: took}, Header: http.Header{headerQueueWait: {strconv.FormatInt(took.Milliseconds(), 10)}}}
	return w.yield([]streaming.Event{{Kind: streaming.Meta, Meta: m}}, nil)
}

// lineRetry is what a client is told to wait when the line is full.
const lineRetry = time.Second

// notServed is why an answer got no place.
func notServed(err error) error {
	e := &providers.Error{Kind: providers.RateLimited, RetryAfter: lineRetry, Err: err}
	switch {
	case errors.Is(err, fair.ErrFull):
		e.Code, e.Message = "queue_full", "As many answers of this model as may run at the same time are running, and as many as may wait are waiting. Try again soon."
	case errors.Is(err, fair.ErrLate):
		e.Code, e.Message = "queue_timeout", "None of the answers of this model that may run at the same time has ended in time. Try again soon."
	default:
		return err
	}
	return e
}
