package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"sluice/handlers/auth"
)

// boltReader is the shelf's side of a file.
type boltReader struct{ *boltShelf }

// use runs f over the file. One that turns out damaged is replaced by a new one with what the
// copy holds, and f runs again over that.
func (b *boltShelf) use(f func(db *bolt.DB) error) error {
	for try := 0; ; try++ {
		b.mu.RLock()
		db := b.db
		if db == nil {
			b.mu.RUnlock()
			return errors.New("the store of the keys is closed")
		}
		err := guarded(func() error { return f(db) })
		b.mu.RUnlock()
		if !errors.Is(err, errDamaged) || try > 0 {
			return err
		}
		if err := b.replace(db, err); err != nil {
			return err
		}
	}
}

// write does all edits in one transaction; those that conflict are left out of it.
func (b *boltReader) write(ctx context.Context, edits []edit) []error {
	errs := make([]error, len(edits))
	err := ctx.Err()
	if err == nil {
		err = b.use(func(db *bolt.DB) error {
			return db.Update(func(tx *bolt.Tx) error {
				for i := range edits {
					errs[i] = putEdit(tx.Bucket(bucketKeys), &edits[i])
					if errs[i] != nil && !errors.Is(errs[i], ErrConflict) {
						return errs[i]
					}
				}
				return nil
			})
		})
	}
	if err != nil {
		for i := range errs {
			errs[i] = fmt.Errorf("write a key: %w", err)
		}
	}
	return errs
}

func putEdit(b *bolt.Bucket, e *edit) error {
	var have struct {
		Version uint64 `json:"version"`
	}
	if v := b.Get(e.id[:]); v != nil {
		text, err := unseal(v)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &have); err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	if have.Version != e.was {
		return ErrConflict
	}
	return b.Put(e.id[:], seal(e.text))
}

// read visits everything, once: later the copy is ahead of the file.
func (b *boltReader) read(_ context.Context, visit func(text []byte, whole bool)) (bool, error) {
	return true, b.use(func(db *bolt.DB) error {
		return db.View(func(tx *bolt.Tx) error {
			return tx.Bucket(bucketKeys).ForEach(func(_, v []byte) error {
				text, err := unseal(v)
				if err == nil {
					visit(text, true)
				}
				return err
			})
		})
	})
}

func (b *boltReader) close() error { return b.boltShelf.close() }

func (b *boltShelf) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	db := b.db
	b.db = nil
	if db == nil {
		return nil
	}
	return guarded(db.Close)
}

func (b *boltShelf) purge(_ context.Context, ids []auth.KeyID) error {
	return b.use(func(db *bolt.DB) error {
		return db.Update(func(tx *bolt.Tx) error {
			for _, id := range ids {
				if err := errors.Join(tx.Bucket(bucketKeys).Delete(id[:]), tx.Bucket(bucketUsed).Delete(id[:])); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (b *boltShelf) touch(_ context.Context, used map[auth.KeyID]int64) error {
	return b.use(func(db *bolt.DB) error {
		return db.Update(func(tx *bolt.Tx) error {
			bucket := tx.Bucket(bucketUsed)
			for id, at := range used {
				if err := bucket.Put(id[:], binary.BigEndian.AppendUint64(nil, uint64(at))); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (b *boltShelf) touched(_ context.Context, ids []auth.KeyID) ([]int64, error) {
	used := make([]int64, len(ids))
	err := b.use(func(db *bolt.DB) error {
		return db.View(func(tx *bolt.Tx) error {
			for i, id := range ids {
				if v := tx.Bucket(bucketUsed).Get(id[:]); len(v) == 8 {
					used[i] = int64(binary.BigEndian.Uint64(v))
				}
			}
			return nil
		})
	})
	return used, err
}
