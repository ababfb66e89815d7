package wall

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// End says how an answer ended.
type End string

const (
	Running    End = ""            // it has not
	Complete   End = "complete"    // everything that the script means was written
	Cut        End = "cut"         // clean end of the body by script
	Abort      End = "abort"       // connection closed by script
	Reset      End = "reset"       // TCP reset by script
	Failed     End = "error"       // error event inside the stream by script
	Refused    End = "status"      // error status or error body by script
	Invalid    End = "invalid"     // the request or its script was bad: 400, 401, 404 or 413
	ClientGone End = "client_gone" // the client left first
)

// Request is what is known of one call. Headers and body must not be changed.
type Request struct {
	ID       int64       `json:"id"` // from 1, in order of arrival
	Method   string      `json:"method"`
	Path     string      `json:"path"`
	Model    string      `json:"model,omitzero"`
	Key      string      `json:"key,omitzero"`      // under which calls are counted
	Attempt  int         `json:"attempt"`           // calls with this key before
	Stream   bool        `json:"stream"`            //
	Header   http.Header `json:"header"`            // as received
	Body     string      `json:"body,omitzero"`     // its first bytes
	BodySize int         `json:"body_size"`         // bytes received
	Remote   string      `json:"remote"`            // the client's address, equal for calls on one connection
	Status   int         `json:"status,omitzero"`   // 0 when no headers were sent
	Tokens   int         `json:"tokens"`            // deltas handed to the connection, all choices together
	Bytes    int64       `json:"bytes"`             // of the body, written
	Prompt   int         `json:"prompt_tokens"`     // as usage has it
	Output   int         `json:"completion_tokens"` // that a complete answer has
	End      End         `json:"end"`
	Error    string      `json:"error,omitzero"` // why the end is not Complete, for people

	Started     time.Time     `json:"started"`               // headers received
	Read        time.Time     `json:"read,omitzero"`         // body received
	HeadersSent time.Time     `json:"headers_sent,omitzero"` //
	FirstByte   time.Time     `json:"first_byte,omitzero"`   // of the body, out
	Gone        time.Time     `json:"gone,omitzero"`         // when the client's leaving was noticed
	Ended       time.Time     `json:"ended,omitzero"`        //
	Blocked     time.Duration `json:"blocked"`               // the longest single write, ns: a slow reader shows here
}

// Stats are totals since the start or the last Reset; Active and Conns are present values.
type Stats struct {
	Active int         `json:"active"`
	Total  int64       `json:"total"`
	Tokens int64       `json:"tokens"`
	Conns  int         `json:"connections_open"` // only where the server's ConnState is the wall's
	Dialed int64       `json:"connections_total"`
	ByEnd  map[End]int `json:"by_end"`
}

// record is a Request under construction. Fields of req belong to the wall's mutex; the counters are written by the
// handler alone and read by anyone.
type record struct {
	wall    *Wall
	ctx     context.Context // of the call: done when the client goes
	req     Request
	tokens  atomic.Int64
	bytes   atomic.Int64
	blocked atomic.Int64
}

// open begins the record of a call.
func (w *Wall) open(r *http.Request) *record {
	rec := &record{wall: w, ctx: r.Context(), req: Request{
		Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone(), Remote: r.RemoteAddr, Started: time.Now(),
	}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total++
	w.active++
	rec.req.ID = w.nextID
	w.nextID++
	if len(w.ring) == w.keep {
		w.ring = append(w.ring[:0], w.ring[1:]...)
	}
	w.ring = append(w.ring, rec)
	w.broadcastLocked()
	return rec
}

// update changes the record and wakes whoever awaits it.
func (rec *record) update(change func(*Request)) {
	w := rec.wall
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&rec.req)
	w.broadcastLocked()
}

// close ends the record; the first end counts.
func (rec *record) close(end End, err error) {
	w := rec.wall
	w.mu.Lock()
	defer w.mu.Unlock()
	if rec.req.End != Running {
		return
	}
	rec.req.End, rec.req.Ended = end, time.Now()
	if rec.ctx.Err() != nil && rec.req.Gone.IsZero() {
		// The handler noticed before the watch did.
		rec.req.Gone = rec.req.Ended
	}
	if err != nil {
		rec.req.Error = err.Error()
	}
	w.active--
	w.byEnd[end]++
	w.tokens += rec.tokens.Load()
	w.broadcastLocked()
}

