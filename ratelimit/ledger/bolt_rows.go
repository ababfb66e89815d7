package ledger

import (
	"encoding/binary"
	"errors"
	"maps"
	"time"

	bolt "go.etcd.io/bbolt"
)

// dropAtOnce bounds what one write drops of old rows, ids and sums, beside as much as it adds.
const dropAtOnce = 4_096

// groupRows bounds the rows that are one value.
const groupRows = 64

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
	w := &b.writing
	w.begin(b)
	err := guarded(func() error {
		return b.db.Update(func(tx *bolt.Tx) error { return w.all(tx, batch) })
	})
	if err != nil {
		return b.db, err
	}
	for _, h := range w.ids {
		b.seen.addHash(h)
	}
	b.next, b.names = w.number, w.names
	return b.db, nil
}

// writing is one transaction of the writer. Its memory is used again by the next one.
type writing struct {
	*Bolt
	number uint64 // of the row to come
	names  map[int64]int

	fresh hashSet        // of the ids of the batch
	ids   []hash128      // the same
	added map[string]int // by hour, organisation and name: index in sums
	sums  []newSum       // of the batch, in order of their first rows
	key   []byte
	arena []byte // values that the transaction still needs

	inRows, inIDs, inSums *bolt.Bucket
}

// newSum is what a batch adds to a sum.
type newSum struct {
	amounts
	key   string
	short int // bytes of key that are for all models and targets together
}

func (w *writing) begin(b *Bolt) {
	const keep = 1 << 18
	if cap(w.arena) > keep || len(w.fresh.slots) > keep/16 || w.added == nil {
		*w = writing{added: map[string]int{}}
	}
	w.Bolt, w.number, w.names = b, b.next, maps.Clone(b.names)
	w.fresh.clear()
	clear(w.added)
	clear(w.sums)
	w.ids, w.sums, w.arena = w.ids[:0], w.sums[:0], w.arena[:0]
}

