package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Bolt is a book in one file of its own, for one process. It may be used concurrently.
//
// Rows are queued, and written together 100 ms after the first of them, or earlier when
// the queue is half full or somebody reads. What a killed process loses are the rows of
// those 100 ms and of the write that runs; what was written survives a power failure too.
// At most Retention.Pending rows wait: then callers do, as long as their contexts let
// them. A write that fails is tried again every second, and rows wait meanwhile.
//
// The file does not shrink: the space of old rows is used again.
type Bolt struct {
	path string
	now  func() time.Time
	keep Retention
	log  *slog.Logger
	*queue

	mu sync.RWMutex // held for reading while the file is used, for writing while it is replaced
	db *bolt.DB

	// Of the writer, and of who replaces the file:
	seen    *seen
	next    uint64        // number of the row to come, from 1
	names   map[int64]int // sums of the newest hours
	writing writing
}

// The buckets. Rows and their ids are stored in groups, by the number of the first row (8
// bytes, big endian), sums by hour (4 bytes, big endian), organisation and name. Each value
// begins with the CRC-32C of the rest; a group goes on with the number of its rows (2 bytes,
// big endian). Times of posting are µs (8 bytes, big endian).
var (
	bucketRows = []byte("rows") // time of posting of the last row · for each row: time of posting, length (uvarint), encoded row
	bucketIDs  = []byte("ids")  // for each row: length (uvarint) and id; ids outlive their rows
	bucketSums = []byte("sums") // amounts
	bucketMeta = []byte("meta")
	buckets    = [][]byte{bucketRows, bucketIDs, bucketSums, bucketMeta}

	keyFormat = []byte("format")
	format    = []byte("2")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

const (
	lockWait  = time.Second
	minIDs    = 100_000  // ids that are known at least
	mapAtOnce = 64 << 20 // bytes of address space, so that a growing file seldom waits for readers
)

var (
	errDamaged = errors.New("the ledger file is damaged")
	errFormat  = errors.New("the file is no ledger, or of another version of sluice")
	errEmpty   = errors.New("the ledger file is new")
)

// OpenBolt opens or makes the file. It is read whole once. A damaged file is moved aside,
// to its name with ".damaged-" and the time, which is logged as an error, and a new one is
// begun. A file that another process uses is an error.
func OpenBolt(path string, keep Retention, clock func() time.Time, log *slog.Logger) (*Bolt, error) {
	b := &Bolt{path: path, now: clock, keep: keep.withDefaults(), log: log, next: 1, names: map[int64]int{}}
	b.seen = newSeen(max(b.keep.Rows, minIDs))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	db, err := b.open()
	if errors.Is(err, errDamaged) {
		db, err = b.openNew(err)
	}
	if err != nil {
		return nil, err
	}
	b.db = db
	b.queue = newQueue(b.keep.Pending, log, b.commit)
	return b, nil
}

// open opens the file and reads what the writer must know.
func (b *Bolt) open() (db *bolt.DB, err error) {
	var file *os.File
	err = guarded(func() error {
		db, err = bolt.Open(b.path, 0o600, &bolt.Options{
			Timeout: lockWait, InitialMmapSize: mapAtOnce, FreelistType: bolt.FreelistMapType, NoStatistics: true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				file, err = os.OpenFile(name, flag, mode)
				return file, err
			},
		})
		if err != nil {
			return openError(b.path, err)
		}
		if err := whole(db); err != nil {
			return err
		}
		if err := db.View(b.load); !errors.Is(err, errEmpty) {
			return err
		}
		return db.Update(prepare)
	})
	if err == nil {
		return db, nil
	}
	switch {
	case db != nil:
		shut(db)
	case file != nil:
		_ = file.Close() // which gives the lock back
	}
	return nil, err
}

func openError(path string, err error) error {
	var sys syscall.Errno
	var file *fs.PathError
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("the ledger file %s is in use by another process", path)
	case errors.As(err, &sys), errors.As(err, &file):
		return fmt.Errorf("open the ledger: %w", err)
	default:
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
}

// whole checks that the file is as long as it says.
func whole(db *bolt.DB) error {
	info, err := os.Stat(db.Path())
	if err != nil {
		return err
	}
	return db.View(func(tx *bolt.Tx) error {
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: %d bytes of %d are there", errDamaged, info.Size(), tx.Size())
		}
		return nil
	})
}

