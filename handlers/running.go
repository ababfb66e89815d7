package handlers

import (
	"context"
	"iter"
	"log/slog"
	"slices"
	"time"

	"sluice/ratelimit/ledger"
)

// RunningBook is where it is kept what the answers that run have cost so far, for the next
// process if this one is killed.
type RunningBook interface {
	// Keep replaces what was kept before by rows, of which each is valid for one step. It is
	// called by one goroutine.
	Keep(ctx context.Context, rows iter.Seq[*ledger.Row]) error
}

const (
	keepEvery = time.Second
	keepLimit = 10 * time.Second // for one call of Keep
)

// endLost is the end of answers whose gateway has died.
const endLost = "lost"

// KeepRunning tells book every second, and when ctx ends, what the answers that run have cost.
// Of more than ledger.MaxRunning the oldest are told. It returns after the last time.
func (l *Live) KeepRunning(ctx context.Context, book RunningBook, log *slog.Logger) {
	k := keeper{live: l, book: book, log: log}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for ending := false; !ending; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ending = true
		}
		k.keep(context.WithoutCancel(ctx))
	}
}

// keeper says only once that something goes wrong.
type keeper struct {
	live         *Live
	book         RunningBook
	log          *slog.Logger
	failed, many bool
}

func (k *keeper) keep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, keepLimit)
	defer cancel()
	answers, left := k.live.oldest(ledger.MaxRunning)
	if many := left > 0; many != k.many {
		if k.many = many; many {
			k.log.Warn("so many answers run that the youngest leave no record if the process is killed", slog.Int("running", len(answers)+left), slog.Int("kept", len(answers)))
		}
	}
	err := k.book.Keep(ctx, costs(answers))
	if failed := err != nil; failed != k.failed {
		if k.failed = failed; failed {
			k.log.Error("what running answers have cost cannot be written down; if the process is killed, that is lost", slog.Any("error", err))
		} else {
			k.log.Info("what running answers have cost is written down again")
		}
	}
}

// oldest lists the answers that have been sent to a target, and counts those beyond most.
func (l *Live) oldest(most int) (answers []*live, left int) {
	if l.Running() == 0 {
		return nil, 0
	}
	answers = slices.DeleteFunc(l.all(), func(e *live) bool { return e.account.quota == nil || e.account.p.Report().Target == "" })
	if len(answers) <= most {
		return answers, 0
	}
	slices.SortFunc(answers, func(a, b *live) int { return a.account.p.Report().Start.Compare(b.account.p.Report().Start) })
	return answers[:most], len(answers) - most
}

func costs(answers []*live) iter.Seq[*ledger.Row] {
	return func(yield func(*ledger.Row) bool) {
		var row ledger.Row
		for _, e := range answers {
			if row = e.lostRow(); !yield(&row) {
				return
			}
		}
	}
}

// lostRow is the row of an answer whose gateway dies now. It reads nothing that is written
// without a lock while the answer runs.
func (e *live) lostRow() ledger.Row {
	c, a := e.call, e.account
	r := a.p.Report()
	u := a.flowed(&r, errUnfinished)
	row := ledger.Row{
		ID: c.req.ID, Start: r.Start, TTFT: r.TTFT, Total: time.Since(r.Start), Org: c.who.Org, Team: c.who.Team, User: c.who.User, Key: c.who.Key,
		Op: c.req.Op.String(), Transport: c.transport, Model: a.model, Target: r.Target,
		Input: u.Prompt, Cached: u.Cached, Output: u.Completion, Reasoning: u.Reasoning, Estimated: true,
		Money: a.priceAt(r.Target).Cost(u.Prompt, u.Cached, u.Completion), Reserved: a.held.Load(), Attempts: r.Attempts, End: endLost,
	}
	if r.TTFT > 0 {
		row.Requests = 1
	}
	return row
}
