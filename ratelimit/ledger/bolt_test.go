package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

func mustOpen(t testing.TB, path string, keep Retention, log *slog.Logger) *Bolt {
	t.Helper()
	b, err := OpenBolt(path, keep, time.Now, log)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustPost(t testing.TB, b *Bolt, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		row := testRow(i)
		if err := b.Post(t.Context(), &row); err != nil {
			t.Fatal(err)
		}
	}
}

// totals are the rows that are there, and the calls in the sums.
func totals(t testing.TB, b *Bolt) (rows []Row, calls int64) {
	t.Helper()
	page, err := b.Rows(t.Context(), Filter{Match: Match{AllOrgs: true}, Limit: maxLimit})
	if err != nil {
		t.Fatal(err)
	}
	sums, err := b.Usage(t.Context(), Query{Match: Match{AllOrgs: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sums {
		calls += s.Calls
	}
	return page.Rows, calls
}

func wantTotals(t testing.TB, b *Bolt, n int) {
	t.Helper()
	if rows, calls := totals(t, b); len(rows) != n || calls != int64(n) {
		t.Errorf("%d rows, sums of %d calls, want %d", len(rows), calls, n)
	}
}

var quiet = slog.New(slog.DiscardHandler)

func TestBoltReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "ledger.db")
	for round := range 3 {
		b := mustOpen(t, path, Retention{}, quiet)
		mustPost(t, b, 0, 10*(round+1)) // those of the rounds before come again
		wantTotals(t, b, 10*(round+1))
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		row := testRow(99)
		if err := b.Post(t.Context(), &row); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestBoltInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	b := mustOpen(t, path, Retention{}, quiet)
	defer func() { _ = b.Close() }()
	if _, err := OpenBolt(path, Retention{}, time.Now, quiet); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("the second time: %v", err)
	}
	mustPost(t, b, 0, 3)
	wantTotals(t, b, 3)
}

func TestBoltNotOpened(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenBolt(dir, Retention{}, time.Now, quiet); err == nil {
		t.Error("a folder is opened")
	}
	path := filepath.Join(dir, "ledger.db")
	b := mustOpen(t, path, Retention{}, quiet)
	err := b.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte("1")) })
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBolt(path, Retention{}, time.Now, quiet); !errors.Is(err, errFormat) {
		t.Errorf("another format: %v", err)
	}
	if left, _ := filepath.Glob(path + ".damaged-*"); len(left) > 0 {
		t.Errorf("moved aside: %v", left)
	}
}

// TestBoltDamaged spoils a file in many ways and places. Whatever is found is moved aside
// as it was, and loudly; rows go into the new file.
func TestBoltDamaged(t *testing.T) {
	spoil := map[string]func(data []byte) []byte{
		"no ledger":    func([]byte) []byte { return []byte("model = \"gpt-5\"\n") },
		"short":        func(data []byte) []byte { return data[:5000] },
		"longer":       func(data []byte) []byte { return data[:60_000] },
		"zeroed head":  func(data []byte) []byte { clear(data[:8192]); return data },
		"zeroed body":  func(data []byte) []byte { clear(data[8192:]); return data },
		"noise":        func(data []byte) []byte { return fill(data[8192:], data, 0xA5) },
		"one row":      func(data []byte) []byte { return flip(data, []byte("req-77")) },
		"one sum":      func(data []byte) []byte { return flip(data, []byte("\x06laptop")) },
		"page headers": spoilHeaders,
	}
	for name, spoil := range spoil {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			b := mustOpen(t, path, Retention{}, quiet)
			mustPost(t, b, 0, 300)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data = spoil(data)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			b = mustOpen(t, path, Retention{}, slog.New(slog.NewTextHandler(&log, nil)))
			mustPost(t, b, 300, 310)
			wantTotals(t, b, 10)
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			aside, _ := filepath.Glob(path + ".damaged-*")
			if len(aside) != 1 || !strings.Contains(log.String(), "level=ERROR") {
				t.Fatalf("%d files aside, log %q", len(aside), log.String())
			}
			if kept, _ := os.ReadFile(aside[0]); !bytes.Equal(kept, data) {
				t.Error("what was moved aside is not what was there")
			}
		})
	}
}

