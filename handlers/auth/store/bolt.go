package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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

	"sluice/handlers/auth"
)

// boltShelf is one file of one process. An edit that was acknowledged survives a killed
// process and a power failure.
type boltShelf struct {
	path  string
	print string // of the pepper
	now   func() time.Time
	log   *slog.Logger
	all   func(visit func(id auth.KeyID, text []byte)) // what a new file is begun with

	mu sync.RWMutex // held for reading while the file is used, for writing while it is replaced
	db *bolt.DB
}

// The buckets. Keys are ids. Values of records begin with the CRC-32C of the rest.
var (
	bucketKeys = []byte("keys")
	bucketUsed = []byte("used") // Unix minutes, 8 bytes, big endian
	bucketMeta = []byte("meta")
	buckets    = [][]byte{bucketKeys, bucketUsed, bucketMeta}

	metaFormat = []byte("format")
	metaPepper = []byte("pepper") // its fingerprint
	fileFormat = []byte("sluice keys 1")
)

const lockWait = time.Second

// ErrInUse means that another process has the file of the keys.
var ErrInUse = errors.New("the file of the keys is in use by another process")

var (
	errDamaged = errors.New("the file of the keys is damaged")
	errFormat  = errors.New("the file holds no keys, or those of another version of sluice")
	errEmpty   = errors.New("the file is new")
)

// OpenBolt opens or makes the file of a single node. It is read whole once. A damaged file
// is moved aside, to its name with ".damaged-" and the time, which is logged as an error,
// and a new one is begun: without keys at the start, so that none which was revoked comes
// back; with those of the copy when damage shows later. A file that another process uses, or
// whose keys are for another pepper (ErrPepper), is an error.
func OpenBolt(path string, o Options) (*Store, error) {
	s, err := newStore(o)
	if err != nil {
		return nil, err
	}
	b := &boltShelf{path: path, print: s.o.Pepper.Fingerprint(), now: s.o.Now, log: s.log, all: s.stored}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if b.db, err = b.open(); errors.Is(err, errDamaged) {
		b.db, err = b.openNew(err)
	}
	if err != nil {
		return nil, err
	}
	s.shelf, s.attic = &boltReader{b}, b
	if err := s.sync(context.Background()); err != nil {
		return nil, errors.Join(err, b.close())
	}
	s.start()
	return s, nil
}

// stored visits the copy.
func (s *Store) stored(visit func(id auth.KeyID, text []byte)) {
	s.copy.all(func(id auth.KeyID, e *entry) {
		if text, err := e.key.Load().encode(); err == nil {
			visit(id, text)
		}
	})
}

// open opens the file and looks through it.
func (b *boltShelf) open() (db *bolt.DB, err error) {
	var file *os.File
	err = guarded(func() error {
		db, err = bolt.Open(b.path, 0o600, &bolt.Options{
			Timeout: lockWait, FreelistType: bolt.FreelistMapType, NoStatistics: true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				file, err = os.OpenFile(name, flag, mode)
				return file, err
			},
		})
		if err != nil {
			return openError(b.path, err)
		}
		if err := fullLength(db); err != nil {
			return err
		}
		if err := db.View(b.check); !errors.Is(err, errEmpty) {
			return err
		}
		return db.Update(b.begin)
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
		return fmt.Errorf("%w: %s", ErrInUse, path)
	case errors.As(err, &sys), errors.As(err, &file):
		return fmt.Errorf("open the store of the keys: %w", err)
	default:
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
}

// fullLength checks that the file is as long as it says.
func fullLength(db *bolt.DB) error {
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

// begin fills a new file.
func (b *boltShelf) begin(tx *bolt.Tx) (err error) {
	for _, name := range buckets {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	b.all(func(id auth.KeyID, text []byte) {
		err = errors.Join(err, tx.Bucket(bucketKeys).Put(id[:], seal(text)))
	})
	meta := tx.Bucket(bucketMeta)
	return errors.Join(err, meta.Put(metaFormat, fileFormat), meta.Put(metaPepper, []byte(b.print)))
}

// check reads everything, so that damage shows now.
func (b *boltShelf) check(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	switch {
	case meta == nil:
		if name, _ := tx.Cursor().First(); name != nil {
			return fmt.Errorf("%w: it holds %q", errFormat, name)
		}
		return errEmpty
	case !bytes.Equal(meta.Get(metaFormat), fileFormat):
		return fmt.Errorf("%w: %s", errFormat, b.path)
	case string(meta.Get(metaPepper)) != b.print:
		return fmt.Errorf("%w: %s", ErrPepper, b.path)
	}
	for _, name := range buckets {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: bucket %q is missing", errDamaged, name)
		}
	}
	if err := tx.Bucket(bucketUsed).ForEach(func(_, _ []byte) error { return nil }); err != nil {
		return err
	}
	return tx.Bucket(bucketKeys).ForEach(func(_, v []byte) error {
		_, err := unseal(v)
		return err
	})
}

func seal(text []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(text)), sumOf(text)), text...)
}

func unseal(v []byte) ([]byte, error) {
	if len(v) < 4 || binary.BigEndian.Uint32(v) != sumOf(v[4:]) {
		return nil, fmt.Errorf("%w: a key is not what was written", errDamaged)
	}
	return v[4:], nil
}

// openNew moves the file aside and begins a new one.
func (b *boltShelf) openNew(cause error) (*bolt.DB, error) {
	aside := b.path + ".damaged-" + b.now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(b.path, aside); err != nil {
		return nil, fmt.Errorf("move a damaged file of keys aside: %w", err)
	}
	b.log.Error("the file of the keys is damaged and was moved aside; a new one is begun", "error", cause, "file", b.path, "aside", aside)
	return b.open()
}

// replace begins a new file if db is still the one in use.
func (b *boltShelf) replace(db *bolt.DB, cause error) error {
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
