package ratelimit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/ratelimit/ledger"
)

func settlement(id string) *Settlement {
	return &Settlement{
		Call: &Call{ID: id, Who: Subject{Org: "acme", Key: "k", Rules: []*Rule{{ID: "own", Scope: Key, Dim: Tokens, Amount: 7, Per: Minute}}}, Want: Cost{Output: 9}},
		Used: Cost{Requests: 1, Input: 3, Output: 4, Money: 5}, Row: ledger.Row{ID: id, Org: "acme", Output: 4, End: "ok"},
	}
}

func openJournal(t *testing.T, opt JournalOptions) (*Journal, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	opt.Log = slog.New(slog.NewTextHandler(log, nil))
	j, err := OpenJournal(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, log
}

func appendAll(t *testing.T, j *Journal, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := j.Append(settlement(id)); err != nil {
			t.Fatal(err)
		}
	}
}

// oneByOne settles up to the first error.
func oneByOne(settle func(*Settlement) error) func(context.Context, []*Settlement) []error {
	return func(_ context.Context, some []*Settlement) []error {
		errs := make([]error, len(some))
		for i, s := range some {
			if errs[i] = settle(s); errs[i] != nil {
				break
			}
		}
		return errs
	}
}

// replayedIDs is the ids that a replay gives; it fails at the id of fail.
func replayedIDs(t *testing.T, j *Journal, fail string) (ids []string) {
	t.Helper()
	no := errors.New("no")
	_, err := j.Replay(context.Background(), oneByOne(func(s *Settlement) error {
		if s.Call.ID == fail {
			return no
		}
		ids = append(ids, s.Call.ID)
		return nil
	}))
	if fail == "" && err != nil || fail != "" && !errors.Is(err, no) {
		t.Fatal(err)
	}
	return ids
}

func segmentsIn(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*", "*"+segmentExt))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestJournalRoundTrip(t *testing.T) {
	dir := t.TempDir()
	j, _ := openJournal(t, JournalOptions{Dir: dir})
	if n := segmentsIn(t, dir); len(n) != 0 {
		t.Errorf("files of an empty journal: %v", n)
	}
	want := settlement("a")
	appendAll(t, j, "a", "b", "c")
	var got []*Settlement
	done, err := j.Replay(context.Background(), oneByOne(func(s *Settlement) error {
		got = append(got, s)
		return nil
	}))
	if past := got[0].Past; past == nil || past.Granted || past.Sent || time.Since(past.At) > time.Minute {
		t.Errorf("past of a settlement that has none: %+v", past)
	}
	got[0].Past = nil
	if done != 3 || err != nil || !reflect.DeepEqual(got[0], want) || got[2].Call.ID != "c" {
		t.Errorf("%d, %v: %+v", done, err, got[0])
	}
	if s := j.Stats(); s != (JournalStats{}) {
		t.Errorf("afterwards: %+v", s)
	}
	if n := segmentsIn(t, dir); len(n) != 0 {
		t.Errorf("files of a journal that is replayed: %v", n)
	}
}

