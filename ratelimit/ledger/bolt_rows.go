package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"time"

	bolt "go.etcd.io/bbolt"
)

// dropAtOnce bounds what one write drops of old rows, ids and sums, beside as much as it adds.
const dropAtOnce = 4_096

// slack is how far the clock may have gone back for a reader to still find every row.
const slack = time.Hour

// commit writes a batch in one transaction. After an error nothing of it counts as
// written; the same batch is then tried again.
func (b *Bolt) commit(batch *batch) error {
	db, err := b.attempt(batch)
	if !errors.Is(err, errDamaged) {
		return err
	}
	if err := b.replace(db, err); err != nil {
		return err
	}
	_, err = b.attempt(batch)
	return err
}

func (b *Bolt) attempt(batch *batch) (*bolt.DB, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	w := writing{Bolt: b, fresh: map[string]struct{}{}, number: b.next, names: maps.Clone(b.names)}
	err := guarded(func() error {
		return b.db.Update(func(tx *bolt.Tx) error { return w.all(tx, batch) })
	})
	if err != nil {
		return b.db, err
	}
	for id := range w.fresh {
		b.seen.add(id)
	}
	b.next, b.names = w.number, w.names
	return b.db, nil
}

// writing is one transaction of the writer.
type writing struct {
	*Bolt
	fresh           map[string]struct{} // ids of the batch
	number          uint64              // of the row to come
	names           map[int64]int
	rows, ids, sums *bolt.Bucket
}

func (w *writing) all(tx *bolt.Tx, batch *batch) error {
	w.rows, w.ids, w.sums = tx.Bucket(bucketRows), tx.Bucket(bucketIDs), tx.Bucket(bucketSums)
	w.rows.FillPercent, w.ids.FillPercent = 1, 1 // they only grow at the end
	if last, _ := w.ids.Cursor().Last(); last != nil && binary.BigEndian.Uint64(last) >= w.number {
		return w.written(batch, binary.BigEndian.Uint64(last)+1)
	}
	for i := range batch.len() {
		if err := w.row(batch.row(i), batch.posted[i]); err != nil {
			return err
		}
	}
	return w.expire(batch.len())
}

// written accepts that the last try is in the file, although it ended in an error.
func (w *writing) written(batch *batch, next uint64) error {
	w.number = next
	clear(w.names)
	for i := range batch.len() {
		r, err := decode(batch.row(i))
		if err != nil {
			return err
		}
		w.isNew(r.ID)
	}
	return nil
}

func (w *writing) row(data []byte, posted int64) error {
	r, err := decode(data)
	if err != nil {
		return err
	}
	if !w.isNew(r.ID) {
		return nil
	}
	key := binary.BigEndian.AppendUint64(nil, w.number)
	w.number++
	value := binary.BigEndian.AppendUint64(make([]byte, 4, 12+len(data)), uint64(posted))
	if err := w.rows.Put(key, seal(append(value, data...))); err != nil {
		return err
	}
	if err := w.ids.Put(key, seal(append(make([]byte, 4), r.ID...))); err != nil {
		return err
	}
	return w.sum(hourOf(time.UnixMicro(posted)), &r)
}

func (w *writing) isNew(id string) bool {
	if id == "" {
		return true
	}
	if _, again := w.fresh[id]; again || w.seen.has(id) {
		return false
	}
	w.fresh[id] = struct{}{}
	return true
}

// sum adds the row to its hourly sum.
func (w *writing) sum(hour int64, r *Row) error {
	a, n := r.amounts(), r.name()
	short := appendTexts(nil, n.key, n.user, n.team)
	org := appendTexts(nil, r.Org)
	var key, old []byte
	for i, name := range [...][]byte{n.append(nil), short, nil} {
		key = append(append(hourKey(hour), org...), name...)
		if old = w.sums.Get(key); old != nil || w.held(hour) < (i+1)*w.keep.Names {
			return w.addSum(hour, key, old, a)
		}
	}
	key = append(hourKey(hour), allOthers...)
	return w.addSum(hour, key, w.sums.Get(key), a)
}

func (w *writing) addSum(hour int64, key, old []byte, a amounts) error {
	if old != nil {
		_, _, _, before, err := readSum(key, old)
		if err != nil {
			return err
		}
		a.add(&before)
	} else {
		w.names[hour] = w.held(hour) + 1
	}
	return w.sums.Put(key, seal(a.append(make([]byte, 4))))
}

