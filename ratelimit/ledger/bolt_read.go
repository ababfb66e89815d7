package ledger

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"time"

	bolt "go.etcd.io/bbolt"
)

// slack is how far the clock may have gone back for a reader to still find every row.
const slack = time.Hour

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
		var rows []Row
		c := tx.Bucket(bucketRows).Cursor()
		for k, v := lastBefore(c, upTo); k != nil; k, v = c.Prev() {
			var err error
			if rows, err = readRows(rows[:0], v); err != nil || len(k) != 8 {
				return errDamaged
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			first := binary.BigEndian.Uint64(k)
			for i := int(min(uint64(len(rows)), upTo-first)) - 1; i >= 0; i-- {
				r := rows[i]
				if r.Posted.Before(f.Since.Add(-slack)) || f.row(&r) && page.full(&f, r, first+uint64(i)+1) {
					return nil
				}
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

// groupEnd is the number after the last row of a group.
func groupEnd(k, v []byte) (uint64, error) {
	if len(k) != 8 || len(v) < 6 {
		return 0, errDamaged
	}
	return binary.BigEndian.Uint64(k) + uint64(binary.BigEndian.Uint16(v[4:])), nil
}

// readRows appends the rows of a group.
func readRows(dst []Row, v []byte) ([]Row, error) {
	body, err := unseal(v)
	if err != nil || len(body) < 10 {
		return nil, errDamaged
	}
	count, in := int(binary.BigEndian.Uint16(body)), reader{data: body[10:]}
	for range count {
		if len(in.data) < 8 {
			return nil, errDamaged
		}
		posted := int64(binary.BigEndian.Uint64(in.data))
		in.data = in.data[8:]
		r, err := decode(in.bytes())
		if err != nil {
			return nil, errDamaged
		}
		r.Posted = time.UnixMicro(posted).UTC()
		dst = append(dst, r)
	}
	if in.failed || len(in.data) > 0 {
		return nil, errDamaged
	}
	return dst, nil
}

// readIDs tells the ids of a group.
func readIDs(v []byte, tell func(id []byte)) error {
	body, err := unseal(v)
	if err != nil || len(body) < 2 {
		return errDamaged
	}
	in := reader{data: body[2:]}
	for range int(binary.BigEndian.Uint16(body)) {
		id := in.bytes()
		if in.failed {
			return errDamaged
		}
		tell(id)
	}
	return nil
}

func readSum(k, v []byte) (hour int64, org string, n name, a amounts, err error) {
	hour, a, err = readAmounts(k, v)
	if err != nil {
		return 0, "", name{}, a, err
	}
	org, n, err = decodeSumKey(string(k[4:]))
	if err != nil {
		return 0, "", name{}, a, errDamaged
	}
	return hour, org, n, a, nil
}

func readAmounts(k, v []byte) (hour int64, a amounts, err error) {
	body, err := unseal(v)
	if err != nil || len(k) < 4 || len(body) != amountBytes {
		return 0, a, errDamaged
	}
	a.read(body)
	return int64(binary.BigEndian.Uint32(k)), a, nil
}

func hourKey(hour int64) []byte { return binary.BigEndian.AppendUint32(nil, hourNumber(hour)) }

func hourNumber(hour int64) uint32 { return uint32(min(max(hour, 0), 1<<32-1)) }

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
