package handlers

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sluice/streaming"
)

// AccessLog writes one line per answer, beside the answers: a full queue drops
// lines and counts them, and never slows a stream.
type AccessLog struct {
	lines   chan *accessLine
	dropped atomic.Int64
	done    chan struct{}
	once    sync.Once
	log     *slog.Logger
	flush   func()
}

type accessLine struct {
	call   call
	report streaming.Report
	end    end
	err    error
	took   time.Duration
}

// NewAccessLog starts the writer. queue bounds the lines waiting; flush, which may be
// nil, is called when the queue has run empty. Close ends it.
func NewAccessLog(log *slog.Logger, queue int, flush func()) *AccessLog {
	a := &AccessLog{lines: make(chan *accessLine, queue), done: make(chan struct{}), log: log, flush: flush}
	if a.flush == nil {
		a.flush = func() {}
	}
	go a.run()
	return a
}

// Dropped counts the lines that were not written.
func (a *AccessLog) Dropped() float64 { return float64(a.dropped.Load()) }

func (a *AccessLog) add(l *accessLine) {
	select {
	case a.lines <- l:
	default:
		a.dropped.Add(1)
	}
}

func (a *AccessLog) run() {
	defer close(a.done)
	for l := range a.lines {
		a.write(l)
		if len(a.lines) == 0 {
			a.flush()
		}
	}
	a.flush()
}

// Close writes what is waiting. No answer may end after it.
func (a *AccessLog) Close() {
	a.once.Do(func() { close(a.lines) })
	<-a.done
}

func (a *AccessLog) write(l *accessLine) {
	r := &l.report
	attrs := make([]slog.Attr, 0, 24)
	attrs = append(attrs,
		slog.String("request_id", l.call.req.ID), slog.String("op", l.call.req.Op.String()),
		slog.String("key", l.call.who.Key), slog.String("remote", l.call.remote),
		slog.String("model", l.call.req.Model), slog.String("target", r.Target),
		slog.Bool("stream", l.call.req.Stream), slog.String("end", l.end.name), slog.Int("status", l.end.status),
		slog.Duration("took", l.took.Round(time.Microsecond)), slog.Duration("ttft", r.TTFT.Round(time.Microsecond)),
		slog.Int64("in", r.Usage.Prompt), slog.Int64("out", r.Usage.Completion), slog.Bool("estimated", r.Usage.Estimated),
		slog.Int64("attempts", r.Attempts))
	if r.Stop != "" {
		attrs = append(attrs, slog.String("finish", r.Stop))
	}
	for _, n := range []struct {
		name  string
		value int64
	}{{"heartbeats", r.Heartbeats}, {"malformed", r.Malformed}, {"repaired", r.Repaired}} {
		if n.value > 0 {
			attrs = append(attrs, slog.Int64(n.name, n.value))
		}
	}
	if l.err != nil {
		attrs = append(attrs, slog.String("error", l.err.Error()))
	}
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "answer", attrs...)
}
