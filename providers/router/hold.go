package router

import (
	"context"
	"fmt"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// hold keeps what comes before the first content back, so that a failure in
// between can still be mended by another try.
type hold struct {
	*try
	yield     func([]streaming.Event, error) bool
	events    []streaming.Event
	bytes     int
	committed bool // the reader has seen something
	content   bool // some of it was content
}

func (h *hold) run(ctx context.Context, firstToken time.Duration) error {
	a := newAttempt(ctx, h.target, h.req, firstToken)
	defer a.close()
	h.introduce()
	for batch, err := range a.stream(h.req, h.progress) {
		if err != nil {
			return h.named(err)
		}
		h.present(batch)
		content := hasContent(batch)
		var from time.Duration
		if !content { // the clock of the next token goes on after it
			from = streaming.Uptime()
		} else if !h.content {
			h.first()
		}
		a.lend()
		if !h.pass(batch, content) {
			return errStopped
		}
		a.saw(content, from)
	}
	if !h.committed && !h.flush(nil) {
		return errStopped
	}
	return nil
}

// introduce begins what the client gets with the name of the target. It stays out of
// run's frame, which every waiting stream keeps on its stack.
//
//go:noinline
func (h *hold) introduce() {
	h.events = append(h.events, streaming.Event{Kind: streaming.Meta, Meta: &streaming.MetaData{Header: h.target.header()}})
}

// first notes that the target serves the request.
//
//go:noinline
func (h *hold) first() {
	h.content = true
	now := uptime()
	h.state.first(&h.opt.Breaker, h.probe, !atOnce(h.req), now-h.sent, now)
}

// present gives the answer the pool's name of the model; adapters that pass bytes
// on do the same in them.
func (h *hold) present(batch []streaming.Event) {
	if h.req.PresentAs == "" {
		return
	}
	for i := range batch {
		if m := batch[i].Meta; m != nil && m.Model != "" {
			m.Model = h.req.PresentAs
		}
	}
}

// named tells in which target an error happened.
//
//go:noinline
func (h *hold) named(err error) error {
	if e := providers.AsError(err); e != nil {
		e.Target = h.target.Name
		return err
	}
	return fmt.Errorf("%s: %w", h.target.Name, err)
}

func hasContent(batch []streaming.Event) bool {
	for i := range batch {
		if batch[i].Kind.Commits() {
			return true
		}
	}
	return false
}

// pass yields a batch, or keeps it while there is no content in it.
func (h *hold) pass(batch []streaming.Event, content bool) bool {
	if h.committed {
		return len(batch) == 0 || h.yield(batch, nil)
	}
	if content {
		return h.flush(batch)
	}
	h.keep(batch)
	if len(h.events) > h.opt.HoldEvents || h.bytes > h.opt.HoldBytes {
		return h.flush(nil)
	}
	return true
}

func (h *hold) keep(batch []streaming.Event) {
	h.chase.progress.SetOpened()
	for i := range batch {
		h.bytes += len(batch[i].Raw)
		h.events = append(h.events, batch[i].Clone())
	}
}

func (h *hold) flush(batch []streaming.Event) bool {
	h.committed = true
	held := append(h.events, batch...)
	h.events = nil
	return h.yield(held, nil)
}
