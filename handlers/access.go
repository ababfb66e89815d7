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
	quit    chan struct{}
	done    chan struct{}
	once    sync.Once
	log     *slog.Logger
	flush   func()
	attrs   []slog.Attr // of the line that is being written
}

// accessLine is what is told of an answer. It holds nothing of the request's body.
type accessLine struct {
	id, op, key, remote, transport, model string
	stream                                bool
	report                                streaming.Report
	end                                   end
	err                                   error
	took                                  time.Duration
	reserved, money                       int64  // tokens; nano-dollars
	limit                                 string // that was over
}

// NewAccessLog starts the writer. queue bounds the lines waiting; flush, which may be
// nil, is called when the queue has run empty. Close ends it.
func NewAccessLog(log *slog.Logger, queue int, flush func()) *AccessLog {
	a := &AccessLog{lines: make(chan *accessLine, queue), quit: make(chan struct{}), done: make(chan struct{}), log: log, flush: flush}
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
	for {
		select {
		case l := <-a.lines:
			a.write(l)
			if len(a.lines) == 0 {
				a.flush()
			}
		case <-a.quit:
			for len(a.lines) > 0 {
				a.write(<-a.lines)
			}
			a.flush()
			return
		}
	}
}

// Close writes what is waiting. Lines of answers that end later are lost.
func (a *AccessLog) Close() {
	a.once.Do(func() { close(a.quit) })
	<-a.done
}

func (a *AccessLog) write(l *accessLine) {
	if l.op == "" {
		a.writeRefusal(l)
		return
	}
	r := &l.report
	attrs := append(a.attrs[:0],
		slog.String("request_id", l.id), slog.String("op", l.op), slog.String("key", l.key), slog.String("remote", l.remote),
		slog.String("transport", l.transport), slog.String("model", l.model), slog.String("target", r.Target), slog.Bool("stream", l.stream), slog.String("end", l.end.name), slog.Int("status", l.end.status),
		slog.Duration("took", l.took.Round(time.Microsecond)), slog.Duration("ttft", r.TTFT.Round(time.Microsecond)),
		slog.Int64("in", r.Usage.Prompt), slog.Int64("out", r.Usage.Completion), slog.Bool("estimated", r.Usage.Estimated),
		slog.Int64("attempts", r.Attempts))
	if r.Stop != "" {
		attrs = append(attrs, slog.String("finish", r.Stop))
	}
	if l.limit != "" {
		attrs = append(attrs, slog.String("limit", l.limit))
	}
	if l.money > 0 {
		attrs = append(attrs, slog.String("usd", dollars(l.money)))
	}
	for _, n := range []struct {
		name  string
		value int64
	}{{"reserved", l.reserved}, {"heartbeats", r.Heartbeats}, {"malformed", r.Malformed}, {"repaired", r.Repaired}} {
		if n.value > 0 {
			attrs = append(attrs, slog.Int64(n.name, n.value))
		}
	}
	if l.err != nil {
		attrs = append(attrs, slog.String("error", l.err.Error()))
	}
	a.tell("answer", attrs...)
	clear(attrs)
	a.attrs = attrs
}

// tell writes a line without looking up who calls, which slog.Logger does and nobody reads.
// The attributes go as one group without a name, which a record holds as it is.
func (a *AccessLog) tell(what string, attrs ...slog.Attr) {
	rec := slog.NewRecord(time.Now(), slog.LevelInfo, what, 0)
	rec.AddAttrs(slog.Attr{Value: slog.GroupValue(attrs...)})
	_ = a.log.Handler().Handle(context.Background(), rec)
}

// writeRefusal tells of a request that got no answer; its model stands for the route.
func (a *AccessLog) writeRefusal(l *accessLine) {
	a.tell("refused",
		slog.String("request_id", l.id), slog.String("route", l.model), slog.String("remote", l.remote),
		slog.String("end", l.end.name), slog.Int("status", l.end.status), slog.Any("error", l.err))
}
