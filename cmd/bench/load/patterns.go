package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cmd/bench/mock"
	"sluice/cmd/bench/proc"
	"sluice/cmd/bench/stat"
)

// Ramp is how long paced and hangup jobs take to start all streams.
const Ramp = time.Second

// reaction is how long a target may take to stop the mock after its clients left.
const reaction = 2 * time.Second

// paced opens Workers streams, measures while all of them flow, and reads them
// to their ends. Shape.Tokens must outlast ramp, warm-up and window; the time by
// which it did not is OutsideWindow.
func (r *run) paced(ctx context.Context) error {
	var wg sync.WaitGroup
	var firstEnd atomic.Int64
	start := time.Now()
	for i := range r.Workers {
		wg.Go(func() {
			if sleep(ctx, startOf(i, r.Workers, r.Shape.Every)) != nil {
				return
			}
			r.one(ctx, r.seeded(i))
			firstEnd.CompareAndSwap(0, int64(time.Since(start)))
		})
	}
	if err := sleep(ctx, Ramp); err != nil {
		return err
	}
	if err := r.measure(ctx); err != nil {
		return err
	}
	if end := firstEnd.Load(); end != 0 {
		r.res.OutsideWindow = time.Since(start) - time.Duration(end)
	}
	wg.Wait()
	return nil
}

// startOf spreads n starts over the ramp, at phases of the token period that
// fill it evenly: streams in step would hand the target their tokens in bunches.
func startOf(i, n int, period time.Duration) time.Duration {
	at := Ramp * time.Duration(i) / time.Duration(max(n, 1))
	if period <= 0 {
		return at
	}
	return at.Truncate(period) + phase(i, period)
}

// phase is a part of period; those of successive i fill it evenly.
func phase(i int, period time.Duration) time.Duration {
	_, part := math.Modf(float64(i) * 0.6180339887)
	return time.Duration(part * float64(period))
}

// closed keeps Workers busy: each sends its next call when the last has ended.
func (r *run) closed(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var taken atomic.Int64
	for w := range r.Workers {
		wg.Go(func() { r.worker(ctx, w, &taken) })
	}
	var err error
	if r.Count == 0 {
		err = r.measure(ctx)
		stop()
	}
	wg.Wait()
	return err
}

// worker calls until the context ends or the count is used up. A failed call
// costs a pause, so a dead target cannot make it spin.
func (r *run) worker(ctx context.Context, w int, taken *atomic.Int64) {
	call := r.seeded(w)
	var c caller
	for ctx.Err() == nil && (r.Count == 0 || taken.Add(1) <= int64(r.Count)) {
		if c == nil {
			var err error
			if c, err = r.connect(ctx, w); err != nil {
				if ctx.Err() != nil {
					return
				}
				r.judge(Failed, err.Error())
				_ = sleep(ctx, 50*time.Millisecond)
				continue
			}
		}
		v, why := c.do(call)
		r.judge(v, why)
		if v == Failed {
			_ = sleep(ctx, 50*time.Millisecond)
		}
		if !c.reusable() {
			_ = c.Close()
			c = nil
		}
	}
	if c != nil {
		_ = c.Close()
	}
}

// open starts Rate streams a second for the window and takes their times to the
// first token. Connections are reused when free.
func (r *run) open(ctx context.Context) error {
	var free pool
	defer free.close()
	var wg sync.WaitGroup
	n := int(r.Window.Seconds() * float64(r.Rate))
	warm := int(r.Warm.Seconds() * float64(r.Rate))
	start := time.Now()
	for i := range n + warm {
		if err := sleep(ctx, time.Until(start.Add(arrival(i, r.Rate)))); err != nil {
			return err
		}
		wg.Go(func() { r.timed(ctx, &free, i, i >= warm) })
	}
	wg.Wait()
	if len(r.ttft) == 0 {
		return errors.New("no stream brought a token")
	}
	r.res.TTFT50, r.res.TTFT99 = stat.Percentile(r.ttft, 50), stat.Percentile(r.ttft, 99)
	return nil
}

// arrival spreads the starts of open over the time between two of them: where that is
// also the time between two tokens, requests in step would all arrive together with a
// token of every stream, and measure how long the target works on those.
func arrival(i, rate int) time.Duration {
	between := time.Second / time.Duration(rate)
	return time.Duration(i)*between + phase(i, between)
}