// held is how many sums the hour has. Two hours are remembered.
func (w *writing) held(hour int64) int {
	if n, ok := w.names[hour]; ok {
		return n
	}
	if len(w.names) > 1 {
		clear(w.names)
	}
	n := 0
	c := w.sums.Cursor()
	for k, _ := c.Seek(hourKey(hour)); len(k) >= 4 && int64(binary.BigEndian.Uint32(k)) == hour; k, _ = c.Next() {
		n++
	}
	w.names[hour] = n
	return n
}

// expire drops what is too many or too old.
func (w *writing) expire(added int) error {
	limit := added + dropAtOnce
	oldest := w.now().Add(-w.keep.RowAge).UnixMicro()
	err := dropFirst(w.rows, limit, func(k, v []byte) bool {
		return w.number-binary.BigEndian.Uint64(k) > uint64(w.keep.Rows) || len(v) >= 12 && int64(binary.BigEndian.Uint64(v[4:])) < oldest
	})
	if err != nil {
		return err
	}
	err = dropFirst(w.ids, limit, func(k, _ []byte) bool {
		return w.number-binary.BigEndian.Uint64(k) > uint64(w.seen.limit)
	})
	if err != nil {
		return err
	}
	hour := hourOf(w.now()) - int64(w.keep.SumAge/time.Hour)
	return dropFirst(w.sums, limit, func(k, _ []byte) bool { return int64(binary.BigEndian.Uint32(k)) < hour })
}

func dropFirst(from *bolt.Bucket, limit int, old func(k, v []byte) bool) error {
	c := from.Cursor()
	for k, v := c.First(); k != nil && limit > 0 && old(k, v); k, v = c.First() {
		if err := c.Delete(); err != nil {
			return err
		}
		limit--
	}
	return nil
}

// Rows reads rows, newest first. Errors are those of ctx, wrap ErrQuery or mean a damaged file.
func (b *Bolt) Rows(ctx context.Context, f Filter) (Page, error) {
	f = f.normal()
	upTo, err := readCursor(f.Cursor)
	if err != nil {
		return Page{}, err
	}
	if limit := b.now().Add(-b.keep.RowAge); f.Since.Before(limit) {
		f.Since = limit
	}
	var page Page
	err = b.view(ctx, func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketRows).Cursor()
		for k, v := lastBefore(c, upTo); k != nil; k, v = c.Prev() {
			row, err := readRow(v)
			if err := errors.Join(ctx.Err(), err); err != nil {
				return err
			}
			if row.Posted.Before(f.Since.Add(-slack)) || f.row(&row) && page.full(&f, row, binary.BigEndian.Uint64(k)+1) {
				break
			}
		}
		return nil
	})
	if err != nil {
		return Page{}, err
	}
	return page, nil
}

func lastBefore(c *bolt.Cursor, n uint64) (k, v []byte) {
	if k, _ := c.Seek(binary.BigEndian.AppendUint64(nil, n)); k == nil {
		return c.Last()
	}
	return c.Prev()
}

func readRow(v []byte) (Row, error) {
	body, err := unseal(v)
	if err != nil || len(body) < 8 {
		return Row{}, errDamaged
	}
	r, err := decode(body[8:])
	if err != nil {
		return Row{}, errDamaged
	}
	r.Posted = time.UnixMicro(int64(binary.BigEndian.Uint64(body))).UTC()
	return r, nil
}

func readSum(k, v []byte) (hour int64, org string, n name, a amounts, err error) {
	body, err := unseal(v)
	if err != nil || len(k) < 4 || len(body) != amountBytes {
		return 0, "", name{}, a, errDamaged
	}
	org, n, err = decodeSumKey(string(k[4:]))
	if err != nil {
		return 0, "", name{}, a, errDamaged
	}
	a.read(body)
	return int64(binary.BigEndian.Uint32(k)), org, n, a, nil
}

func hourKey(hour int64) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(min(max(hour, 0), 1<<32-1)))
}

// seal writes the checksum into the first four bytes, which were kept free for it.
func seal(v []byte) []byte {
	binary.BigEndian.PutUint32(v, crc32.Checksum(v[4:], castagnoli))
	return v
}

func unseal(v []byte) ([]byte, error) {
	if len(v) < 4 || binary.BigEndian.Uint32(v) != crc32.Checksum(v[4:], castagnoli) {
		return nil, errDamaged
	}
	return v[4:], nil
}
