package ledger

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestQueueFull has a writer that does nothing until it is told to.
func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		allow := make(chan error)
		var wrote int
		q := newQueue(4, quiet, func(b *batch) error {
			err := <-allow
			if err == nil {
				wrote += b.len()
			}
			return err
		})
		row := testRow(0)
		put := func(ctx context.Context) error { return q.put(ctx, 1, &row) }
		if err := put(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * writeEvery)
		synctest.Wait() // the writer holds this one
		for range 4 {
			if err := put(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := put(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "queue of 4 rows is full") {
			t.Errorf("beyond the bound: %v", err)
		}
		waiter := make(chan error)
		go func() { waiter <- put(t.Context()) }()
		synctest.Wait()
		allow <- errors.New("disk is full")
		synced := make(chan error)
		go func() { synced <- q.sync(t.Context()) }()
		if err := <-synced; err != nil {
			t.Errorf("a reader waits for a writer in trouble: %v", err)
		}
		allow <- nil // a second later, the same rows again
		if err := <-waiter; err != nil {
			t.Error(err)
		}
		go func() { allow <- nil; allow <- nil }()
		if err := q.close(); err != nil || wrote != 6 {
			t.Errorf("%d rows written, %v", wrote, err)
		}
		if err := put(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("after close: %v", err)
		}
	})
}

func TestQueueWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		var times []time.Duration
		start := time.Now()
		q := newQueue(100, quiet, func(b *batch) error {
			sizes, times = append(sizes, b.len()), append(times, time.Since(start))
			return nil
		})
		row := testRow(0)
		for range 7 {
			_ = q.put(t.Context(), 1, &row)
		}
		time.Sleep(time.Second)
		_ = q.put(t.Context(), 1, &row)
		if err := q.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(sizes) != 2 || sizes[0] != 7 || sizes[1] != 1 || times[0] != writeEvery || times[1] != time.Second {
			t.Errorf("batches %v at %v", sizes, times)
		}
		if err := q.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestQueueLoses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("disk is gone")
		q := newQueue(100, quiet, func(*batch) error { return broken })
		row := testRow(0)
		for range 7 {
			_ = q.put(t.Context(), 1, &row)
		}
		start := time.Now()
		if err := q.close(); !errors.Is(err, broken) || !strings.Contains(err.Error(), "7 rows") {
			t.Errorf("close: %v", err)
		}
		if waited := time.Since(start); waited > closeTries*retryEvery {
			t.Errorf("close took %v", waited)
		}
	})
}
