package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ReplicasOptions say what Replicas knows. Only Seen is needed.
type ReplicasOptions struct {
	// Seen is how many replicas the store knows of; less than 1 until it has answered once.
	// It may be called concurrently.
	Seen func() int
	// Least is how many there are at least, whatever the store says.
	Least int
	// File remembers the count for the next process; "" means that it is forgotten. Processes
	// may share it.
	File string
	Log  *slog.Logger // nil means the default one
}

// Replicas is how many gateways share the limits, also in a process that started while the
// store that counts them was away. Its methods may be called concurrently.
type Replicas struct {
	opt    ReplicasOptions
	before int // by the file; 0: not known
}

const (
	// replicasPause is between two looks at whether the count has changed.
	replicasPause = 5 * time.Second
	// maxReplicas is more than anybody has: a file that says so is wrong.
	maxReplicas = 1 << 16
)

// NewReplicas reads what an earlier process knew. A file that cannot be used is told and
// passed over.
func NewReplicas(o ReplicasOptions) *Replicas {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	r := &Replicas{opt: o}
	if o.File == "" {
		return r
	}
	n, err := readReplicas(o.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("how many gateways there were is not known", "error", err)
	}
	r.before = n
	return r
}

func readReplicas(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 || n > maxReplicas {
		return 0, fmt.Errorf("%s holds no number of gateways", file)
	}
	return n, nil
}

// Count is at least 1: what the store said last, or before it has answered what an earlier
// process knew, and never less than Least.
func (r *Replicas) Count() int {
	n := r.opt.Seen()
	if n < 1 {
		n = r.before
	}
	return max(n, r.opt.Least, 1)
}

// Run keeps the file until ctx ends. Without a file it returns at once.
func (r *Replicas) Run(ctx context.Context) {
	if r.opt.File == "" {
		return
	}
	kept, failed := r.before, false
	tick := time.NewTicker(replicasPause)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ended = true
		}
		n := r.opt.Seen()
		if n < 1 || n == kept {
			continue
		}
		err := writeReplicas(r.opt.File, n)
		if err == nil {
			kept = n
		} else if !failed {
			r.opt.Log.Warn("how many gateways there are is not remembered", "error", err)
		}
		failed = err != nil
	}
}

// writeReplicas replaces the file as a whole.
func writeReplicas(file string, n int) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, n)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