func fill(part, whole []byte, b byte) []byte {
	for i := range part {
		part[i] = b
	}
	return whole
}

// flip changes the byte before every occurrence.
func flip(data, what []byte) []byte {
	for i := 1; i+len(what) < len(data); i++ {
		if bytes.HasPrefix(data[i:], what) {
			data[i+len(what)-1] ^= 1
		}
	}
	return data
}

// spoilHeaders lets every page point far out of the file.
func spoilHeaders(data []byte) []byte {
	size := os.Getpagesize()
	for at := 2 * size; at < len(data); at += size {
		for i := 8; i < 32; i++ {
			data[at+i] ^= 0x7F
		}
	}
	return data
}

// TestBoltDamagedWhileOpen finds the damage when it reads, and when it writes.
func TestBoltDamagedWhileOpen(t *testing.T) {
	for _, reads := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		var log safeBuffer
		b := mustOpen(t, path, Retention{}, slog.New(slog.NewTextHandler(&log, nil)))
		mustPost(t, b, 0, 300)
		wantTotals(t, b, 300)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(make([]byte, info.Size()-8192), 8192); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		if reads {
			if _, err := b.Rows(t.Context(), Filter{Match: Match{AllOrgs: true}}); !errors.Is(err, errDamaged) {
				t.Errorf("reading: %v", err)
			}
		}
		mustPost(t, b, 290, 310) // ten of them are known
		wantTotals(t, b, 10)
		if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 || !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("%d files aside, log %q", len(aside), log.String())
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// safeBuffer is a log that may be written and read concurrently.
type safeBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// TestBoltRetried has a transaction that is in the file although it was told as failed.
func TestBoltRetried(t *testing.T) {
	b := mustOpen(t, filepath.Join(t.TempDir(), "ledger.db"), Retention{}, quiet)
	defer func() { _ = b.Close() }()
	rows := new(batch)
	for i := range 10 {
		row := testRow(i)
		rows.add(time.Now().UnixMicro(), &row)
	}
	before, known := b.next, b.seen
	if err := b.commit(rows); err != nil {
		t.Fatal(err)
	}
	b.next, b.seen = before, known
	b.seen = newSeen(minIDs)
	if err := b.commit(rows); err != nil {
		t.Fatal(err)
	}
	wantTotals(t, b, 10)
	mustPost(t, b, 5, 15)
	wantTotals(t, b, 15)
}

func TestBoltAge(t *testing.T) {
	now := time.Now()
	b, err := OpenBolt(filepath.Join(t.TempDir(), "ledger.db"), Retention{RowAge: time.Hour}, func() time.Time { return now }, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	stored := func(bucket []byte) (n int) {
		_ = b.view(t.Context(), func(tx *bolt.Tx) error {
			return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
				if n++; bytes.Equal(bucket, bucketRows) {
					n += int(binary.BigEndian.Uint16(v[4:])) - 1
				}
				return nil
			})
		})
		return n
	}
	steps := []struct {
		wait       time.Duration
		rows, sums int
	}{{0, 10, 1}, {30 * time.Minute, 20, 0}, {61 * time.Minute, 10, 0}, {91 * day, 10, 1}}
	for i, step := range steps {
		now = now.Add(step.wait)
		mustPost(t, b, 10*i, 10*i+10)
		if n := stored(bucketRows); n != step.rows {
			t.Errorf("step %d: %d rows are stored", i, n)
		}
		if n := stored(bucketSums); step.sums > 0 && n != step.sums {
			t.Errorf("step %d: %d sums are stored", i, n)
		}
	}
	now = now.Add(2 * time.Hour)
	if rows, calls := totals(t, b); len(rows) != 0 || calls != 10 {
		t.Errorf("%d rows, %d calls", len(rows), calls)
	}
}
