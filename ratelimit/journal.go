package ratelimit

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ErrJournalFull means that the journal has reached its bound.
var ErrJournalFull = errors.New("the journal of settlements is full")

// errLocked means that another process uses the file.
var errLocked = errors.New("in use by another process")

// JournalOptions say where a journal is and what bounds it.
type JournalOptions struct {
	// Dir holds the files. Processes may share it: each has a folder of its own in it, and
	// takes over what a process that is gone has left. "" means a temporary directory, which
	// is gone after Close and which no later process finds.
	Dir string
	// MaxBytes bounds the files; 0 means 256 MiB, some 400,000 settlements. Beyond it Append
	// fails with ErrJournalFull.
	MaxBytes int64
	// MaxAge is after which time a settlement is dropped and told instead of replayed; 0
	// means 24 h, for which stores remember the ids of those that were replayed: a later one could
	// count twice. Those that had been sent before are dropped by the store, if it must.
	MaxAge time.Duration
	// Sync is how often what was written is forced to the disk; 0 means each 100 ms. It is
	// what a machine that loses its power may lose; a killed process loses nothing.
	Sync time.Duration
	Log  *slog.Logger // nil means the default one
}

func (o *JournalOptions) complete() {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 20
	}
	if o.MaxAge <= 0 {
		o.MaxAge = 24 * time.Hour
	}
	if o.Sync <= 0 {
		o.Sync = 100 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
}

// Journal keeps settlements in files until the store of the limits can be reached. Its
// methods may be called concurrently. There is no file while there is no settlement.
type Journal struct {
	opt  JournalOptions
	dir  string // of this process
	temp bool

	replaying sync.Mutex // held while records are read

	mu       sync.Mutex
	lock     *os.File
	adopted  []*os.File // locks of folders that were taken over
	segments []*segment // oldest first
	active   *os.File   // of the last segment; nil when a new one is to be begun
	number   uint64     // of the newest segment
	bytes    int64      // of all segments
	pending  int64      // records not replayed yet
	dirty    bool       // there is something to be synced
	failed   error      // why nothing can be written
	expired  int64
	damaged  int64
	closed   bool

	failing atomic.Bool // failed is set

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

// JournalStats is the state of a journal.
type JournalStats struct {
	Pending int64 // settlements to be replayed
	Bytes   int64
	Expired int64 // dropped because of their age, since it was opened
	Damaged int64 // records that could not be read, since it was opened
	Err     error // why nothing can be written; nil when it can
}

// OpenJournal takes a folder in the directory, and with it what earlier processes have left.
// It starts a goroutine, which Close ends.
func OpenJournal(opt JournalOptions) (*Journal, error) {
	opt.complete()
	j := &Journal{opt: opt, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	if opt.Dir == "" {
		dir, err := os.MkdirTemp("", "sluice-settlements-")
		if err != nil {
			return nil, fmt.Errorf("journal of settlements: %w", err)
		}
		j.opt.Dir, j.temp = dir, true
	}
	if err := j.claim(); err != nil {
		j.release()
		return nil, fmt.Errorf("journal of settlements in %s: %w", j.opt.Dir, err)
	}
	go j.syncer()
	return j, nil
}

// Stats returns what is known now.
func (j *Journal) Stats() JournalStats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return JournalStats{Pending: j.pending, Bytes: j.bytes, Expired: j.expired, Damaged: j.damaged, Err: j.failed}
}

// Append writes a settlement. It is in the file when Append returns, and on the disk
// shortly after, with what its Past says but for the time. After an error it is not in the journal, and Stats has the error until
// writing works again.
func (j *Journal) Append(s *Settlement) error {
	record, err := appendRecord(nil, s, time.Now())
	if err != nil {
		return fmt.Errorf("journal of settlements: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.write(record); err != nil {
		j.fail(err)
		return fmt.Errorf("journal of settlements: %w", err)
	}
	j.segments[len(j.segments)-1].records++
	j.pending++
	return nil
}

// fail notes that writing does not work, and tells when that is new. mu is held.
func (j *Journal) fail(err error) {
	if j.failed == nil {
		j.opt.Log.Error("settlements cannot be written to the journal: budgets refuse calls while the store of the limits is away",
			"error", err, "dir", j.dir, "bytes", j.bytes)
	}
	j.failed = err
	j.failing.Store(true)
	j.poke()
}

// works notes that what was written is on the disk. mu is held.
func (j *Journal) works() {
	if j.failed != nil {
		j.opt.Log.Info("settlements can be written to the journal again", "dir", j.dir)
	}
	j.failed = nil
	j.failing.Store(false)
}

// poke wakes the syncer.
func (j *Journal) poke() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Close forces what was written to the disk and gives the folder free. Settlements that
// were not replayed stay for the next process, unless the directory is a temporary one:
// then they are lost, which is told.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	close(j.stop)
	j.mu.Unlock()
	<-j.done
	j.replaying.Lock()
	defer j.replaying.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.seal()
	if j.temp && j.pending > 0 {
		j.opt.Log.Error("settlements are lost: the journal had no directory of its own", "settlements", j.pending)
	}
	j.release()
	return err
}
