package main

import (
	"bytes"
	"crypto/sha256"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleFiles is how long after a change files are looked at: editors and deployments
	// write in several steps.
	settleFiles = 200 * time.Millisecond
	// lookAnyway is how often files are looked at although nothing was told of them: network
	// file systems tell nothing.
	lookAnyway = 30 * time.Second
)

// marks say what stands in files; the zero mark is of one that cannot be read.
type marks map[string][sha256.Size]byte

// markOf is the mark of a text. A byte order mark is no part of it.
func markOf(text []byte) [sha256.Size]byte {
	return sha256.Sum256(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
}

// now is what stands in the same files now.
func (m marks) now() marks {
	out := marks{}
	for file := range m {
		out[file] = [sha256.Size]byte{}
		if text, err := readBounded(file, maxLabels); err == nil { // the largest that are read
			out[file] = markOf(text)
		}
	}
	return out
}

// marks are the files that the configuration was read from, as they were. Without any, it is
// where one would be found.
func (c *Config) marks() marks {
	m := marks{}
	maps.Copy(m, c.reads)
	if c.file == "" {
		m[defaultFile] = [sha256.Size]byte{}
	} else {
		m[c.file] = markOf(c.text)
	}
	return m
}

// fileWatch tells when what stands in the configuration's files has changed. It watches
// their directories: files are replaced rather than written, and a mounted ConfigMap is a
// symbolic link that is swapped in its directory.
type fileWatch struct {
	log     *slog.Logger
	seen    marks             // of the files that are watched
	watcher *fsnotify.Watcher // nil: files are only looked at
	dirs    []string
	wait    *time.Timer // until files are looked at
	waiting bool        // for that
	look    *time.Ticker
}

func newFileWatch(log *slog.Logger) *fileWatch {
	w := &fileWatch{log: log, wait: time.NewTimer(settleFiles), look: time.NewTicker(lookAnyway)}
	w.wait.Stop()
	var err error
	if w.watcher, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("files cannot be watched; they are looked at now and then", slog.Duration("every", lookAnyway), slog.Any("error", err))
		w.watcher = nil
	}
	return w
}

// set watches the files of a configuration, none when it does not ask for that. One that has
// changed since it was read is looked at soon.
func (w *fileWatch) set(c *Config) {
	w.seen = nil
	if c.Server.Watch {
		w.seen = c.marks()
	}
	if !maps.Equal(w.seen, w.seen.now()) {
		w.stirred()
	}
	if w.watcher == nil {
		return
	}
	var dirs []string
	for f := range w.seen {
		dirs = append(dirs, filepath.Dir(f))
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	for _, d := range w.dirs {
		if !slices.Contains(dirs, d) {
			_ = w.watcher.Remove(d) // it may be gone itself
		}
	}
	for _, d := range dirs {
		if err := w.watcher.Add(d); err != nil {
			w.log.Warn("a directory cannot be watched; its files are looked at now and then", slog.String("dir", d), slog.Duration("every", lookAnyway), slog.Any("error", err))
		}
	}
	w.dirs = dirs
}

// events are what the system tells; nil when it tells nothing.
func (w *fileWatch) events() <-chan fsnotify.Event {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Events
}

func (w *fileWatch) errors() <-chan error {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Errors
}

// matters tells whether something may have happened to the files. Others may be written all
// the time in the same directory, such as a log.
func (w *fileWatch) matters(e fsnotify.Event) bool {
	if !e.Has(fsnotify.Write) {
		return e.Has(fsnotify.Create | fsnotify.Rename | fsnotify.Remove)
	}
	for f := range w.seen {
		if filepath.Clean(f) == filepath.Clean(e.Name) {
			return true
		}
	}
	return false
}

// stirred has files looked at soon: not at once, and not later because of what happens
// meanwhile.
func (w *fileWatch) stirred() {
	if !w.waiting {
		w.waiting = true
		w.wait.Reset(settleFiles)
	}
}

// changed tells whether something else stands in the files than when it was last called, or
// set was. A file that is empty is being written: it is waited for, since an empty
// configuration is a valid one.
func (w *fileWatch) changed() bool {
	w.waiting = false
	for f := range w.seen {
		if isEmpty(f) {
			return false
		}
	}
	was := w.seen
	w.seen = was.now()
	return !maps.Equal(was, w.seen)
}

func isEmpty(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Size() == 0
}

func (w *fileWatch) close() {
	w.wait.Stop()
	w.look.Stop()
	if w.watcher != nil {
		_ = w.watcher.Close()
	}
}
