package handlers

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/streaming"
)

// call is one request on its way through answer.
type call struct {
	req       *providers.Request
	who       auth.Principal
	remote    string
	transport string // http, sse or ws
	// header is of the answer's response, for what is told of limits; nil over WebSocket.
	header  http.Header
	account *account // once it is answered
}

// errPanicked is told of an answer whose handling panicked outside of the relay.
var errPanicked = errors.New("a panic before the answer")

// answer is the line that every request walks: what it may cost is reserved, tokens flow
// from the router to the sink, and what they were is settled and told, however the
// answer ends. A panic on the way ends the answer as an error of the relay. p has
// started with the request.
func (s *Server) answer(ctx context.Context, c *call, out streaming.Sink, p *streaming.Progress) error {
	a := s.open(c, p)
	c.account = a
	live := s.begin(c, a)
	err := errPanicked // until Run has returned
	defer func() { live.end(err) }()
	defer func() { a.settle(ctx, err) }()
	if err = s.standing(&c.who); err == nil {
		err = a.reserve(ctx)
		a.tell(c.header)
	}
	if err != nil {
		return out.End(err)
	}
	err = errPanicked
	relay := s.opt.Relay
	relay.Total = s.opt.Total(ctx, c.req.Asks())
	if !c.req.Stream {
		relay.Heartbeat = 0 // a whole body has no sign of life
	}
	err = relay.Run(ctx, func(ctx context.Context) streaming.Stream {
		return a.withUsage(a.inLine(ctx, c, s.line(c.req.Asks()), a.guarded(ctx, s.opt.Provider.Stream(ctx, c.req, p))))
	}, &till{out, ctx, a, c.header}, p)
	return err
}

// standing asks again whether the caller may call, once its answer is listed: who revokes a
// key ends what is listed, and refuses what is not.
func (s *Server) standing(who *auth.Principal) error {
	if s.opt.Standing == nil {
		return nil
	}
	return s.opt.Standing(who)
}

// withUsage adds an estimate at the true end of an answer whose upstream told no usage:
// of a stream whose caller asked for it, and of a body that is put together here. One that
// came complete stays as it is.
func (a *account) withUsage(src streaming.Stream) streaming.Stream {
	built := !a.req.Stream && (a.req.Op == providers.Chat || a.req.Op == providers.Completions)
	if !built && (!a.req.Stream || !a.req.WantsUsage) {
		return src
	}
	return func(yield func([]streaming.Event, error) bool) {
		complete := false
		for batch, err := range src {
			complete = complete || built && slices.ContainsFunc(batch, isComplete)
			if !yield(batch, err) || err != nil {
				return
			}
		}
		if !complete {
			a.yieldEstimate(yield)
		}
	}
}

func isComplete(ev streaming.Event) bool {
	return ev.Kind == streaming.Whole || ev.Kind == streaming.Bytes
}

func (a *account) yieldEstimate(yield func([]streaming.Event, error) bool) {
	if r := a.p.Report(); !r.Reported {
		u := a.estimated(&r)
		yield([]streaming.Event{{Kind: streaming.Usage, Usage: &u}}, nil)
	}
}
