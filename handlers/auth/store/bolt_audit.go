package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"

	"sluice/handlers/auth"
)

// bucketAudit has entries by their number, 8 bytes, big endian; numbers leave no gaps, since only
// the oldest entries go. It is made when it is first needed.
var bucketAudit = []byte("audit")

// auditAtOnce is how many old entries go with each new one, at most.
const auditAtOnce = 100

func (b *boltShelf) appendAudit(_ context.Context, text []byte, entries int, keep time.Duration) (id string, err error) {
	err = b.use(func(db *bolt.DB) error {
		return db.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists(bucketAudit)
			if err != nil {
				return err
			}
			n, err := bucket.NextSequence()
			if err != nil {
				return err
			}
			id = strconv.FormatUint(n, 10)
			if err := thinAudit(bucket, n, entries, b.now().Add(-keep)); err != nil {
				return err
			}
			return bucket.Put(binary.BigEndian.AppendUint64(nil, n), seal(text))
		})
	})
	return id, err
}

// thinAudit drops what is too much or too old before the entry n is added.
func thinAudit(bucket *bolt.Bucket, n uint64, entries int, since time.Time) error {
	var over [][]byte
	c := bucket.Cursor()
	for k, v := c.First(); k != nil && len(over) < auditAtOnce; k, v = c.Next() {
		if len(k) == 8 && binary.BigEndian.Uint64(k)+uint64(entries) > n && !auditBefore(v, since) {
			break
		}
		over = append(over, append([]byte(nil), k...))
	}
	for _, k := range over {
		if err := bucket.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// auditBefore reports whether an entry is older; one that cannot be read stays until there
// are too many.
func auditBefore(v []byte, since time.Time) bool {
	var e struct {
		At time.Time `json:"at"`
	}
	text, err := unseal(v)
	return err == nil && json.Unmarshal(text, &e) == nil && e.At.Before(since)
}

func (b *boltShelf) readAudit(_ context.Context, before string, limit int, visit func(id string, text []byte) bool) error {
	from := ^uint64(0)
	if before != "" {
		var err error
		if from, err = strconv.ParseUint(before, 10, 64); err != nil {
			return auth.ErrCursor
		}
	}
	return b.use(func(db *bolt.DB) error {
		return db.View(func(tx *bolt.Tx) error {
			bucket := tx.Bucket(bucketAudit)
			if bucket == nil {
				return nil
			}
			c := bucket.Cursor()
			k, v := c.Seek(binary.BigEndian.AppendUint64(nil, from))
			if k == nil {
				k, v = c.Last()
			}
			if k != nil && before != "" && binary.BigEndian.Uint64(k) >= from {
				k, v = c.Prev()
			}
			for ; k != nil && limit > 0; k, v = c.Prev() {
				limit--
				text, _ := unseal(v) // one that cannot be read is told as such
				if !visit(strconv.FormatUint(binary.BigEndian.Uint64(k), 10), text) {
					return nil
				}
			}
			return nil
		})
	})
}