func prepare(tx *bolt.Tx) error {
	for _, name := range buckets {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(keyFormat, format)
}

// check looks at the format. A file with other buckets than ours is somebody else's.
func check(tx *bolt.Tx) error {
	if meta := tx.Bucket(bucketMeta); meta != nil {
		if have := meta.Get(keyFormat); !bytes.Equal(have, format) {
			return fmt.Errorf("%w: format %q", errFormat, have)
		}
		return nil
	}
	if name, _ := tx.Cursor().First(); name != nil {
		return fmt.Errorf("%w: it holds %q", errFormat, name)
	}
	return errEmpty
}

// load reads everything, so that damage shows now, and remembers ids and numbers.
func (b *Bolt) load(tx *bolt.Tx) error {
	if err := check(tx); err != nil {
		return err
	}
	ids := newSeen(max(b.keep.Rows, minIDs))
	var next uint64 = 1
	err := tx.Bucket(bucketIDs).ForEach(func(k, v []byte) (err error) {
		if next, err = groupEnd(k, v); err != nil {
			return err
		}
		return readIDs(v, func(id []byte) {
			if len(id) > 0 {
				ids.addHash(ids.hash(id))
			}
		})
	})
	if err != nil {
		return err
	}
	var rows []Row
	err = tx.Bucket(bucketRows).ForEach(func(k, v []byte) (err error) {
		if rows, err = readRows(rows[:0], v); err == nil {
			_, err = groupEnd(k, v)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = tx.Bucket(bucketSums).ForEach(func(k, v []byte) error {
		_, _, _, _, err := readSum(k, v)
		return err
	})
	if err != nil {
		return err
	}
	b.seen, b.next = ids, next
	return nil
}

// openNew moves the file aside and begins a new one. Ids and numbers go on.
func (b *Bolt) openNew(cause error) (*bolt.DB, error) {
	aside := b.path + ".damaged-" + b.now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(b.path, aside); err != nil {
		return nil, fmt.Errorf("move a damaged ledger file aside: %w", err)
	}
	b.log.Error("the ledger file is damaged and was moved aside; a new one is begun", "error", cause, "file", b.path, "aside", aside)
	ids, next := b.seen, b.next
	db, err := b.open()
	b.seen, b.next, b.names = ids, next, map[int64]int{}
	return db, err
}

// replace begins a new file if db is still the one in use.
func (b *Bolt) replace(db *bolt.DB, cause error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.db != db {
		return nil
	}
	shut(db)
	fresh, err := b.openNew(cause)
	if err != nil {
		return err
	}
	b.db = fresh
	return nil
}

// shut closes a file that may be damaged: bbolt may then panic or wait for itself.
func shut(db *bolt.DB) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = guarded(db.Close)
	}()
	select {
	case <-done:
	case <-time.After(lockWait):
	}
}

// guarded runs f, which reads the mapped file; what goes wrong there comes as a panic or
// as a memory fault, and is told as errDamaged.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return f()
}

// Post queues a row. Of rows with the same id the first is written: the newest 100,000
// ids are known, also those of earlier processes, or as many as rows are kept. It fails
// when ctx ends while the queue is full, and with ErrClosed.
func (b *Bolt) Post(ctx context.Context, r *Row) error {
	return b.put(ctx, b.now().UnixMicro(), r)
}

// Close writes what is queued and closes the file. It is called once.
func (b *Bolt) Close() error {
	err := b.close()
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(err, guarded(b.db.Close))
}

// view reads from the file, after what was posted before has been written. A file that
// turns out damaged is replaced, and the reader told.
func (b *Bolt) view(ctx context.Context, f func(*bolt.Tx) error) error {
	if err := b.sync(ctx); err != nil {
		return err
	}
	b.mu.RLock()
	db := b.db
	err := guarded(func() error { return db.View(f) })
	b.mu.RUnlock()
	if errors.Is(err, errDamaged) {
		err = errors.Join(err, b.replace(db, err))
	}
	return err
}

// Usage adds up hourly sums. Errors are those of ctx, wrap ErrQuery or mean a damaged file.
func (b *Bolt) Usage(ctx context.Context, q Query) ([]Sum, error) {
	g, err := newGrouping(q)
	if err != nil {
		return nil, err
	}
	first, end := g.match.hours()
	first = max(first, hourOf(b.now())-int64(b.keep.SumAge/time.Hour))
	err = b.view(ctx, func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketSums).Cursor()
		for k, v := c.Seek(hourKey(first)); k != nil; k, v = c.Next() {
			hour, org, n, a, err := readSum(k, v)
			if err != nil {
				return err
			}
			if hour >= end {
				break
			}
			if err := errors.Join(ctx.Err(), g.add(hour, org, n, &a)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return g.result(), nil
}
