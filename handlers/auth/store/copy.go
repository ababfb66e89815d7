package store

import (
	"bytes"
	"cmp"
	"hash/crc32"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/handlers/auth"
)

// entry is one key of the local copy; it stays while its key changes.
type entry struct {
	key  atomic.Pointer[Key]
	used atomic.Int64 // Unix minutes of the last use seen here; 0: none

	// Of the store's goroutine, with Store.mu held:
	sum     uint32 // of the stored form
	told    int64  // the minute that was handed on
	dead    bool   // everybody knows that no secret is in force
	oldest  uint32 // serial of the oldest secret that was in force
	pending time.Time
}

const shards = 64

// keyCopy is the local copy of all keys. get may be called concurrently with everything.
type keyCopy struct {
	shards [shards]struct {
		sync.RWMutex
		byID map[auth.KeyID]*entry
		_    [64]byte // so that cores do not wait for each other's lock
	}
	count atomic.Int64

	ordering sync.Mutex
	order    []*Key // newest first; nil when it is to be made again
	stale    bool
}

func newKeyCopy() *keyCopy {
	c := &keyCopy{stale: true}
	for i := range c.shards {
		c.shards[i].byID = map[auth.KeyID]*entry{}
	}
	return c
}

func shardOf(id *auth.KeyID) int { return int(id[0]^id[5]<<1^id[11]<<2) % shards }

// get is nil when there is no such key.
func (c *keyCopy) get(id auth.KeyID) *entry {
	s := &c.shards[shardOf(&id)]
	s.RLock()
	e := s.byID[id]
	s.RUnlock()
	return e
}

// set puts the key in and returns its entry and the key that was there.
func (c *keyCopy) set(k *Key) (e *entry, was *Key) {
	s := &c.shards[shardOf(&k.ID)]
	s.Lock()
	if e = s.byID[k.ID]; e == nil {
		e = new(entry)
		s.byID[k.ID] = e
		c.count.Add(1)
	}
	was = e.key.Swap(k)
	s.Unlock()
	c.changed()
	return e, was
}

func (c *keyCopy) drop(id auth.KeyID) {
	s := &c.shards[shardOf(&id)]
	s.Lock()
	if _, ok := s.byID[id]; ok {
		delete(s.byID, id)
		c.count.Add(-1)
	}
	s.Unlock()
	c.changed()
}

func (c *keyCopy) changed() {
	c.ordering.Lock()
	c.stale = true
	c.ordering.Unlock()
}

// all calls f for every entry, a shard at a time; f must not change the copy.
func (c *keyCopy) all(f func(auth.KeyID, *entry)) {
	for i := range c.shards {
		s := &c.shards[i]
		s.RLock()
		for id, e := range s.byID {
			f(id, e)
		}
		s.RUnlock()
	}
}

// ordered are all keys, the newest first. It is read only.
func (c *keyCopy) ordered() []*Key {
	c.ordering.Lock()
	defer c.ordering.Unlock()
	if !c.stale {
		return c.order
	}
	c.stale = false // before the keys are read: what comes meanwhile sets it again
	keys := make([]*Key, 0, c.count.Load())
	c.all(func(_ auth.KeyID, e *entry) { keys = append(keys, e.key.Load()) })
	slices.SortFunc(keys, func(a, b *Key) int { return place(a.Created, a.ID, b.Created, b.ID) })
	c.order = keys
	return keys
}

// place orders keys from the newest to the oldest, and by id.
func place(at time.Time, a auth.KeyID, bt time.Time, b auth.KeyID) int {
	return cmp.Or(bt.Compare(at), bytes.Compare(a[:], b[:]))
}

func sumOf(text []byte) uint32 { return crc32.Checksum(text, castagnoli) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
