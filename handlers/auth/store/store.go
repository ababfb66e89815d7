// Package store keeps the API keys that the gateway issues: what each may do, and how a
// secret is known without being kept. It knows nothing of requests, of who may edit keys,
// or of what an answer is.
//
// Every replica has a copy of all keys in memory, so that looking one up waits for
// nobody. Edits go to the shelf (a bbolt file of one process, or Redis for many) and are
// in force in every copy within a second; those who asked are told of secrets that are
// no longer good.
package store

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sluice/handlers/auth"
)

var (
	// ErrUnknown means that there is no such key, or that its secret is another one.
	ErrUnknown = auth.ErrUnknown
	// ErrDisabled and ErrExpired are told to who has the right secret only.
	ErrDisabled = auth.ErrDisabled
	ErrExpired  = auth.ErrExpired
	// ErrConflict means that the key was edited since it was read.
	ErrConflict = errors.New("the key was edited meanwhile; read it again")
	// ErrUnavailable means that nobody can tell now: the shelf cannot be reached and the
	// copy is too old for an answer, or an edit could not be written.
	ErrUnavailable = auth.ErrUnavailable
	// ErrPepper means that the shelf's keys are for another pepper.
	ErrPepper = errors.New("the stored keys were made with another pepper: all replicas need the same, and a store needs its own")
	// ErrNewer means a key that a newer version of sluice wrote. It can be deleted.
	ErrNewer = errNewer
	// ErrFull means that there are as many keys as Options.MaxKeys allows.
	ErrFull = errors.New("there are too many keys; delete some")
)

// Options say how a Store works. Only Pepper is needed.
type Options struct {
	Pepper *Pepper
	// KeepDeleted is for how long a deleted key is still named; 0 means 90 days.
	KeepDeleted time.Duration
	// MaxKeys bounds the keys, those deleted included; 0 means 100,000. A key takes 1 to 3 KiB
	// in every replica. Replicas that create at the same time may pass it by a few.
	MaxKeys int
	// MaxStale is for how long keys are good while Redis cannot be reached, so how long a key
	// that is revoked elsewhere may live on here; 0 means an hour, less than 0 means for
	// ever. Beyond it Verify returns ErrUnavailable.
	MaxStale time.Duration
	// Prefix is in front of all keys of Redis; empty means "sluice:".
	Prefix string
	// Now is the time; nil means time.Now.
	Now func() time.Time
	// Log gets warnings; nil means slog.Default. No secret is written to it.
	Log *slog.Logger
}

func (o *Options) setDefaults() error {
	if o.Pepper == nil {
		return errors.New("a store of keys needs a pepper")
	}
	if o.KeepDeleted <= 0 {
		o.KeepDeleted = 90 * 24 * time.Hour
	}
	if o.MaxKeys <= 0 {
		o.MaxKeys = 100_000
	}
	if o.MaxStale == 0 {
		o.MaxStale = time.Hour
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return nil
}

// edit replaces one key.
type edit struct {
	id   auth.KeyID
	was  uint64 // the version that it replaces; 0: there is none yet
	is   uint64 // the version that it makes
	text []byte // the stored form of the new one
}

// shelf is where the keys are. write and read may be called at the same time, read by one
// at a time.
type shelf interface {
	// write does the edits, each as a whole and only if the key's version is as said: its
	// error is ErrConflict otherwise. What it returned nil for is not lost when this process
	// dies.
	write(ctx context.Context, edits []edit) []error
	// read visits the stored forms of what has changed since it was last called without an
	// error, or of everything: then whole is set. A text is valid until visit returns.
	read(ctx context.Context, visit func(text []byte, whole bool)) (whole bool, err error)
	close() error
}

// attic is where things lie that are no edits.
type attic interface {
	// purge forgets keys that are deleted.
	purge(ctx context.Context, ids []auth.KeyID) error
	// touch notes when keys were last used, in Unix minutes, unless a later use is known.
	touch(ctx context.Context, used map[auth.KeyID]int64) error
	// touched returns when keys were last used; 0: never.
	touched(ctx context.Context, ids []auth.KeyID) ([]int64, error)
}

// Store is the keys. All methods may be called concurrently, but Close once and last.
type Store struct {
	o      Options
	log    *slog.Logger
	began  time.Time
	copy   *keyCopy
	decoy  *Key // stands for keys that are unknown
	shelf  shelf
	attic  attic
	remote bool // the shelf can be out of reach

	fresh  atomic.Int64 // when the copy was last known to be whole, since began; 0: never
	level  atomic.Int32 // how old the copy is
	fault  atomic.Pointer[error]
	wake   chan struct{} // something may have changed
	stop   context.CancelFunc
	ended  chan struct{}
	closed sync.WaitGroup

	syncing sync.Mutex // held while the shelf is read

	mu      sync.Mutex // of what follows, and of the changing parts of entries
	moments moments
	revoked []func(Revocation)
}

// How old the copy is.
const (
	fresh  int32 = iota
	late         // somebody may know better: who is not known is not refused for good
	tooOld       // nobody is let in
)

const defaultPrefix = "sluice:"

const (
	lookEvery  = 500 * time.Millisecond // between two looks whether something has changed
	clockEvery = 250 * time.Millisecond // between two looks at the clock
	lateAfter  = 2 * time.Second
	readWithin = 2 * time.Second // one look, unless everything is read
)

// newStore is a store without a shelf.
func newStore(o Options) (*Store, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Store{
		o: o, log: o.Log, began: time.Now(), copy: newKeyCopy(), wake: make(chan struct{}, 1), ended: make(chan struct{}),
		decoy: &Key{secrets: make([]secret, maxSecrets)},
	}
	for i := range s.decoy.secrets {
		_, _ = rand.Read(s.decoy.secrets[i].sum[:])
	}
	s.level.Store(late)
	return s, nil
}

// start begins the store's goroutines.
func (s *Store) start() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.closed.Add(2)
	go func() { defer s.closed.Done(); s.follow(ctx) }()
	go func() { defer s.closed.Done(); s.watchClock(ctx) }()
}

