package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"sluice/handlers"
	"sluice/ratelimit/ledger"
)

const (
	// runningFile says below data.dir what running answers have cost, where Redis does not know it.
	runningFile = "running"
	recoverTime = 10 * time.Second
)

// recoverRunning books the answers that ran when the last process was killed, before budgets
// are made from what is booked.
func (q *quota) recoverRunning(book *ledger.Bolt, dir string, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), recoverTime)
	defer cancel()
	running, lost, err := book.OpenRunning(ctx, filepath.Join(dir, runningFile))
	if err != nil {
		log.Error("answers that ran when the gateway was killed could not be written to the usage records", slog.Any("error", err))
	}
	if len(lost) > 0 {
		var money int64
		for i := range lost {
			money += lost[i].Money
		}
		log.Warn("the gateway was killed while answers ran; what they had cost is in the usage records", slog.Int("answers", len(lost)), slog.String("usd", Dollars(money).String()))
	}
	q.running = running
}

// keepRunning writes down what running answers have cost, until Close.
func (q *quota) keepRunning(live *handlers.Live, log *slog.Logger) {
	if q.running != nil {
		q.run(func(ctx context.Context) { live.KeepRunning(ctx, q.running, log) })
	}
}
