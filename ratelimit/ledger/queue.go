package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	writeEvery = 100 * time.Millisecond // how long a row waits for others
	retryEvery = time.Second            // after a write that failed
	closeTries = 3
)

// batch holds encoded rows one after the other.
type batch struct {
	data   []byte
	ends   []int
	posted []int64 // µs since 1970
}

func (b *batch) add(posted int64, r *Row) {
	b.data = Encode(b.data, r)
	b.ends = append(b.ends, len(b.data))
	b.posted = append(b.posted, posted)
}

func (b *batch) len() int { return len(b.ends) }

func (b *batch) row(i int) []byte {
	start := 0
	if i > 0 {
		start = b.ends[i-1]
	}
	return b.data[start:b.ends[i]:b.ends[i]]
}

func (b *batch) reset() {
	const keep = 1 << 18
	if cap(b.data) > keep {
		*b = batch{}
		return
	}
	b.data, b.ends, b.posted = b.data[:0], b.ends[:0], b.posted[:0]
}

// queue takes rows from any goroutine and hands them, in order and in batches, to one
// writer. It holds at most twice limit rows: those that wait and those being written.
type queue struct {
	write func(*batch) error // called by run alone
	limit int
	log   *slog.Logger

	first, hurry, closing, done chan struct{}

	mu                sync.Mutex
	waiting           *batch
	accepted, written uint64
	changed           chan struct{} // closed when there is space, or a write has ended; nil while nobody waits
	trouble           error         // of the last write
	closed            bool
}

func newQueue(limit int, log *slog.Logger, write func(*batch) error) *queue {
	q := &queue{
		write: write, limit: limit, log: log, waiting: new(batch),
		first: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	go q.run()
	return q
}

// put copies a row. While the queue is full it waits, until ctx ends.
func (q *queue) put(ctx context.Context, posted int64, r *Row) error {
	q.mu.Lock()
	for !q.closed && q.waiting.len() >= q.limit {
		if err := q.await(ctx); err != nil {
			return fmt.Errorf("the ledger's queue of %d rows is full: %w", q.limit, err)
		}
	}
	if q.closed {
		q.mu.Unlock()
		return ErrClosed
	}
	q.waiting.add(posted, r)
	q.accepted++
	n := q.waiting.len()
	q.mu.Unlock()
	switch n {
	case 1:
		signal(q.first)
	case (q.limit + 1) / 2:
		signal(q.hurry)
	}
	return nil
}

// await gives the lock away until something changes. With an error it is not taken again.
func (q *queue) await(ctx context.Context) error {
	if q.changed == nil {
		q.changed = make(chan struct{})
	}
	changed := q.changed
	q.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
		q.mu.Lock()
		return nil
	}
}

// sync waits until all rows put so far are written, or a write has failed.
func (q *queue) sync(ctx context.Context) error {
	q.mu.Lock()
	for target := q.accepted; q.written < target && q.trouble == nil; {
		signal(q.hurry)
		if err := q.await(ctx); err != nil {
			return err
		}
	}
	q.mu.Unlock()
	return nil
}

// close writes what waits. Its error tells how many rows are lost, and why.
func (q *queue) close() error {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.closing)
		q.change()
	}
	q.mu.Unlock()
	<-q.done
	q.mu.Lock()
	defer q.mu.Unlock()
	if lost := q.accepted - q.written; lost > 0 {
		return fmt.Errorf("%d rows could not be written to the ledger: %w", lost, q.trouble)
	}
	return nil
}

// change tells everybody who waits to look again. The lock is held.
func (q *queue) change() {
	if q.changed != nil {
		close(q.changed)
		q.changed = nil
	}
}

func (q *queue) run() {
	defer close(q.done)
	spare := new(batch)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		ending := q.gather(timer)
		full := q.take(spare)
		if full.len() > 0 && !q.writeOut(full) {
			return
		}
		if ending && full.len() == 0 {
			return
		}
		full.reset()
		spare = full
	}
}

// gather waits for a first row and then for company. It reports whether the queue closes.
func (q *queue) gather(timer *time.Timer) bool {
	select {
	case <-q.first:
	case <-q.closing:
		return true
	}
	timer.Reset(writeEvery)
	select {
	case <-timer.C:
	case <-q.hurry:
	case <-q.closing:
		return true
	}
	return false
}

func (q *queue) take(empty *batch) *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	full := q.waiting
	q.waiting = empty
	q.change()
	return full
}

// writeOut tries until it succeeds, or, while the queue closes, a few times.
func (q *queue) writeOut(b *batch) bool {
	for try := 1; ; try++ {
		err := q.write(b)
		q.mu.Lock()
		if q.trouble = err; err == nil {
			q.written += uint64(b.len())
		}
		q.change()
		closed := q.closed
		q.mu.Unlock()
		if err == nil {
			return true
		}
		q.log.Error("the ledger cannot be written; rows wait in memory", "error", err, "rows", b.len())
		if closed && try >= closeTries {
			return false
		}
		q.pause(closed)
	}
}

func (q *queue) pause(closed bool) {
	closing := q.closing
	if closed {
		closing = nil
	}
	timer := time.NewTimer(retryEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-closing:
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