func (r *run) timed(ctx context.Context, free *pool, i int, counts bool) {
	c, err := free.get(ctx, r.Addr)
	if err != nil {
		r.judge(Failed, err.Error())
		return
	}
	call := r.seeded(i)
	var first time.Duration
	var sent time.Time
	call.onToken = func(n int) {
		if n == 1 {
			first = time.Since(sent)
		}
	}
	sent = time.Now()
	v, why := c.do(call)
	r.judge(v, why)
	free.put(c)
	if counts && first > 0 {
		r.mu.Lock()
		r.ttft = append(r.ttft, float64(first)/float64(time.Millisecond))
		r.mu.Unlock()
	}
}

// idle opens Workers streams at Rate a second and holds them all. Memory is read
// before the first and at the end of the window. Events are the tokens of the window.
func (r *run) idle(ctx context.Context) error {
	warm := r.seeded(0)
	warm.shape.Tokens, warm.shape.Every = 8, 0
	r.one(ctx, newCall(r.Key, warm.shape))
	var err error
	if r.res.RSSBefore, err = proc.RSS(r.pids); err != nil {
		return err
	}
	held, drop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer drop()
	start := time.Now()
	for i := range r.Workers {
		wg.Go(func() {
			at := time.Duration(i) * time.Second / time.Duration(r.Rate)
			if sleep(held, time.Until(start.Add(at))) == nil {
				r.until(held, r.seeded(i), nil)
			}
		})
	}
	if err := sleep(ctx, time.Duration(r.Workers)*time.Second/time.Duration(r.Rate)); err != nil {
		return err
	}
	if err := r.measure(ctx); err != nil {
		return err
	}
	rss, err := proc.RSS(r.pids)
	r.mu.Lock()
	r.res.RSSOpen = rss
	r.mu.Unlock()
	return err
}

// hangUp opens Workers streams, drops all of them once each has brought three
// tokens, and counts what the mock still generates after the reaction time.
func (r *run) hangUp(ctx context.Context) error {
	before, err := Active(ctx, r.Mock)
	if err != nil {
		return err
	}
	held, drop := context.WithCancel(ctx)
	defer drop()
	var wg, flowing sync.WaitGroup
	for i := range r.Workers {
		flowing.Add(1)
		wg.Go(func() {
			once := sync.OnceFunc(flowing.Done)
			defer once()
			if sleep(held, startOf(i, r.Workers, r.Shape.Every)) == nil {
				r.until(held, r.seeded(i), func(n int) {
					if n == 3 {
						once()
					}
				})
			}
		})
	}
	flowing.Wait() // every stream is bounded by its own deadline
	drop()
	wg.Wait()
	if err := sleep(ctx, reaction); err != nil {
		return err
	}
	after, err := Active(ctx, r.Mock)
	if err != nil {
		return err
	}
	if before > 0 {
		return fmt.Errorf("%d streams of an earlier test were still running", before)
	}
	r.res.LeftBehind = after
	return nil
}

// seeded is the job's call with the content of worker i.
func (r *run) seeded(i int) *call {
	s := r.Shape
	s.Seed = i % mock.Seeds
	k := newCall(r.Key, s)
	k.worker = i
	k.onToken = func(int) { r.events.Add(1) }
	return k
}

// one makes a call on a connection of its own and judges it.
func (r *run) one(ctx context.Context, k *call) {
	c, err := r.connect(ctx, k.worker)
	if err != nil {
		r.judge(Failed, err.Error())
		return
	}
	defer c.Close()
	r.judge(c.do(k))
}

// until makes a call that the end of ctx cuts off. It judges the answer only if
// it ended, or differed, before that.
func (r *run) until(ctx context.Context, k *call, onToken func(n int)) {
	c, err := r.connect(ctx, k.worker)
	if err != nil {
		r.judge(Failed, err.Error())
		return
	}
	r.carry(ctx, c, k, onToken)
}

// carry is until over what is open already, and closes it.
func (r *run) carry(ctx context.Context, c caller, k *call, onToken func(n int)) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() { stop(); _ = c.Close() }()
	k.onToken = func(n int) {
		r.events.Add(1)
		if n == 1 {
			r.opened()
		}
		if onToken != nil {
			onToken(n)
		}
	}
	if v, why := c.do(k); v == Wrong || ctx.Err() == nil {
		r.judge(v, why)
	}
}

func (r *run) opened() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Opened++
}

// pool keeps free connections, last in first out.
type pool struct {
	mu   sync.Mutex
	free []*conn
}

func (p *pool) get(ctx context.Context, addr string) (*conn, error) {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return c, nil
	}
	p.mu.Unlock()
	return dial(ctx, addr)
}

func (p *pool) put(c *conn) {
	if c.spent {
		_ = c.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, c)
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.free {
		_ = c.Close()
	}
	p.free = nil
}
