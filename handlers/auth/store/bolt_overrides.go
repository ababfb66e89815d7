package store

import (
	"bytes"
	"context"

	bolt "go.etcd.io/bbolt"
)

// bucketBoard has the overrides of the configuration as one text. It is made when it is first
// needed.
var (
	bucketBoard = []byte("overrides")
	boardSet    = []byte("set")
)

func (b *boltShelf) readBoard(_ context.Context, tag string) (text []byte, same bool, err error) {
	err = b.use(func(db *bolt.DB) error {
		return db.View(func(tx *bolt.Tx) error {
			text, err = boardText(tx)
			return err
		})
	})
	if err != nil || text == nil {
		return nil, false, err
	}
	set, err := decodeOverrides(text)
	return text, err == nil && set.tag == tag, err
}

// boardText is nil when there is none.
func boardText(tx *bolt.Tx) ([]byte, error) {
	bucket := tx.Bucket(bucketBoard)
	if bucket == nil {
		return nil, nil
	}
	v := bucket.Get(boardSet)
	if v == nil {
		return nil, nil
	}
	text, err := unseal(v)
	return bytes.Clone(text), err
}

func (b *boltShelf) writeBoard(_ context.Context, was, _ uint64, _ string, text []byte) error {
	return b.use(func(db *bolt.DB) error {
		return db.Update(func(tx *bolt.Tx) error {
			old, err := boardText(tx)
			if err != nil {
				return err
			}
			have, err := decodeOverrides(old)
			if err != nil {
				return err
			}
			if have.Version != was {
				return ErrConflict
			}
			bucket, err := tx.CreateBucketIfNotExists(bucketBoard)
			if err != nil {
				return err
			}
			return bucket.Put(boardSet, seal(text))
		})
	})
}
