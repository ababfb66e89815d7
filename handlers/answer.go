package handlers

import (
	"context"
	"errors"

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
}

// errPanicked is told of an answer whose handling panicked outside of the relay.
var errPanicked = errors.New("a panic before the answer")

// answer is the line that every request walks: tokens flow from the router to the
// sink, and what they were is settled and told, however the answer ends. A panic
// on the way ends the answer as an error of the relay. p has started with the request.
func (s *Server) answer(ctx context.Context, c *call, out streaming.Sink, p *streaming.Progress) error {
	live := s.opt.Observer.begin(c)
	err := errPanicked // until Run has returned
	defer func() { live.end(p, err) }()
	relay := s.opt.Relay
	relay.Total = s.opt.Total(ctx, c.req.Model)
	if !c.req.Stream {
		relay.Heartbeat = 0 // a whole body has no sign of life
	}
	err = relay.Run(ctx, func(ctx context.Context) streaming.Stream {
		return withUsage(s.opt.Provider.Stream(ctx, c.req, p), c.req, p)
	}, out, p)
	return err
}

// withUsage adds an estimate at the true end of a stream whose caller asked for
// usage and whose upstream told none.
func withUsage(src streaming.Stream, req *providers.Request, p *streaming.Progress) streaming.Stream {
	if !req.WantsUsage || !req.Stream {
		return src
	}
	return func(yield func([]streaming.Event, error) bool) {
		for batch, err := range src {
			if !yield(batch, err) {
				return
			}
			if err != nil {
				return
			}
		}
		yieldEstimate(req, p, yield)
	}
}

func yieldEstimate(req *providers.Request, p *streaming.Progress, yield func([]streaming.Event, error) bool) {
	if r := p.Report(); !r.Reported {
		u := estimate(req, &r)
		yield([]streaming.Event{{Kind: streaming.Usage, Usage: &u}}, nil)
	}
}

// estimate is what an answer cost when the upstream did not say. An answer of which
// nothing came costs nothing.
func estimate(req *providers.Request, r *streaming.Report) streaming.UsageData {
	u := r.Usage
	if !r.Reported && r.TTFT > 0 {
		u.Prompt = req.PromptEstimate()
		u.Total = u.Prompt + u.Completion
		u.Estimated = true
	}
	return u
}

// settled is what an answer that ended with err cost. A count that the upstream told
// in the middle of an answer that was then cut is older than what flowed.
func settled(req *providers.Request, r *streaming.Report, err error) streaming.UsageData {
	u := estimate(req, r)
	if err != nil && r.Since > 0 {
		u.Completion, u.Total, u.Estimated = u.Completion+r.Since, u.Total+r.Since, true
	}
	return u
}
