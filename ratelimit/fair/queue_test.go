package fair

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func always(int) bool { return true }

// enter waits in a goroutine of the test. The result is there once done is closed.
type entered struct {
	place *Place
	err   error
	told  []int
	done  chan struct{}
}

func enter(q *Queue, ctx context.Context, tenant string, cost int64) *entered {
	e := &entered{done: make(chan struct{})}
	go func() {
		defer close(e.done)
		e.place, e.err = q.Wait(ctx, tenant, cost, func(at int) bool { e.told = append(e.told, at); return true })
	}()
	synctest.Wait()
	return e
}

func (e *entered) waits() bool {
	select {
	case <-e.done:
		return false
	default:
		return true
	}
}

// TestOrder: who was served least is next, whoever came first.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, ctx := New(Options{Places: 1, Depth: 8}), context.Background()
		running := enter(q, ctx, "a", 100)
		a1, a2 := enter(q, ctx, "a", 100), enter(q, ctx, "a", 100)
		b1, b2 := enter(q, ctx, "b", 10), enter(q, ctx, "b", 10)
		var order []string
		names := map[*entered]string{a1: "a1", a2: "a2", b1: "b1", b2: "b2"}
		waiting := []*entered{a1, a2, b1, b2}
		for p := running.place; p != nil; {
			p.Leave(p.cost)
			p = nil
			synctest.Wait()
			for i, e := range waiting {
				if !e.waits() {
					order, p = append(order, names[e]), e.place
					waiting = slices.Delete(waiting, i, i+1)
					break
				}
			}
		}
		if want := []string{"b1", "b2", "a1", "a2"}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v", order, want)
		}
	})
}

// TestPositions: told at first and when they have changed, and true.
func TestPositions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, ctx := New(Options{Places: 1, Depth: 8, Wait: time.Minute}), context.Background()
		running := enter(q, ctx, "a", 1)
		var line []*entered
		for range 3 {
			line = append(line, enter(q, ctx, "a", 1))
		}
		other := enter(q, ctx, "b", 1)
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		running.place.Leave(1) // b has had nothing: it is served
		<-other.done
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		other.place.Leave(1)
		for _, e := range line {
			<-e.done
			e.place.Leave(1)
		}
		for i, want := range [][]int{{1, 2, 1}, {2, 3, 2}, {3, 4, 3}} {
			if !slices.Equal(line[i].told, want) {
				t.Errorf("call %d was told %v, want %v", i, line[i].told, want)
			}
		}
		if !slices.Equal(other.told, []int{1}) {
			t.Errorf("the other tenant was told %v", other.told)
		}
		if s := q.Stats(); s.Running != 0 || s.Waiting != 0 || s.Passed != 1 || s.Served != 4 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestBounds: a full line turns away at once, waiting ends in time, and at once with the
// context or the reader.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Options{Places: 1})
		ctx, cancel := context.WithCancelCause(context.Background())
		running := enter(q, ctx, "a", 1)
		first, second := enter(q, context.Background(), "a", 1), enter(q, ctx, "a", 1)
		start := time.Now()
		if _, err := q.Wait(ctx, "a", 1, always); !errors.Is(err, ErrFull) || time.Since(start) > 0 {
			t.Errorf("a full line: %v after %v", err, time.Since(start))
		}
		gone := errors.New("gone")
		cancel(gone)
		<-second.done
		if !errors.Is(second.err, gone) || time.Since(start) > 0 {
			t.Errorf("a cancelled call: %v after %v", second.err, time.Since(start))
		}
		if _, err := q.Wait(ctx, "a", 1, always); !errors.Is(err, gone) {
			t.Errorf("a call that was cancelled before: %v", err)
		}
		if _, err := q.Wait(context.Background(), "a", 1, func(int) bool { return false }); !errors.Is(err, ErrStopped) {
			t.Errorf("a reader who stops: %v", err)
		}
		<-first.done
		if !errors.Is(first.err, ErrLate) || time.Since(start) != 5*time.Second {
			t.Errorf("a long wait: %v after %v", first.err, time.Since(start))
		}
		running.place.Leave(1)
		running.place.Leave(1) // only the first counts
		if s := q.Stats(); s != (Stats{Passed: 1, Full: 1, Late: 1, Left: 2}) {
			t.Errorf("stats %+v", s)
		}
		if _, err := New(Options{Places: 1, Depth: -1}).Wait(context.Background(), "a", 1, always); err != nil {
			t.Errorf("a free place without a line: %v", err)
		}
	})
}

