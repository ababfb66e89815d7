package handlers

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/handlers/auth"
	"sluice/streaming"
)

// Live knows which answers run in this process. It outlives a reload of the configuration.
// All methods may be called concurrently.
//
// An answer is listed by the value that observes it anyway, so that listing it allocates
// nothing, and nothing is written while it runs: what is told of it is read from its
// Progress when somebody asks.
type Live struct {
	started atomic.Uint64 // numbers the answers
	shards  [liveShards]liveShard

	mu       sync.Mutex
	sessions map[*session]struct{}
}

// liveShards keep answers that begin and end at the same time out of each other's way.
const liveShards = 16

// liveShard is a ring of answers; the head stands for none.
type liveShard struct {
	mu   sync.Mutex
	head live
	n    int
}

// NewLive returns an empty list.
func NewLive() *Live {
	l := &Live{sessions: map[*session]struct{}{}}
	for i := range l.shards {
		head := &l.shards[i].head
		head.next, head.prev = head, head
	}
	return l
}

// live is one answer under way. Its links belong to its shard; the rest is set before it is
// listed, and read only.
type live struct {
	observer *Observer
	call     *call
	account  *account
	active   interface {
		Inc()
		Dec()
	} // counts answers by their transport

	in         *liveShard
	next, prev *live
}

// begin lists an answer, until its end is called.
func (s *Server) begin(c *call, a *account) *live {
	o := s.opt.Observer
	e := &live{observer: o, call: c, account: a, active: o.active.of(c.transport, "", "")}
	e.active.Inc()
	s.opt.Live.add(e)
	return e
}

func (l *Live) add(e *live) {
	in := &l.shards[l.started.Add(1)%liveShards]
	e.in = in
	in.mu.Lock()
	e.next, e.prev = &in.head, in.head.prev
	e.prev.next, in.head.prev = e, e
	in.n++
	in.mu.Unlock()
}

func (e *live) unlist() {
	e.in.mu.Lock()
	e.prev.next, e.next.prev = e.next, e.prev
	e.in.n--
	e.in.mu.Unlock()
}

// all lists the answers that run, without holding a lock while they are looked at.
func (l *Live) all() []*live {
	out := make([]*live, 0, l.Running())
	for i := range l.shards {
		in := &l.shards[i]
		in.mu.Lock()
		for e := in.head.next; e != &in.head; e = e.next {
			out = append(out, e)
		}
		in.mu.Unlock()
	}
	return out
}

// Running counts the answers.
func (l *Live) Running() (n int) {
	for i := range l.shards {
		in := &l.shards[i]
		in.mu.Lock()
		n += in.n
		in.mu.Unlock()
	}
	return n
}

// LiveState is what an answer is waiting for.
type LiveState string

// The states, in the order in which an answer comes through them.
const (
	LiveStarting   LiveState = "starting"    // its limits are asked, or its pool looked for
	LiveQueued     LiveState = "queued"      // in the line for its model
	LiveConnecting LiveState = "connecting"  // the target has not answered yet
	LiveFirstToken LiveState = "first_token" // the target has answered, but with no content yet
	LiveStreaming  LiveState = "streaming"
	LiveStalled    LiveState = "stalled" // no content has come for stalledAfter
	LiveBlocked    LiveState = "blocked" // the client has not taken what was written for blockedAfter
	LiveEnding     LiveState = "ending"  // it was cancelled from outside
)

const (
	stalledAfter = 5 * time.Second
	blockedAfter = time.Second
)

// LiveAnswer is what is known of an answer that runs, at one moment.
type LiveAnswer struct {
	ID, Op, Model, Target, Transport, Remote string
	Key                                      string // in buckets and books: of an issued key its id
	KeyName                                  string // what people call an issued key
	Org, Team, User                          string
	Stream                                   bool
	State                                    LiveState
	Start                                    time.Time
	TTFT                                     time.Duration // to the first content; 0: none yet
	LastToken                                time.Duration // from Start to the last content
	Blocked                                  time.Duration // that the client has been taking the last write
	Place                                    int           // in the line for the model; 0: it does not wait
	Attempts                                 int64
	Heartbeats                               int64
	Usage                                    streaming.UsageData // so far
	Reserved                                 int64               // tokens
	Money                                    int64               // nano-dollars so far
}

