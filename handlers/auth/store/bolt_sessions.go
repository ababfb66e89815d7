package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"time"

	bolt "go.etcd.io/bbolt"

	"sluice/handlers/auth"
)

// bucketSessions has sessions by their id: when they end, in Unix milliseconds of 8 bytes, big
// endian, and the rest as JSON. It is made when it is first needed.
var bucketSessions = []byte("sessions")

// sessionsKept bounds the sessions of a file, a few megabytes; beyond it those that end
// first go.
const sessionsKept = 10_000

// heldSession is what is looked at to keep the sessions few.
type heldSession struct {
	id     []byte
	until  int64
	opened time.Time
	holder string
}

func putSession(b *bolt.Bucket, id auth.SessionID, text []byte, until time.Time) error {
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(text)), uint64(until.UnixMilli()))
	return b.Put(id[:], seal(append(v, text...)))
}

// readSession splits what putSession wrote; ok is false for anything else, which is no session.
func readSession(v []byte) (text []byte, until int64, ok bool) {
	v, err := unseal(v)
	if err != nil || len(v) < 8 {
		return nil, 0, false
	}
	return v[8:], int64(binary.BigEndian.Uint64(v)), true
}

func (b *boltShelf) openSession(_ context.Context, id auth.SessionID, holder string, text []byte, until time.Time) error {
	return b.use(func(db *bolt.DB) error {
		return db.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists(bucketSessions)
			if err != nil {
				return err
			}
			if err := b.thinSessions(bucket, holder); err != nil {
				return err
			}
			return putSession(bucket, id, text, until)
		})
	})
}

// thinSessions makes room for one more.
func (b *boltShelf) thinSessions(bucket *bolt.Bucket, holder string) error {
	now := b.now().UnixMilli()
	var over [][]byte
	var first, oldest *heldSession // to go when there are too many: of all, of the holder
	all, own := 0, 0
	err := bucket.ForEach(func(k, v []byte) error {
		text, until, ok := readSession(v)
		var s auth.Session
		if len(k) != len(auth.SessionID{}) || !ok || until <= now || json.Unmarshal(text, &s) != nil {
			over = append(over, bytes.Clone(k))
			return nil
		}
		h := &heldSession{bytes.Clone(k), until, s.Opened, holderOf(&s)}
		if all++; first == nil || h.until < first.until {
			first = h
		}
		if h.holder == holder {
			if own++; oldest == nil || h.opened.Before(oldest.opened) {
				oldest = h
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if own >= auth.MaxSessions {
		over = append(over, oldest.id)
	} else if all >= sessionsKept {
		over = append(over, first.id)
	}
	for _, id := range over {
		if err := bucket.Delete(id); err != nil {
			return err
		}
	}
	return nil
}

func (b *boltShelf) findSession(_ context.Context, id auth.SessionID) (text []byte, err error) {
	err = b.use(func(db *bolt.DB) error {
		return db.View(func(tx *bolt.Tx) error {
			if found, _, ok := liveSession(tx, id, b.now()); ok {
				text = bytes.Clone(found)
			}
			return nil
		})
	})
	return text, err
}

// liveSession finds one that has not ended; the text is valid as long as the transaction.
func liveSession(tx *bolt.Tx, id auth.SessionID, now time.Time) (text []byte, until int64, ok bool) {
	bucket := tx.Bucket(bucketSessions)
	if bucket == nil {
		return nil, 0, false
	}
	text, until, ok = readSession(bucket.Get(id[:]))
	return text, until, ok && until > now.UnixMilli()
}

func (b *boltShelf) touchSession(_ context.Context, id auth.SessionID, text []byte, until time.Time) (found bool, err error) {
	err = b.use(func(db *bolt.DB) error {
		return db.Update(func(tx *bolt.Tx) error {
			if _, _, found = liveSession(tx, id, b.now()); !found {
				return nil
			}
			return putSession(tx.Bucket(bucketSessions), id, text, until)
		})
	})
	return found, err
}

func (b *boltShelf) endSession(_ context.Context, id auth.SessionID) error {
	return b.use(func(db *bolt.DB) error {
		return db.Update(func(tx *bolt.Tx) error {
			if bucket := tx.Bucket(bucketSessions); bucket != nil {
				return bucket.Delete(id[:])
			}
			return nil
		})
	})
}
