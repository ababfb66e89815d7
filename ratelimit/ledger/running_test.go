package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// someRows are test rows by number.
func someRows(numbers ...int) iter.Seq[*Row] {
	return func(yield func(*Row) bool) {
		for _, i := range numbers {
			if row := testRow(i); !yield(&row) {
				return
			}
		}
	}
}

func mustOpenRunning(t *testing.T, b *Bolt, path string, want ...int) *Running {
	t.Helper()
	r, lost, err := b.OpenRunning(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(lost, want, func(r Row, i int) bool { return r == testRow(i) }) {
		t.Errorf("%d rows were lost, want %v: %+v", len(lost), want, lost)
	}
	return r
}

func mustKeep(t *testing.T, r *Running, numbers ...int) {
	t.Helper()
	if err := r.Keep(t.Context(), someRows(numbers...)); err != nil {
		t.Fatal(err)
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	var got []string
	for _, f := range files {
		got = append(got, f.Name())
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("there is %q, want %q (%v)", got, want, err)
	}
}

// TestRunning: what was kept last and never posted is posted by the next process, once, however
// often it dies at that.
func TestRunning(t *testing.T) {
	dir := t.TempDir()
	book, path := filepath.Join(dir, "book"), filepath.Join(dir, "running")
	failures := slog.New(slog.NewTextHandler(failing{t}, nil))
	b := mustOpen(t, book, Retention{}, failures)
	r := mustOpenRunning(t, b, path)
	mustKeep(t, r)
	wantFiles(t, dir, "book")
	mustKeep(t, r, 1, 2)
	mustPost(t, b, 1, 2)
	mustKeep(t, r, 2, 3, 4) // 1 has ended
	mustPost(t, b, 3, 4)    // 3 ends before it is noticed
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, lost := range [][]int{{2, 4}, nil, nil} {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+runningNew, kept[:20], 0o600); err != nil { // it died while it wrote
			t.Fatal(err)
		}
		if err := os.WriteFile(path, kept, 0o600); err != nil { // it dies before the file is removed
			t.Fatal(err)
		}
		b = mustOpen(t, book, Retention{}, failures)
		r = mustOpenRunning(t, b, path, lost...)
		wantTotals(t, b, 4)
		wantFiles(t, dir, "book")
		if t.Failed() {
			t.Fatalf("start %d", i+1)
		}
	}
	mustKeep(t, r, 5)
	mustKeep(t, r)
	wantFiles(t, dir, "book")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRunningAndBook: of an answer that was kept, either the file or the book knows at any
// time, also when the book cannot be written.
func TestRunningAndBook(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "running")
	b := mustOpen(t, filepath.Join(dir, "book"), Retention{}, quiet)
	defer func() { _ = b.Close() }()
	r := mustOpenRunning(t, b, path)
	mustKeep(t, r, 0, 1, 2)
	mustPost(t, b, 0, 1)
	mustKeep(t, r, 1, 2)
	b.queue.mu.Lock()
	if b.accepted != 1 || b.written != 1 {
		t.Errorf("%d of %d rows are written", b.written, b.accepted)
	}
	b.trouble = errors.New("the disk is full")
	b.queue.mu.Unlock()
	before, _ := ReadRunning(path)
	for _, rows := range [][]int{{2}, nil} {
		if err := r.Keep(t.Context(), someRows(rows...)); err == nil {
			t.Error("no error, although what has ended is not written")
		}
		if after, err := ReadRunning(path); err != nil || !reflect.DeepEqual(after, before) || len(after) != 2 {
			t.Errorf("the file has changed: %+v, %v", after, err)
		}
	}
	b.queue.mu.Lock()
	b.trouble = nil
	b.queue.mu.Unlock()
	mustKeep(t, r, 2)
	many := make([]int, MaxRunning+1)
	if err := r.Keep(t.Context(), someRows(many...)); err == nil {
		t.Error("there is no bound")
	}
	if after, err := ReadRunning(path); err != nil || len(after) != 1 {
		t.Errorf("%d rows, %v", len(after), err)
	}
}

// TestRunningBound: as many rows as are kept at most, with the longest names, can be posted
// by the next process, and read.
func TestRunningBound(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "running")
	b := mustOpen(t, filepath.Join(dir, "book"), Retention{}, quiet)
	defer func() { _ = b.Close() }()
	r := mustOpenRunning(t, b, path)
	long := strings.Repeat("n", 300)
	err := r.Keep(t.Context(), func(yield func(*Row) bool) {
		for i := range MaxRunning {
			row := Row{ID: fmt.Sprint(i) + long, Org: long, Team: long, User: long, Key: long, Op: long, Transport: long, Model: long, Target: long, End: long,
				Start: testRow(0).Start, TTFT: 1 << 62, Total: 1 << 62, Reserved: -1 << 63, Attempts: 1 << 62}
			if !yield(&row) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits for space in the queue
	_, lost, err := b.OpenRunning(ctx, path)
	if len(lost) != MaxRunning || !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("%d rows, %v", len(lost), err)
	}
	if _, calls := totals(t, b); calls != MaxRunning {
		t.Errorf("%d calls are recorded", calls)
	}
}

// TestRunningDamaged: a file that cannot be read is kept for whoever wants to look, told, and
// stops nothing.
func TestRunningDamaged(t *testing.T) {
	whole := runningFile(someRows(1, 2))
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-3] ^= 1
	for name, data := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)-1], "cut early": whole[:len(runningHead)+2], "flipped": flipped,
		"another version": bytes.Replace(whole, []byte("running 1"), []byte("running 2"), 1), "too large": make([]byte, maxRunning+1),
		"without an id": runningFile(func(yield func(*Row) bool) { yield(&Row{Org: "acme"}) }),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "running")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			var told bytes.Buffer
			b := mustOpen(t, filepath.Join(dir, "book"), Retention{}, slog.New(slog.NewTextHandler(&told, nil)))
			defer func() { _ = b.Close() }()
			r := mustOpenRunning(t, b, path)
			aside, _ := filepath.Glob(path + ".damaged-*")
			if len(aside) != 1 || strings.Count(told.String(), "level=ERROR") != 1 || !strings.Contains(told.String(), aside[0]) {
				t.Errorf("aside is %q, told: %s", aside, told.String())
			}
			mustKeep(t, r, 3)
			mustOpenRunning(t, b, path, 3)
			wantTotals(t, b, 1)
		})
	}
}

// runningFile is the text of a file.
func runningFile(rows iter.Seq[*Row]) []byte {
	data := []byte(runningHead + "\x00\x00\x00\x00")
	for row := range rows {
		data = appendRunning(data, row)
	}
	seal(data[len(runningHead):])
	return data
}

// FuzzRunning reads anything; what can be read is written and read as the same.
func FuzzRunning(f *testing.F) {
	whole := runningFile(someRows(1, 2))[len(runningHead)+4:]
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte{0x80, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := readRunning(data)
		if err != nil {
			return
		}
		again := func(rows []Row) []Row {
			var out []byte
			for i := range rows {
				out = appendRunning(out, &rows[i])
			}
			rows, err := readRunning(out)
			if err != nil {
				t.Fatal(err)
			}
			return rows
		}
		second := again(first) // names and amounts may have been too large
		if len(first) != len(second) || !reflect.DeepEqual(second, again(second)) {
			t.Errorf("%+v is read again as %+v", first, second)
		}
	})
}
