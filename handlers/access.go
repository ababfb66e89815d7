package handlers

import (
	"io"
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
	out     io.Writer
	line    lineWriter // of the line that is being written
	flush   func()
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

// NewAccessLog starts the writer of lines to out, as JSON or as text. queue bounds the lines
// waiting; flush, which may be nil, is called when the queue has run empty. Close ends it.
func NewAccessLog(out io.Writer, json bool, queue int, flush func()) *AccessLog {
	a := &AccessLog{lines: make(chan *accessLine, queue), quit: make(chan struct{}), done: make(chan struct{}), out: out, line: lineWriter{json: json}, flush: flush}
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
	w := &a.line
	if l.op == "" {
		l.refusal(w)
	} else {
		l.answer(w)
	}
	_, _ = a.out.Write(w.finish())
}

func (l *accessLine) answer(w *lineWriter) {
	r := &l.report
	w.begin(time.Now(), "answer")
	w.str("request_id", l.id)
	w.str("op", l.op)
	w.str("key", l.key)
	w.str("remote", l.remote)
	w.str("transport", l.transport)
	w.str("model", l.model)
	w.str("target", r.Target)
	w.flag("stream", l.stream)
	w.str("end", l.end.name)
	w.num("status", int64(l.end.status))
	w.span("took", l.took)
	w.span("ttft", r.TTFT)
	w.num("in", r.Usage.Prompt)
	w.num("out", r.Usage.Completion)
	w.flag("estimated", r.Usage.Estimated)
	w.num("attempts", r.Attempts)
	for _, s := range [...]struct{ name, value string }{{"finish", r.Stop}, {"limit", l.limit}} {
		if s.value != "" {
			w.str(s.name, s.value)
		}
	}
	if l.money > 0 {
		w.str("usd", dollars(l.money))
	}
	for _, n := range [...]struct {
		name  string
		value int64
	}{{"reserved", l.reserved}, {"heartbeats", r.Heartbeats}, {"malformed", r.Malformed}, {"repaired", r.Repaired}} {
		if n.value > 0 {
			w.num(n.name, n.value)
		}
	}
	if l.err != nil {
		w.str("error", l.err.Error())
	}
}

// refusal tells of a request that got no answer; its model stands for the route.
func (l *accessLine) refusal(w *lineWriter) {
	w.begin(time.Now(), "refused")
	w.str("request_id", l.id)
	w.str("route", l.model)
	w.str("remote", l.remote)
	w.str("end", l.end.name)
	w.num("status", int64(l.end.status))
	w.str("error", l.err.Error())
}