// gone notes that the client has left.
func (rec *record) gone() {
	rec.update(func(q *Request) {
		if q.End == Running && q.Gone.IsZero() {
			q.Gone = time.Now()
		}
	})
}

// wrote counts a write of n bytes that took d.
func (rec *record) wrote(n int, d time.Duration) {
	if rec.bytes.Add(int64(n)) == int64(n) && n > 0 {
		rec.update(func(q *Request) { q.FirstByte = time.Now() })
	}
	if int64(d) > rec.blocked.Load() {
		rec.blocked.Store(int64(d))
	}
	rec.wall.stir()
}

func (rec *record) snapshotLocked() Request {
	q := rec.req
	q.Tokens, q.Bytes, q.Blocked = int(rec.tokens.Load()), rec.bytes.Load(), time.Duration(rec.blocked.Load())
	return q
}

func (w *Wall) broadcastLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// stir wakes waiting callers after a token: at most once per millisecond, so that awaiting stays cheap under load.
func (w *Wall) stir() {
	if w.waiters.Load() == 0 || !w.stirring.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(time.Millisecond, func() {
		w.stirring.Store(false)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.broadcastLocked()
	})
}

// Requests returns the kept calls, newest last.
func (w *Wall) Requests() []Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]Request, len(w.ring))
	for i, rec := range w.ring {
		out[i] = rec.snapshotLocked()
	}
	return out
}

// Active returns the number of calls that have not ended.
func (w *Wall) Active() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active
}

// Stats returns the totals.
func (w *Wall) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.statsLocked()
}

func (w *Wall) statsLocked() Stats {
	s := Stats{Active: w.active, Total: w.total, Tokens: w.tokens, Conns: len(w.conns), Dialed: w.dialed, ByEnd: map[End]int{}}
	for end, n := range w.byEnd {
		s.ByEnd[end] = n
	}
	return s
}

// Await waits for a kept call that match accepts and returns the oldest such. It looks when a call begins, changes
// or ends, and after tokens; match is called under the wall's lock and must not call the wall. Match by Key, Model
// or Header, not by order, where calls overlap. A client can have its whole answer a moment before the call ends here.
func (w *Wall) Await(ctx context.Context, match func(Request) bool) (found Request, err error) {
	err = w.await(ctx, func() bool {
		for _, rec := range w.ring {
			if found = rec.snapshotLocked(); match(found) {
				return true
			}
		}
		found = Request{}
		return false
	})
	return found, err
}

// AwaitStats waits until match accepts the totals; match must not call the wall.
func (w *Wall) AwaitStats(ctx context.Context, match func(Stats) bool) (s Stats, err error) {
	err = w.await(ctx, func() bool { s = w.statsLocked(); return match(s) })
	return s, err
}

func (w *Wall) await(ctx context.Context, lookLocked func() bool) error {
	w.waiters.Add(1)
	defer w.waiters.Add(-1)
	for {
		w.mu.Lock()
		found, changed := lookLocked(), w.changed
		w.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("awaiting a call at the wall: %w", context.Cause(ctx))
		case <-changed:
		}
	}
}

// Reset forgets all calls, totals and call counts; registered scripts stay. Calls that run go on and are no longer kept.
func (w *Wall) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.calls)
	clear(w.byEnd)
	w.ring, w.total, w.tokens, w.dialed = nil, 0, 0, 0
	w.broadcastLocked()
}

// ConnState counts connections; it belongs in the field of that name of the http.Server.
func (w *Wall) ConnState(c net.Conn, state http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch state {
	case http.StateNew:
		w.conns[c] = struct{}{}
		w.dialed++
	case http.StateClosed, http.StateHijacked:
		// Hijacked connections are reset at once.
		delete(w.conns, c)
	default:
		return
	}
	w.broadcastLocked()
}
