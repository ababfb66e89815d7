package fair

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// FuzzQueue plays calls that come, leave, give up and end in any order, and looks at the
// queue after each step.
func FuzzQueue(f *testing.F) {
	f.Add([]byte{2, 3, 0, 0, 0, 1, 0, 2, 0, 3, 0, 0, 1, 0, 0, 1, 2, 0, 3, 9})
	f.Add([]byte{1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2, 1, 0, 1, 0, 2, 1})
	f.Add([]byte{3, 9, 0, 7, 0, 6, 0, 5, 0, 7, 0, 7, 3, 250, 1, 0, 0, 1, 3, 250})
	f.Fuzz(func(t *testing.T, steps []byte) {
		if len(steps) < 2 || len(steps) > 400 {
			return
		}
		synctest.Test(t, func(t *testing.T) { play(t, steps) })
	})
}

// actor is a call of the play.
type actor struct {
	*entered
	cancel context.CancelFunc
}

func play(t *testing.T, steps []byte) {
	q := New(Options{Places: 1 + int(steps[0]%4), Depth: 1 + int(steps[1]%8), Wait: 3 * time.Second})
	var actors []actor
	for i := 2; i+1 < len(steps); i += 2 {
		op, arg := steps[i]%4, steps[i+1]
		switch {
		case op == 0:
			ctx, cancel := context.WithCancel(context.Background())
			actors = append(actors, actor{enter(q, ctx, string('a'+rune(arg%5)), int64(arg)), cancel})
		case op == 3:
			time.Sleep(time.Duration(arg) * 10 * time.Millisecond)
		case len(actors) > 0:
			n := int(arg) % len(actors)
			if a := actors[n]; op == 2 {
				a.cancel()
			} else if !a.waits() && a.place != nil {
				a.place.Leave(int64(arg))
			}
		}
		synctest.Wait()
		look(t, q)
	}
	for _, a := range actors {
		a.cancel()
		<-a.done
		if (a.err == nil) != (a.place != nil) {
			t.Fatalf("place %v and error %v", a.place, a.err)
		}
		if a.err != nil && !errors.Is(a.err, ErrFull) && !errors.Is(a.err, ErrLate) && !errors.Is(a.err, context.Canceled) {
			t.Fatal(a.err)
		}
		if a.place != nil {
			a.place.Leave(1)
		}
	}
	synctest.Wait()
	look(t, q)
	if s := q.Stats(); s.Running != 0 || s.Waiting != 0 || s.Passed+s.Served+s.Full+s.Late+s.Left < int64(len(actors)) {
		t.Fatalf("at the end: %+v of %d calls", s, len(actors))
	}
}

// look checks what must always hold.
func look(t *testing.T, q *Queue) {
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running > q.opt.Places || q.waiting > q.opt.Depth || q.waiting > 0 && q.running < q.opt.Places {
		t.Fatalf("%d of %d places taken, %d of %d wait", q.running, q.opt.Places, q.waiting, q.opt.Depth)
	}
	var running, waiting, idle, inLine int
	for name, o := range q.tenants {
		running += o.running
		waiting += o.waiting.Len()
		if o.running == 0 && o.waiting.Len() == 0 {
			idle++
			if o.pending != 0 {
				t.Fatalf("%s has nothing running and %d pending", name, o.pending)
			}
		}
		if (o.at != nil) != (o.waiting.Len() > 0) || o.used < 0 || o.pending < 0 {
			t.Fatalf("tenant %+v", o)
		}
		if o.at != nil {
			inLine++
		}
	}
	if running != q.running || waiting != q.waiting || idle != q.idle || inLine != q.line.Len() {
		t.Fatalf("counted %d running, %d waiting, %d idle, %d in line; the queue says %d, %d, %d, %d",
			running, waiting, idle, inLine, q.running, q.waiting, q.idle, q.line.Len())
	}
}