func (e *live) answer(now time.Time) LiveAnswer {
	c, a := e.call, e.account
	r := a.p.Report()
	u := a.soFar(&r)
	out := LiveAnswer{
		ID: c.req.ID, Op: c.req.Op.String(), Model: c.req.Model, Target: r.Target, Transport: c.transport, Remote: c.remote,
		Key: c.who.Key, KeyName: c.who.Name, Org: c.who.Org, Team: c.who.Team, User: c.who.User, Stream: c.req.Stream,
		Start: r.Start, TTFT: r.TTFT, LastToken: r.LastToken, Blocked: a.p.Blocked(), Place: r.Place,
		Attempts: r.Attempts, Heartbeats: r.Heartbeats, Usage: u, Reserved: a.held.Load(), Money: a.priceAt(r.Target).Cost(u.Prompt, u.Cached, u.Completion),
	}
	out.State = stateOf(&out, &r, a.p.Cancelled() != nil, now)
	return out
}

func stateOf(l *LiveAnswer, r *streaming.Report, cancelled bool, now time.Time) LiveState {
	switch {
	case cancelled:
		return LiveEnding
	case l.Blocked >= blockedAfter:
		return LiveBlocked
	case l.TTFT > 0 && now.Sub(l.Start)-l.LastToken >= stalledAfter:
		return LiveStalled
	case l.TTFT > 0:
		return LiveStreaming
	case l.Place > 0:
		return LiveQueued
	case r.Opened:
		return LiveFirstToken
	case l.Target != "":
		return LiveConnecting
	default:
		return LiveStarting
	}
}

// Snapshot lists the answers that keep accepts, oldest first; nil accepts all. keep sees
// each for as long as it is called.
func (l *Live) Snapshot(keep func(*LiveAnswer) bool) []LiveAnswer {
	now := time.Now()
	var out []LiveAnswer
	var a LiveAnswer
	for _, e := range l.all() {
		if a = e.answer(now); keep == nil || keep(&a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b LiveAnswer) int { return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.ID, b.ID)) })
	return out
}

// Find is one answer by its id, with its attempts.
func (l *Live) Find(id string) (LiveAnswer, []FinishedTry, bool) {
	e := l.find(id)
	if e == nil {
		return LiveAnswer{}, nil, false
	}
	tries := appendTries(nil, e.account.p.Tries(nil), nil)
	if n := len(tries); n > 0 && tries[n-1].Outcome == endOK.name {
		tries[n-1].Outcome = "" // it runs
	}
	return e.answer(time.Now()), tries, true
}

func (l *Live) find(id string) *live {
	for i := range l.shards {
		in := &l.shards[i]
		in.mu.Lock()
		for e := in.head.next; e != &in.head; e = e.next {
			if e.call.req.ID == id {
				in.mu.Unlock()
				return e
			}
		}
		in.mu.Unlock()
	}
	return nil
}

// Kill ends an answer with cause, an error of the table such as ErrKilled. It does not wait
// for the end, and returns false when no such answer runs.
func (l *Live) Kill(id string, cause error) bool {
	e := l.find(id)
	if e == nil {
		return false
	}
	e.account.p.Cancel(cause)
	return true
}

// EndKeys ends every answer and every WebSocket connection whose caller matches, with cause,
// such as ErrKeyRevoked; it counts the answers. What begins meanwhile may be missed: who
// revokes makes that Options.Standing refuses the caller first.
func (l *Live) EndKeys(match func(who *auth.Principal) bool, cause error) (ended int) {
	for _, e := range l.all() {
		if match(&e.call.who) {
			e.account.p.Cancel(cause)
			ended++
		}
	}
	for _, x := range l.connected() {
		if match(&x.who) {
			x.end(cause)
		}
	}
	return ended
}

func (l *Live) connected() []*session {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*session, 0, len(l.sessions))
	for x := range l.sessions {
		out = append(out, x)
	}
	return out
}

// join lists a WebSocket connection; the function takes it out.
func (l *Live) join(x *session) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions[x] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.sessions, x)
	}
}
