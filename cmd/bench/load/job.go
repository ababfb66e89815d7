// Package load knows the clients of the benchmark: it opens streams and requests
// in the patterns of the tests, checks every answer, and samples CPU time and
// memory of the target at the very instants between which it counts.
package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cmd/bench/mock"
	"sluice/cmd/bench/proc"
)

// Pattern is how a job puts load on the target.
type Pattern string

const (
	Paced  Pattern = "paced"  // Workers streams that all run through the window
	Closed Pattern = "closed" // Workers that call again and again
	Open   Pattern = "open"   // Rate streams a second, whatever the answers do
	Idle   Pattern = "idle"   // Workers streams opened and held
	HangUp Pattern = "hangup" // Workers streams that are all dropped in mid-answer
	Hold   Pattern = "hold"   // Workers sockets opened and held, first without and then with a stream each
)

// Job is one measurement. It travels as JSON to a process of its own.
type Job struct {
	Pattern Pattern
	Addr    string // of the target, host:port
	Mock    string // of the mock, host:port: asked what it still generates
	Key     string // API key to send
	PID     int    // root of the target's process tree; 0 samples nothing
	Shape   mock.Shape
	Workers int
	Lanes   int           // 0: over HTTP; else over WebSocket, so many of the workers share a socket
	Count   int           // closed: total calls; 0 calls until the window ends
	Rate    int           // open: streams a second; idle, hold: opened a second
	Warm    time.Duration // from the start (paced, idle, hold: from the last one started) to the window
	Window  time.Duration
}

// Result is what one job saw. Events, Calls and CPU are those of the window;
// the verdicts are those of all answers, in and around it.
type Result struct {
	Events, Calls          int64
	Window, CPU            time.Duration
	Streams                int64 // answers judged
	Truncated, Wrong       int64
	Failed                 int64
	LeftBehind             int64    // still generated two seconds after the clients hung up
	Opened                 int64    // idle, hangup, hold: streams that flowed
	Sockets                int64    `json:",omitempty"` // hold: opened
	TTFT50, TTFT99         float64  `json:",omitempty"` // open: milliseconds from request to first token
	RSSBefore, RSSOpen     int64    `json:",omitempty"` // idle, hold: bytes before the first and with all streams
	RSSSockets             int64    `json:",omitempty"` // hold: bytes with all sockets and no stream
	Samples                []string `json:",omitempty"` // a few reasons of bad verdicts
	OutsideWindow, Elapsed time.Duration
	Foreign                float64 // cores that processes outside the benchmark kept busy meanwhile
}

// maxSamples bounds Result.Samples.
const maxSamples = 5

// run is the state of one job. The atomics are written by all workers.
type run struct {
	Job
	pids    []int
	events  atomic.Int64
	calls   atomic.Int64
	mu      sync.Mutex // guards what follows
	res     Result
	ttft    []float64 // milliseconds
	sockets map[int]*shared
}

// Run executes a job. The context bounds it.
func Run(ctx context.Context, j Job) (Result, error) {
	r := &run{Job: j, sockets: map[int]*shared{}}
	if j.PID > 0 {
		var err error
		if r.pids, err = proc.Tree(j.PID); err != nil {
			return Result{}, err
		}
	}
	patterns := map[Pattern]func(context.Context) error{
		Paced: r.paced, Closed: r.closed, Open: r.open, Idle: r.idle, HangUp: r.hangUp, Hold: r.hold,
	}
	do, ok := patterns[j.Pattern]
	if !ok {
		return Result{}, fmt.Errorf("unknown pattern %q", j.Pattern)
	}
	start, others := time.Now(), foreign()
	err := do(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Elapsed = time.Since(start)
	r.res.Foreign = max(0, others().Seconds()/r.res.Elapsed.Seconds())
	return r.res, err
}

// foreign starts to count the CPU time that the machine spends outside the
// process tree of the benchmark, which is this process's parent. The function it
// returns tells the time so far, 0 where that cannot be known.
func foreign() func() time.Duration {
	tree, err := proc.Tree(os.Getppid())
	read := func() time.Duration {
		all, err1 := proc.Busy()
		own, err2 := proc.CPU(tree)
		err = errors.Join(err, err1, err2)
		return all - own
	}
	before := read()
	return func() time.Duration {
		after := read()
		if err != nil {
			return 0
		}
		return after - before
	}
}

// judge files one answer.
func (r *run) judge(v Verdict, why string) {
	r.calls.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Streams++
	switch v {
	case OK:
		return
	case Truncated:
		r.res.Truncated++
	case Wrong:
		r.res.Wrong++
	case Failed:
		r.res.Failed++
	}
	if len(r.res.Samples) < maxSamples {
		r.res.Samples = append(r.res.Samples, why)
	}
}

// sample is one reading of the counters.
type sample struct {
	at            time.Time
	cpu           time.Duration
	events, calls int64
}

func (r *run) sample() (sample, error) {
	cpu, err := proc.CPU(r.pids)
	return sample{at: time.Now(), cpu: cpu, events: r.events.Load(), calls: r.calls.Load()}, err
}

// measure waits Warm, then counts over Window.
func (r *run) measure(ctx context.Context) error {
	if err := sleep(ctx, r.Warm); err != nil {
		return err
	}
	a, err := r.sample()
	if err != nil {
		return err
	}
	if err := sleep(ctx, r.Window); err != nil {
		return err
	}
	b, err := r.sample()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Events, r.res.Calls = b.events-a.events, b.calls-a.calls
	r.res.CPU, r.res.Window = b.cpu-a.cpu, b.at.Sub(a.at)
	return nil
}

// Active asks the mock how many streams it is generating.
func Active(ctx context.Context, addr string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/stats", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask the mock: %w", err)
	}
	defer resp.Body.Close()
	var s mock.Stats
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return 0, fmt.Errorf("ask the mock: %w", err)
	}
	return s.Active, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