// TestJournalSurvives: what was not replayed is there for the next process, from where the
// replay ended or from before; a live journal is not touched.
func TestJournalSurvives(t *testing.T) {
	dir := t.TempDir()
	first, _ := openJournal(t, JournalOptions{Dir: dir})
	second, _ := openJournal(t, JournalOptions{Dir: dir})
	if first.dir == second.dir {
		t.Fatal("two journals share a folder")
	}
	appendAll(t, first, "a", "b", "c")
	appendAll(t, second, "x", "y")
	if got := replayedIDs(t, first, "b"); !slices.Equal(got, []string{"a"}) || first.Stats().Pending != 2 {
		t.Errorf("replayed %v, %+v", got, first.Stats())
	}
	third, _ := openJournal(t, JournalOptions{Dir: dir})
	if n := third.Stats().Pending; n != 0 {
		t.Errorf("%d settlements of live processes were taken over", n)
	}
	for _, j := range []*Journal{first, second, third} {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	next, log := openJournal(t, JournalOptions{Dir: dir})
	if got := replayedIDs(t, next, ""); !slices.Equal(got, []string{"a", "b", "c", "x", "y"}) {
		t.Errorf("the next process replays %v", got)
	}
	if !strings.Contains(log.String(), "settlements=5") {
		t.Errorf("log: %s", log)
	}
	if err := next.Append(settlement("z")); err != nil {
		t.Error(err)
	}
}

// TestJournalDamage: a torn end loses what was being written, a damaged record itself.
func TestJournalDamage(t *testing.T) {
	record, err := appendRecord(nil, settlement("x"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		harm func([]byte) []byte
		want []string
	}{
		"torn body":   {func(b []byte) []byte { return append(b, record[:len(record)-1]...) }, []string{"a", "b"}},
		"torn head":   {func(b []byte) []byte { return append(b, record[:5]...) }, []string{"a", "b"}},
		"zeros":       {func(b []byte) []byte { return append(b, make([]byte, 64)...) }, []string{"a", "b"}},
		"flipped bit": {func(b []byte) []byte { b[recordHead+3] ^= 1; return b }, []string{"b"}},
		"wild length": {func(b []byte) []byte { b[3] = 0xff; return b }, nil},
		"no JSON":     {func(b []byte) []byte { return appendFrame(b, []byte("{}")) }, []string{"a", "b"}},
		"empty":       {func([]byte) []byte { return nil }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j, _ := openJournal(t, JournalOptions{Dir: dir})
			appendAll(t, j, "a", "b")
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			file := segmentsIn(t, dir)[0]
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, c.harm(text), 0o600); err != nil {
				t.Fatal(err)
			}
			j, log := openJournal(t, JournalOptions{Dir: dir})
			if n := j.Stats().Pending; n != int64(len(c.want)) {
				t.Errorf("%d are pending, want %d", n, len(c.want))
			}
			if got := replayedIDs(t, j, ""); !slices.Equal(got, c.want) {
				t.Errorf("replayed %v, want %v", got, c.want)
			}
			damaged := name != "zeros" && name != "empty"
			if s := j.Stats(); s.Pending != 0 || s.Bytes != 0 || damaged != (s.Damaged > 0) || damaged != strings.Contains(log.String(), "cannot be read") {
				t.Errorf("%+v, log: %s", s, log)
			}
		})
	}
}

// TestJournalBounds: beyond its size it says so until something is replayed; what is too
// old is dropped and told.
func TestJournalBounds(t *testing.T) {
	t.Run("size", func(t *testing.T) {
		j, log := openJournal(t, JournalOptions{Dir: t.TempDir(), MaxBytes: 2000})
		var kept int
		for err := error(nil); err == nil; kept++ {
			if err = j.Append(settlement(fmt.Sprint(kept))); err != nil && !errors.Is(err, ErrJournalFull) {
				t.Fatal(err)
			}
		}
		_ = j.Append(settlement("one more"))
		if s := j.Stats(); !errors.Is(s.Err, ErrJournalFull) || s.Bytes > 2000 || s.Pending != int64(kept-1) {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d lines: %s", n, log)
		}
		if got := replayedIDs(t, j, ""); len(got) != kept-1 || j.Stats().Err != nil {
			t.Errorf("replayed %d, %+v", len(got), j.Stats())
		}
		appendAll(t, j, "later")
	})
	t.Run("age", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			j, log := openJournal(t, JournalOptions{Dir: dir})
			appendAll(t, j, "old")
			time.Sleep(25 * time.Hour)
			appendAll(t, j, "new")
			if got := replayedIDs(t, j, ""); !slices.Equal(got, []string{"new"}) {
				t.Errorf("replayed %v", got)
			}
			if s := j.Stats(); s.Expired != 1 || s.Pending != 0 || !strings.Contains(log.String(), "request_id=old") {
				t.Errorf("%+v, log: %s", s, log)
			}
			_ = j.Close()
		})
	})
}

