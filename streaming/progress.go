package streaming

import (
	"sync/atomic"
	"time"
)

// maxCounted is how many choices are counted one by one; further ones share the last place.
const maxCounted = 8

// bytesPerToken is the divisor of the estimate for text nobody counted.
const bytesPerToken = 3.3

// Progress is what is known of an answer while it runs. The relay, the router and
// the adapter write it; settlement, metrics and views read it at any time, from any
// goroutine.
type Progress struct {
	start time.Time
	begun time.Duration // uptime of start

	first, last atomic.Int64 // nanoseconds after start; 0: not yet
	choices     [maxCounted]struct{ deltas, bytes atomic.Int64 }
	heartbeats  atomic.Int64
	malformed   atomic.Int64
	repaired    atomic.Int64
	attempts    atomic.Int64
	unstopped   atomic.Int64
	usage       atomic.Pointer[UsageData]
	atUsage     atomic.Int64 // counted when usage was told
	target      atomic.Pointer[string]
	stop        atomic.Pointer[string]

	place  atomic.Int64 // in the line for the model; 0: not waiting
	trying atomic.Int64 // nanoseconds after start at which the try that runs began; 0: none runs
	opened atomic.Bool  // its upstream has answered
	tries  atomic.Pointer[[]Try]
	run    atomic.Pointer[run]
	cause  atomic.Pointer[error] // why Cancel was called
}

// NewProgress starts the clock of an answer.
func NewProgress(start time.Time) *Progress {
	return &Progress{start: start, begun: start.Sub(born)}
}

// Count notes a batch that the upstream brought at the uptime now.
func (p *Progress) Count(batch []Event, now time.Duration) {
	at := max(int64(now-p.begun), 1)
	for i := range batch {
		p.countEvent(&batch[i], at)
	}
}

func (p *Progress) countEvent(ev *Event, at int64) {
	switch ev.Kind {
	case Text, Reasoning, ToolCall:
		c := &p.choices[min(max(ev.Index, 0), maxCounted-1)]
		c.deltas.Add(1)
		c.bytes.Add(int64(ev.contentSize()))
		p.noteContent(at)
	case Whole:
		p.choices[0].bytes.Add(int64(ev.Size))
		p.noteContent(at)
	case Bytes:
		p.noteContent(at)
	default:
	}
	if ev.Usage != nil {
		p.SetUsage(ev.Usage)
	}
	if ev.Stop != "" {
		p.SetStop(ev.Stop)
	}
}

func (p *Progress) noteContent(at int64) {
	if p.first.Load() == 0 {
		p.first.Store(at)
	}
	p.last.Store(at)
}

func (e *Event) contentSize() int {
	if e.Size > 0 {
		return e.Size
	}
	n := len(e.Text)
	if e.Tool != nil {
		n += len(e.Tool.Args) + len(e.Tool.Name)
	}
	return n
}

// SetUsage stores a cumulative count; a later one replaces it.
func (p *Progress) SetUsage(u *UsageData) {
	c := *u
	c.Raw = nil
	p.usage.Store(&c)
	p.atUsage.Store(p.counted())
}

// counted estimates the output tokens so far, per choice.
func (p *Progress) counted() (n int64) {
	for i := range p.choices {
		d, b := p.choices[i].deltas.Load(), p.choices[i].bytes.Load()
		n += max(d, int64(float64(b)/bytesPerToken))
	}
	return n
}

// SetStop notes a finish reason.
func (p *Progress) SetStop(reason string) { p.stop.Store(&reason) }

// SetTarget notes which target is being tried from now on.
func (p *Progress) SetTarget(name string) {
	p.opened.Store(false)
	p.target.Store(&name)
	p.trying.Store(p.now())
}

// SetOpened notes that the upstream of the try that runs has answered, if only with headers.
func (p *Progress) SetOpened() { p.opened.Store(true) }

// SetPlace notes the place in the line for the model; 0: the waiting is over.
func (p *Progress) SetPlace(n int) { p.place.Store(int64(n)) }

func (p *Progress) now() int64 { return max(int64(Uptime()-p.begun), 1) }

// AddAttempt counts one try and returns its number, from 1.
func (p *Progress) AddAttempt() int { return int(p.attempts.Add(1)) }

// AddMalformed counts an upstream payload that was skipped because it was broken.
func (p *Progress) AddMalformed() { p.malformed.Add(1) }

// AddRepaired counts an upstream payload that was mended.
func (p *Progress) AddRepaired() { p.repaired.Add(1) }

// AddUnstopped counts output tokens that an upstream may go on to make although the
// answer has been left: its protocol has no way to stop it.
func (p *Progress) AddUnstopped(n int64) { p.unstopped.Add(n) }

// Report is Progress at one moment.
type Report struct {
	Start               time.Time
	TTFT                time.Duration // to the first content; 0: none yet
	LastToken           time.Duration // from Start to the last content
	Since               int64         // output tokens estimated from what flowed after the last reported usage
	Heartbeats          int64
	Malformed, Repaired int64
	Attempts            int64
	Unstopped           int64 // output tokens that an upstream may still make
	Target              string
	Stop                string
	Usage               UsageData // as reported, else estimated from what flowed
	Reported            bool      // the upstream told its usage
	Place               int       // in the line for the model; 0: not waiting
	Opened              bool      // the upstream of the last try has answered
}

// Report reads everything at once; each value is exact, the set is not atomic.
func (p *Progress) Report() Report {
	counted := p.counted()
	r := Report{
		Start: p.start, TTFT: time.Duration(p.first.Load()), LastToken: time.Duration(p.last.Load()),
		Heartbeats: p.heartbeats.Load(), Malformed: p.malformed.Load(), Repaired: p.repaired.Load(),
		Attempts: p.attempts.Load(), Unstopped: p.unstopped.Load(), Target: load(&p.target), Stop: load(&p.stop),
		Place: int(p.place.Load()), Opened: p.opened.Load(),
	}
	if u := p.usage.Load(); u != nil {
		r.Usage, r.Reported, r.Since = *u, true, counted-p.atUsage.Load()
		return r
	}
	r.Usage = UsageData{Completion: counted, Total: counted, Estimated: true}
	return r
}

func load(p *atomic.Pointer[string]) string {
	if s := p.Load(); s != nil {
		return *s
	}
	return ""
}
