package ratelimit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// segmentBytes is how large a file becomes before another one is begun.
	segmentBytes = 4 << 20
	// maxFolders is how many processes can share a directory.
	maxFolders   = 64
	segmentExt   = ".settlements"
	retryWriting = time.Second // how often a journal that cannot be written is tried
)

// segment is one file of records.
type segment struct {
	path    string
	bytes   int64
	records int64 // not replayed yet
	offset  int64 // up to here they are replayed
}

// claim locks the first folder that is free, and takes over the others whose processes are gone.
func (j *Journal) claim() error {
	for i := range maxFolders {
		dir := filepath.Join(j.opt.Dir, strconv.Itoa(i))
		if _, err := os.Stat(dir); err != nil && j.dir != "" {
			break // there are no more
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		lock, err := lockFile(filepath.Join(dir, "lock"))
		switch {
		case errors.Is(err, errLocked):
			continue
		case err != nil:
			return err
		case j.dir == "":
			j.dir, j.lock = dir, lock
		default:
			j.adopted = append(j.adopted, lock)
		}
		if err := j.find(dir); err != nil {
			return err
		}
	}
	if j.dir == "" {
		return fmt.Errorf("all %d folders are in use", maxFolders)
	}
	if j.pending > 0 {
		j.opt.Log.Info("settlements of an earlier run will be replayed", "settlements", j.pending, "dir", j.opt.Dir)
	}
	return nil
}

// find takes in the segments of a folder.
func (j *Journal) find(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"+segmentExt))
	if err != nil {
		return err
	}
	slices.Sort(names) // their numbers have a fixed width
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		s := &segment{path: name, bytes: int64(len(text)), records: countRecords(text)}
		j.segments = append(j.segments, s)
		j.bytes += s.bytes
		j.pending += s.records
		if n, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), segmentExt), 16, 64); err == nil {
			j.number = max(j.number, n)
		}
	}
	return nil
}

// countRecords counts what looks like settlements.
func countRecords(text []byte) (count int64) {
	for len(text) > 0 {
		s, _, n, err := nextRecord(text)
		if errors.Is(err, errTorn) {
			return count
		}
		if s != nil {
			count++
		}
		text = text[n:]
	}
	return count
}

// write appends a record. What was written of it in vain is taken back, or its segment ends
// there. mu is held.
func (j *Journal) write(record []byte) error {
	if j.closed {
		return os.ErrClosed
	}
	if j.bytes+int64(len(record)) > j.opt.MaxBytes {
		return ErrJournalFull
	}
	if j.active != nil && j.last().bytes+int64(len(record)) > segmentBytes {
		if err := j.seal(); err != nil {
			return err
		}
	}
	if j.active == nil {
		if err := j.begin(); err != nil {
			return err
		}
	}
	s := j.last()
	n, err := j.active.Write(record)
	if err != nil {
		if n > 0 && j.active.Truncate(s.bytes) != nil {
			_ = j.active.Close()
			j.active = nil
			s.bytes += int64(n)
			j.bytes += int64(n)
		}
		return err
	}
	s.bytes += int64(n)
	j.bytes += int64(n)
	if !j.dirty {
		j.dirty = true
		j.poke()
	}
	return nil
}

func (j *Journal) last() *segment { return j.segments[len(j.segments)-1] }

// begin makes a new segment. mu is held.
func (j *Journal) begin() error {
	name := filepath.Join(j.dir, fmt.Sprintf("%016x%s", j.number+1, segmentExt))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	j.number++
	j.active = f
	j.segments = append(j.segments, &segment{path: name})
	return nil
}

// seal ends the active segment. mu is held.
func (j *Journal) seal() error {
	if j.active == nil {
		return nil
	}
	err := j.active.Sync()
	if cerr := j.active.Close(); err == nil {
		err = cerr
	}
	j.active, j.dirty = nil, false
	return err
}

// syncer forces what was written to the disk, soon after. While nothing can be written it
// tries to, so that somebody notices when that is over.
func (j *Journal) syncer() {
	defer close(j.done)
	for {
		select {
		case <-j.wake:
		case <-j.stop:
			return
		}
		j.pause(j.opt.Sync)
		for j.sync() {
			if j.pause(retryWriting) {
				break
			}
		}
	}
}

func (j *Journal) pause(d time.Duration) (stopped bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return false
	case <-j.stop:
		return true
	}
}

// sync reports whether writing does not work. The lock is not held while the disk is slow.
func (j *Journal) sync() (failing bool) {
	j.mu.Lock()
	if errors.Is(j.failed, ErrJournalFull) { // until something is replayed
		j.mu.Unlock()
		return false
	}
	if j.failed != nil && !j.closed {
		if err := j.write(appendFrame(nil, nil)); err != nil {
			j.failed = err
			j.mu.Unlock()
			return true
		}
	}
	f := j.active
	dirty := j.dirty
	j.dirty = false
	j.mu.Unlock()
	if f == nil || !dirty {
		return false
	}
	err := f.Sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	if errors.Is(err, os.ErrClosed) { // sealed meanwhile, which syncs
		err = nil
	}
	if err != nil { // what the file has is not known any more: the next record begins another
		if j.active == f {
			_ = f.Close()
			j.active = nil
		}
		j.fail(err)
		return true
	}
	j.works()
	return false
}

// release gives the folders free. mu is held, or nobody else knows the journal yet.
func (j *Journal) release() {
	for _, f := range append(j.adopted, j.lock) {
		if f != nil {
			_ = f.Close()
		}
	}
	j.adopted, j.lock = nil, nil
	if j.temp {
		_ = os.RemoveAll(j.opt.Dir)
	}
}