// TestJournalSegments: files stay small, and go one by one.
func TestJournalSegments(t *testing.T) {
	dir := t.TempDir()
	j, _ := openJournal(t, JournalOptions{Dir: dir})
	big := settlement("big")
	big.Row.Model = strings.Repeat("m", 900<<10)
	for range 10 {
		if err := j.Append(big); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(segmentsIn(t, dir)); n != 3 {
		t.Errorf("%d files", n)
	}
	big.Row.Model += big.Row.Model
	if err := j.Append(big); !errors.Is(err, errRecordSize) || j.Stats().Err != nil {
		t.Errorf("a settlement of 1.8 MiB: %v, %+v", err, j.Stats())
	}
	n := 0
	_, err := j.Replay(context.Background(), oneByOne(func(*Settlement) error {
		if n++; n == 6 {
			return errors.New("no")
		}
		return nil
	}))
	if err == nil || len(segmentsIn(t, dir)) != 2 || j.Stats().Pending != 5 {
		t.Errorf("in the middle: %v, %d files, %+v", err, len(segmentsIn(t, dir)), j.Stats())
	}
}

// TestJournalWriteFails: a disk that refuses is told once, tried again, and told when it works.
func TestJournalWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j, log := openJournal(t, JournalOptions{Dir: dir})
		folder := j.dir
		j.dir = filepath.Join(folder, "missing") // not on any disk
		for range 3 {
			if err := j.Append(settlement("a")); !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if s := j.Stats(); s.Err == nil || s.Pending != 0 {
			t.Errorf("%+v", s)
		}
		j.mu.Lock()
		j.dir = folder
		j.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := j.Stats(); s.Err != nil {
			t.Errorf("%+v", s)
		}
		if s := log.String(); strings.Count(s, "level=ERROR") != 1 || strings.Count(s, "written to the journal again") != 1 {
			t.Errorf("log: %s", s)
		}
		appendAll(t, j, "b")
		if got := replayedIDs(t, j, ""); !slices.Equal(got, []string{"b"}) {
			t.Errorf("replayed %v", got)
		}
		if n := segmentsIn(t, dir); len(n) != 0 {
			t.Errorf("files: %v", n)
		}
		_ = j.Close()
	})
}

// TestJournalTemporary: without a directory the files are gone when it is closed, and what
// is lost with them is told.
func TestJournalTemporary(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	j, log := openJournal(t, JournalOptions{})
	appendAll(t, j, "a")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(j.opt.Dir); !errors.Is(err, os.ErrNotExist) || !strings.Contains(log.String(), "settlements=1") {
		t.Errorf("%v, log: %s", err, log)
	}
}

// FuzzJournal reads any file: each record that was written whole in front of the damage is
// read, nothing is read twice, and the file is gone afterwards.
func FuzzJournal(f *testing.F) {
	record, err := appendRecord(nil, settlement("a"), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, uint16(0))
	f.Add(record, uint16(10))
	f.Add(appendFrame(nil, nil), uint16(1))
	f.Add([]byte("\xff\xff\xff\xff\x00\x00\x00\x00"), uint16(300))
	f.Fuzz(func(t *testing.T, tail []byte, cut uint16) {
		text := append(slices.Clone(record), record...)
		whole := 2
		if int(cut) < len(text) {
			text, whole = text[:cut], int(cut)/len(record)
		}
		text = append(text, tail...)
		count := countRecords(text)
		read := int64(0)
		for at := 0; at < len(text); {
			s, _, n, err := nextRecord(text[at:])
			if errors.Is(err, errTorn) {
				break
			}
			if n < recordHead || n > len(text)-at {
				t.Fatalf("a record of %d bytes at %d of %d", n, at, len(text))
			}
			if s != nil {
				read++
			}
			at += n
		}
		if read < int64(whole) || read != count {
			t.Fatalf("read %d records, counted %d, %d were written whole", read, count, whole)
		}
	})
}
