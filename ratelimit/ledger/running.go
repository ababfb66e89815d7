package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
)

// MaxRunning bounds the rows of a Running file: the queue of a book takes as many at once.
const MaxRunning = 8_000

const (
	runningHead = "sluice running 1\n" // then the checksum of the rest, and for each row: length (uvarint), encoded row
	maxRunning  = 32 << 20             // bytes, which is more than MaxRunning rows can have
	runningNew  = ".new"               // ends the name of a file that is being written
)

// Running is a file beside a book, with a row for each answer that runs, as if it ended now.
// The next process posts those that never came to be posted themselves, once. It is not
// synced: what it is for is a process that is killed, not a machine that fails. It is used by
// one goroutine at a time.
type Running struct {
	path  string
	book  *Bolt
	buf   []byte
	there bool
}

// OpenRunning posts what the file holds and the book does not, and removes it. It returns
// those rows. A file that cannot be read is moved aside, which is logged as an error. It is
// called once, before anything is posted to the book. With an error, rows may be missing.
func (b *Bolt) OpenRunning(ctx context.Context, path string) (r *Running, lost []Row, err error) {
	r = &Running{path: path, book: b}
	_ = os.Remove(path + runningNew) // the writer was killed
	rows, err := ReadRunning(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil, nil
	}
	if err != nil {
		r.setAside(err)
		return r, nil, nil
	}
	r.there = true
	for i := range rows {
		if b.seen.has(b.seen.hash([]byte(rows[i].ID))) {
			continue
		}
		lost = append(lost, rows[i])
	}
	for i := range lost {
		if err := b.Post(ctx, &lost[i]); err != nil {
			return r, lost, err
		}
	}
	return r, lost, r.Keep(ctx, func(func(*Row) bool) {})
}

func (r *Running) setAside(cause error) {
	aside := r.path + ".damaged-" + r.book.now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(r.path, aside); err != nil {
		cause, aside = errors.Join(cause, err), ""
	}
	r.book.log.Error("what ran when the process was killed cannot be read; those answers have no records", "error", cause, "file", r.path, "aside", aside)
}

// Keep replaces what the file says by rows, of which each is valid for one step. Without any
// there is no file. What was posted before rows were read is in the book by then, so that of
// an answer that was ever kept either this file or the book knows. After an error the file
// says what it said before.
func (r *Running) Keep(ctx context.Context, rows iter.Seq[*Row]) error {
	r.buf = append(r.buf[:0], runningHead+"\x00\x00\x00\x00"...)
	n := 0
	for row := range rows {
		if n++; n > MaxRunning {
			return fmt.Errorf("more than %d answers are to be kept", MaxRunning)
		}
		r.buf = appendRunning(r.buf, row)
	}
	if n == 0 && !r.there {
		return nil
	}
	if err := r.book.posted(ctx); err != nil {
		return err
	}
	if n == 0 {
		r.buf = nil
		err := os.Remove(r.path)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		r.there = err != nil
		return err
	}
	seal(r.buf[len(runningHead):])
	if err := os.WriteFile(r.path+runningNew, r.buf, 0o600); err != nil {
		return err
	}
	r.there = true
	return os.Rename(r.path+runningNew, r.path)
}

// posted waits until what was posted before is written.
func (b *Bolt) posted(ctx context.Context) error {
	if err := b.sync(ctx); err != nil {
		return err
	}
	b.queue.mu.Lock()
	defer b.queue.mu.Unlock()
	return b.trouble
}

// appendRunning appends a row with its length, which takes two bytes.
func appendRunning(dst []byte, row *Row) []byte {
	at := len(dst)
	dst = Encode(append(dst, 0, 0), row)
	n := len(dst) - at - 2 // ten texts of 256 bytes and a hundred: less than 1<<14
	dst[at], dst[at+1] = byte(n)|0x80, byte(n>>7)
	return dst
}

// ReadRunning reads the rows of a Running file.
func ReadRunning(path string) ([]Row, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxRunning+1))
	if err != nil {
		return nil, err
	}
	if len(data) < len(runningHead) || len(data) > maxRunning || string(data[:len(runningHead)]) != runningHead {
		return nil, fmt.Errorf("%w: it is no list of running answers, or of another version of sluice", errRunning)
	}
	body, err := unseal(data[len(runningHead):])
	if err != nil {
		return nil, fmt.Errorf("%w: its checksum is wrong", errRunning)
	}
	return readRunning(body)
}

var errRunning = errors.New("the file is damaged")

// readRunning reads rows, all of which have ids.
func readRunning(body []byte) (rows []Row, err error) {
	for len(body) > 0 {
		n, size := binary.Uvarint(body)
		if size <= 0 || n > uint64(len(body)-size) || len(rows) == MaxRunning {
			return nil, fmt.Errorf("%w after row %d", errRunning, len(rows))
		}
		row, err := decode(body[size : size+int(n)])
		if err != nil || row.ID == "" {
			return nil, fmt.Errorf("%w: row %d cannot be read", errRunning, len(rows)+1)
		}
		rows, body = append(rows, row), body[size+int(n):]
	}
	return rows, nil
}