// TestCrowdedLine: who fills the line loses the last place in it to somebody else.
func TestCrowdedLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, ctx := New(Options{Places: 1, Depth: 2}), context.Background()
		running := enter(q, ctx, "a", 1)
		a1, a2 := enter(q, ctx, "a", 1), enter(q, ctx, "a", 1)
		b1 := enter(q, ctx, "b", 1)
		if a2.waits() || !errors.Is(a2.err, ErrFull) || !a1.waits() || !b1.waits() {
			t.Errorf("the newest call of the crowd: %v", a2.err)
		}
		for _, tenant := range []string{"a", "b", "c"} {
			if _, err := q.Wait(ctx, tenant, 1, always); !errors.Is(err, ErrFull) {
				t.Errorf("%s at a line of one call each: %v", tenant, err)
			}
		}
		running.place.Leave(1)
		<-b1.done
		b1.place.Leave(1)
		<-a1.done
		a1.place.Leave(1)
	})
}

// TestNoCredit: who was away is served no more than its share when it comes back, and an
// estimate that was much too high does no lasting harm.
func TestNoCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, ctx := New(Options{Places: 1, Depth: 100, Wait: time.Hour}), context.Background()
		for range 50 {
			p, err := q.Wait(ctx, "busy", 1_000_000, always)
			if err != nil {
				t.Fatal(err)
			}
			p.Leave(100)
		}
		running := enter(q, ctx, "busy", 1_000_000)
		var line []*entered
		for range 10 {
			line = append(line, enter(q, ctx, "busy", 100), enter(q, ctx, "back", 100))
		}
		served := map[string]int{}
		for p := running.place; len(line) > 0; {
			p.Leave(100)
			synctest.Wait()
			for i, e := range line {
				if !e.waits() {
					p = e.place
					served[p.tenant.name]++
					line = slices.Delete(line, i, i+1)
					break
				}
			}
			if d := served["busy"] - served["back"]; d < -2 || d > 2 {
				t.Fatalf("served %v", served)
			}
		}
	})
}

// TestShare: one tenant asks for fifty times as much as each of four others, whose calls
// would just fit. They get at least 95 % of their share, and nobody has a goroutine but
// its own.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places, tokens = 10, 100
		q := New(Options{Places: places})
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		var mu sync.Mutex
		got, asked := map[string]int{}, map[string]int{}
		var calls sync.WaitGroup
		call := func(tenant string) {
			defer calls.Done()
			p, err := q.Wait(ctx, tenant, 3*tokens, always)
			if err != nil {
				return
			}
			time.Sleep(time.Second)
			p.Leave(tokens)
			mu.Lock()
			defer mu.Unlock()
			got[tenant] += tokens
		}
		load := func(tenant string, every time.Duration) {
			for ctx.Err() == nil {
				mu.Lock()
				asked[tenant] += tokens
				mu.Unlock()
				calls.Add(1)
				go call(tenant)
				time.Sleep(every)
			}
		}
		// Ten places and calls of a second: two calls a second are a fifth.
		for i := range 4 {
			calls.Go(func() { load(fmt.Sprint("tenant", i), 500*time.Millisecond) })
			time.Sleep(7 * time.Millisecond)
		}
		calls.Go(func() { load("crowd", 10*time.Millisecond) })
		time.Sleep(time.Minute)
		if n := runtime.NumGoroutine(); n > places+2*places+20 {
			t.Errorf("%d goroutines for %d calls that run or wait", n, 3*places)
		}
		calls.Wait()
		t.Logf("got %v of %v, %+v", got, asked, q.Stats())
		for i := range 4 {
			if name := fmt.Sprint("tenant", i); got[name]*100 < asked[name]*95 {
				t.Errorf("%s got %d of %d", name, got[name], asked[name])
			}
		}
		if all := 5 * 60 * places * tokens; got["crowd"]*100 < all/5*95 {
			t.Errorf("the crowd got %d of its %d: the places were not used", got["crowd"], all/5)
		}
	})
}

// TestResize gives more places to those who wait, and takes none from those who run.
func TestResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, ctx := New(Options{Places: 1, Depth: 8}), context.Background()
		a := enter(q, ctx, "a", 1)
		b, c := enter(q, ctx, "b", 1), enter(q, ctx, "c", 1)
		q.Resize(Options{Places: 3, Depth: 1})
		synctest.Wait()
		if b.waits() || c.waits() {
			t.Fatal("free places were not given out")
		}
		q.Resize(Options{Places: 1, Depth: 1})
		d := enter(q, ctx, "d", 1)
		for _, e := range []*entered{a, b} {
			e.place.Leave(1)
			synctest.Wait()
			if !d.waits() {
				t.Fatal("more than one runs")
			}
		}
		c.place.Leave(1)
		synctest.Wait()
		if d.waits() || d.err != nil {
			t.Errorf("the last one waits: %v", d.err)
		}
		look(t, q)
	})
}
