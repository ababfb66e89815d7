package main

import (
	"bytes"
	"crypto/sha256"
	"io"
	"log/slog"
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

// fileWatch tells when what stands in the configuration's files has changed. It watches
// their directories: files are replaced rather than written, and a mounted ConfigMap is a
// symbolic link that is swapped in its directory.
type fileWatch struct {
	log     *slog.Logger
	files   []string
	seen    [sha256.Size]byte
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

// set watches the files of a configuration, none when it does not ask for that. What stands
// in them now is known.
func (w *fileWatch) set(c *Config) {
	w.files = nil
	if c.Server.Watch {
		w.files = c.watched()
	}
	if w.seen = w.sum(); w.files != nil && !c.current() {
		w.seen = [sha256.Size]byte{} // it has changed since it was read
		w.stirred()
	}
	if w.watcher == nil {
		return
	}
	var dirs []string
	for _, f := range w.files {
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

// watched are the files that the configuration was read from. Without any, it is where
// one would be found.
func (c *Config) watched() []string {
	file := c.file
	if file == "" {
		file = defaultFile
	}
	files := append([]string{file}, c.reads...)
	if s := &c.Server; s.TLSCert != "" {
		files = append(files, s.TLSCert, s.TLSKey)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// current tells whether the file still says what was read.
func (c *Config) current() bool {
	if c.file == "" {
		return true
	}
	text, err := readBounded(c.file, maxDocument)
	return err != nil || bytes.Equal(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), c.text)
}

// sum is what stands in the files; one that cannot be read counts as such.
func (w *fileWatch) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, f := range w.files {
		text, err := readBounded(f, maxDocument)
		part := sha256.Sum256(text)
		_, _ = io.WriteString(h, f+"\x00")
		if err != nil {
			_, _ = io.WriteString(h, "!")
		}
		_, _ = h.Write(part[:])
	}
	h.Sum(sum[:0])
	return sum
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
	return e.Has(fsnotify.Create|fsnotify.Rename|fsnotify.Remove) || e.Has(fsnotify.Write) && slices.ContainsFunc(w.files, func(f string) bool {
		return filepath.Clean(f) == filepath.Clean(e.Name)
	})
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
	if slices.ContainsFunc(w.files, isEmpty) {
		return false
	}
	was := w.seen
	w.seen = w.sum()
	return len(w.files) > 0 && w.seen != was
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