func (w *writing) all(tx *bolt.Tx, batch *batch) error {
	w.inRows, w.inIDs, w.inSums = tx.Bucket(bucketRows), tx.Bucket(bucketIDs), tx.Bucket(bucketSums)
	w.inRows.FillPercent, w.inIDs.FillPercent = 1, 1 // they only grow at the end
	if k, v := w.inIDs.Cursor().Last(); k != nil {
		end, err := groupEnd(k, v)
		if err != nil {
			return err
		}
		if end > w.number {
			return w.written(batch, end)
		}
	}
	var rows []int // of one group
	most := min(groupRows, max(1, w.keep.Rows/4))
	for i := range batch.len() {
		isNew, err := w.count(batch.row(i), batch.posted[i])
		if err != nil {
			return err
		}
		if isNew {
			rows = append(rows, i)
		}
		if len(rows) == most || i == batch.len()-1 && len(rows) > 0 {
			if err := w.group(batch, rows); err != nil {
				return err
			}
			rows = rows[:0]
		}
	}
	for i := range w.sums {
		if err := w.sum(&w.sums[i]); err != nil {
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
		head, err := readHead(batch.row(i))
		if err != nil {
			return err
		}
		w.isNew(head.id)
	}
	return nil
}

// count adds a row to the sums of the batch. It reports whether its id is new.
func (w *writing) count(data []byte, posted int64) (bool, error) {
	head, err := readHead(data)
	if err != nil || !w.isNew(head.id) {
		return false, err
	}
	w.key = binary.BigEndian.AppendUint32(w.key[:0], hourNumber(hourOf(time.UnixMicro(posted))))
	w.key = append(w.key, head.org...)
	short := len(w.key) + head.short
	w.key = append(w.key, head.name...)
	i, ok := w.added[string(w.key)]
	if !ok {
		i = len(w.sums)
		w.sums = append(w.sums, newSum{key: string(w.key), short: short})
		w.added[w.sums[i].key] = i
	}
	var a amounts
	a.read(data[1:])
	w.sums[i].add(&a)
	return true, nil
}

func (w *writing) isNew(id []byte) bool {
	if len(id) == 0 {
		return true
	}
	h := w.seen.hash(id)
	if w.seen.has(h) || !w.fresh.add(h) {
		return false
	}
	w.ids = append(w.ids, h)
	return true
}

// group writes rows of the batch as one value, and their ids as another.
func (w *writing) group(batch *batch, rows []int) error {
	key := binary.BigEndian.AppendUint64(nil, w.number)
	w.number += uint64(len(rows))
	newest := uint64(batch.posted[rows[len(rows)-1]])
	start := w.beginGroup(len(rows))
	w.arena = binary.BigEndian.AppendUint64(w.arena, newest)
	for _, i := range rows {
		row := batch.row(i)
		w.arena = binary.BigEndian.AppendUint64(w.arena, uint64(batch.posted[i]))
		w.arena = append(binary.AppendUvarint(w.arena, uint64(len(row))), row...)
	}
	if err := w.inRows.Put(key, w.value(start)); err != nil {
		return err
	}
	start = w.beginGroup(len(rows))
	for _, i := range rows {
		head, err := readHead(batch.row(i))
		if err != nil {
			return err
		}
		w.arena = append(binary.AppendUvarint(w.arena, uint64(len(head.id))), head.id...)
	}
	return w.inIDs.Put(key, w.value(start))
}

// beginGroup begins a value with space for its checksum and with the number of its rows.
func (w *writing) beginGroup(rows int) (start int) {
	start = len(w.arena)
	w.arena = append(w.arena, 0, 0, 0, 0)
	w.arena = binary.BigEndian.AppendUint16(w.arena, uint16(rows))
	return start
}

func (w *writing) value(start int) []byte {
	return seal(w.arena[start:len(w.arena):len(w.arena)])
}

// sum adds what the batch has for one name to its hourly sum.
func (w *writing) sum(s *newSum) error {
	hour := int64(binary.BigEndian.Uint32([]byte(s.key[:4])))
	for i, size := range [...]int{len(s.key), s.short} {
		key := append(w.key[:0], s.key[:size]...)
		w.key = key
		if old := w.inSums.Get(key); old != nil || w.held(hour) < (i+1)*w.keep.Names {
			return w.addSum(hour, key, old, s.amounts)
		}
	}
	w.key = append(append(w.key[:0], s.key[:4]...), allOthers...)
	return w.addSum(hour, w.key, w.inSums.Get(w.key), s.amounts)
}

func (w *writing) addSum(hour int64, key, old []byte, a amounts) error {
	if old != nil {
		_, before, err := readAmounts(key, old)
		if err != nil {
			return err
		}
		a.add(&before)
	} else {
		w.names[hour] = w.held(hour) + 1
	}
	start := len(w.arena)
	w.arena = a.append(append(w.arena, 0, 0, 0, 0))
	return w.inSums.Put(key, w.value(start))
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
	c := w.inSums.Cursor()
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
	beyond := func(k, v []byte, most int) bool {
		end, err := groupEnd(k, v)
		return err == nil && end <= w.number && w.number-end >= uint64(most)
	}
	err := dropFirst(w.inRows, limit, func(k, v []byte) bool {
		return beyond(k, v, w.keep.Rows) || len(v) >= 14 && int64(binary.BigEndian.Uint64(v[6:])) < oldest
	})
	if err != nil {
		return err
	}
	err = dropFirst(w.inIDs, limit, func(k, v []byte) bool { return beyond(k, v, w.seen.limit) })
	if err != nil {
		return err
	}
	hour := hourOf(w.now()) - int64(w.keep.SumAge/time.Hour)
	return dropFirst(w.inSums, limit, func(k, _ []byte) bool { return int64(binary.BigEndian.Uint32(k)) < hour })
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