// Close writes down which keys were used, and lets go of the shelf.
func (s *Store) Close() error {
	s.stop()
	s.closed.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), readWithin)
	defer cancel()
	return errors.Join(s.flushUsed(ctx), s.shelf.close())
}

// Lookup finds a key in the copy, be it in force or not; nil when there is none. It does
// not wait and does not allocate.
func (s *Store) Lookup(id auth.KeyID) *Key {
	if e := s.copy.get(id); e != nil {
		return e.key.Load()
	}
	return nil
}

// Verify finds the key that the token is for and notes that it was used. It does not wait
// and does not allocate, and works as much for ids that nobody has.
//
// Errors are ErrUnknown for a wrong id, secret or a deleted key alike; ErrDisabled,
// ErrExpired and ErrNewer for the right secret of a key that is not in force; and ErrUnavailable
// when the copy is too old to say so. serial names the secret, for Good and Revocation.
func (s *Store) Verify(t *auth.Token) (k *Key, serial uint32, err error) {
	sum := s.o.Pepper.sum(t)
	now := s.o.Now()
	e := s.copy.get(t.ID())
	k = s.decoy
	if e != nil {
		k = e.key.Load()
	}
	serial, ok := k.match(&sum, now)
	level := s.level.Load()
	switch {
	case level == tooOld, !ok && level == late:
		return nil, 0, ErrUnavailable
	case !ok || e == nil:
		return nil, 0, ErrUnknown
	}
	if err := k.state(now); err != nil {
		return nil, 0, err
	}
	if minute := now.Unix() / 60; e.used.Load() < minute {
		e.used.Store(minute)
	}
	return k, serial, nil
}

// Good returns nil while what Verify returned is still in force. Who lists running calls
// for OnRevoked asks again after listing one: a revocation in between told nobody.
func (s *Store) Good(id auth.KeyID, serial uint32) error {
	k := s.Lookup(id)
	if k == nil {
		return ErrUnknown
	}
	now := s.o.Now()
	if err := k.state(now); err != nil {
		return err
	}
	for i := range k.secrets {
		if k.secrets[i].serial == serial && k.secrets[i].valid(now) {
			return nil
		}
	}
	return ErrUnknown
}

// State is how a store stands.
type State struct {
	Keys int // in the copy, deleted ones included
	// Age is how long ago the copy was known to be what the shelf holds; 0 for a file.
	Age time.Duration
	// Loaded is set once the copy has been whole.
	Loaded bool
	// Refusing is set when the copy is older than MaxStale.
	Refusing bool
	// Err is why the shelf could not be read last; nil when it could.
	Err error
}

// State may be called at any time.
func (s *Store) State() State {
	st := State{Keys: int(s.copy.count.Load()), Age: s.age(), Loaded: s.fresh.Load() != 0, Refusing: s.level.Load() == tooOld}
	if err := s.fault.Load(); err != nil {
		st.Err = *err
	}
	return st
}

func (s *Store) age() time.Duration {
	if !s.remote {
		return 0
	}
	return time.Since(s.began) - time.Duration(s.fresh.Load())
}
