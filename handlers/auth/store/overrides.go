package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Override is one value that is set over the configuration while the gateway runs.
type Override struct {
	Path    string    `json:"path"`
	Value   string    `json:"value"` // as TOML writes it
	By      string    `json:"by"`    // who set it
	At      time.Time `json:"at"`
	Note    string    `json:"note,omitempty"`
	Version uint64    `json:"version"` // that of the set when it was written
}

// OverrideSet is all of them at one moment. It is read only.
type OverrideSet struct {
	Version uint64     `json:"version"` // grows with every edit; 0: there never was one
	Items   []Override `json:"items"`   // by path

	tag string // names the edit: two gateways may make the same version of different ones
}

// Get finds one by its path.
func (s *OverrideSet) Get(path string) (Override, bool) {
	i, ok := slices.BinarySearchFunc(s.Items, path, func(o Override, path string) int { return cmp.Compare(o.Path, path) })
	if !ok {
		return Override{}, false
	}
	return s.Items[i], true
}

// Bounds on what is set over a configuration.
const (
	maxOverrides     = 1000
	maxOverrideText  = 1 << 10 // of a path, a value or a note
	overridesVersion = 1
	overridesEvery   = 300 * time.Millisecond // between two looks whether another gateway has changed them
)

// ErrNoOverride means that nothing is set over this path.
var ErrNoOverride = errors.New("there is no override of this path")

// board is where the overrides lie: one text, replaced as a whole. All methods may be called
// concurrently.
type board interface {
	// readBoard returns the text, nil when there is none, unless the tag is that of it:
	// then same is set.
	readBoard(ctx context.Context, tag string) (text []byte, same bool, err error)
	// writeBoard puts a text with its version and tag in place of the version was, 0 for
	// none. The error is ErrConflict when there is another one.
	writeBoard(ctx context.Context, was, is uint64, tag string, text []byte) error
}

// Overrides are values that are set over the configuration, for all gateways that share a
// store. Every gateway has a copy, which is up to date within a second while the store can
// be reached, and stays as it is while it cannot. All methods may be called concurrently,
// but Close once and last.
type Overrides struct {
	board board
	log   *slog.Logger
	now   func() time.Time
	set   atomic.Pointer[OverrideSet]

	syncing sync.Mutex // held while the board is read or written
	trouble string     // the last one that was told; guarded by syncing
	stop    context.CancelFunc
	ended   chan struct{}
}

// Overrides opens those of the store. changed is called, from a goroutine of its own, after
// they have changed, be it here or at another gateway. When Redis cannot be reached there are none until
// it can be.
func (s *Store) Overrides(ctx context.Context, changed func()) (*Overrides, error) {
	b, ok := s.attic.(board)
	if !ok {
		return nil, errors.New("this store keeps no overrides")
	}
	o := &Overrides{board: b, log: s.log, now: s.o.Now, ended: make(chan struct{}), stop: func() {}}
	o.set.Store(&OverrideSet{})
	if err := o.sync(ctx); err != nil && !s.remote {
		return nil, err
	}
	if !s.remote {
		close(o.ended)
		return o, nil
	}
	follow, stop := context.WithCancel(context.Background())
	o.stop = stop
	go o.follow(follow, o.set.Load(), changed)
	return o, nil
}

// Close ends following; the store stays open.
func (o *Overrides) Close() {
	o.stop()
	<-o.ended
}

// All are the overrides as this gateway knows them. It does not wait.
func (o *Overrides) All() *OverrideSet { return o.set.Load() }

// follow keeps the copy what the board has, until ctx ends.
func (o *Overrides) follow(ctx context.Context, told *OverrideSet, changed func()) {
	defer close(o.ended)
	look := time.NewTicker(overridesEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		_ = o.sync(ctx) // it is told
		if set := o.set.Load(); set != told && ctx.Err() == nil {
			told = set
			changed()
		}
	}
}

// sync reads the board. One that has lost what the copy knows, as a Redis that was restarted
// empty has, gets it back.
func (o *Overrides) sync(ctx context.Context) error {
	o.syncing.Lock()
	defer o.syncing.Unlock()
	have := o.set.Load()
	text, same, err := o.board.readBoard(ctx, have.tag)
	if err == nil && !same {
		err = o.take(ctx, have, text)
	}
	if ctx.Err() == nil {
		o.note(err)
	}
	return err
}

// take puts what the board has in place of the copy, unless the copy is newer.
func (o *Overrides) take(ctx context.Context, have *OverrideSet, text []byte) error {
	found, err := decodeOverrides(text)
	if err != nil {
		return err
	}
	if found.Version >= have.Version {
		o.set.Store(found)
		return nil
	}
	if err := o.write(ctx, found.Version, have); err != nil {
		return err
	}
	o.log.Warn("the store had lost overrides of the configuration, which it was given back", slog.Int("overrides", len(have.Items)))
	return nil
}

// note tells of trouble when it begins and when it ends. syncing is held.
func (o *Overrides) note(err error) {
	is := ""
	if err != nil {
		is = err.Error()
	}
	switch {
	case is == o.trouble:
	case is == "":
		o.log.Info("the overrides of the configuration can be read again")
	default:
		o.log.Error("the overrides of the configuration cannot be read; they stay as they are here", slog.Any("error", err))
	}
	o.trouble = is
}

// Set puts one override in place, of whatever version, or of version if that is not 0. It
// returns the one that was there before, which has Version 0 when there was none. Errors are
// Problems, ErrConflict, ErrFull, those of ctx, or wrap ErrUnavailable: then the edit may have
// been done.
func (o *Overrides) Set(ctx context.Context, item Override, version uint64) (was, is Override, err error) {
	if err := item.check(); err != nil {
		return was, is, err
	}
	item.At = o.now().UTC().Truncate(time.Millisecond)
	err = o.edit(ctx, func(set *OverrideSet) error {
		var there bool
		if was, there = set.Get(item.Path); version != 0 && was.Version != version {
			return ErrConflict
		}
		item.Version = set.Version
		is = item
		if !there && len(set.Items) >= maxOverrides {
			return fmt.Errorf("%w: more than %d overrides of the configuration", ErrFull, maxOverrides)
		}
		set.Items = append(without(set.Items, item.Path), item)
		return nil
	})
	return was, is, err
}

// Remove takes one override away. Errors are ErrNoOverride and those of Set.
func (o *Overrides) Remove(ctx context.Context, path string, version uint64) (was Override, err error) {
	err = o.edit(ctx, func(set *OverrideSet) error {
		var there bool
		was, there = set.Get(path)
		switch {
		case !there:
			return ErrNoOverride
		case version != 0 && was.Version != version:
			return ErrConflict
		}
		set.Items = without(set.Items, path)
		return nil
	})
	return was, err
}

func without(items []Override, path string) []Override {
	return slices.DeleteFunc(items, func(o Override) bool { return o.Path == path })
}

func (item *Override) check() error {
	var bad Problems
	for _, f := range []struct{ name, text string }{{"path", item.Path}, {"value", item.Value}, {"note", item.Note}, {"by", item.By}} {
		if len(f.text) > maxOverrideText {
			bad = append(bad, Problem{f.name, fmt.Sprintf("want at most %d bytes", maxOverrideText)})
		}
	}
	if item.Path == "" {
		bad = append(bad, Problem{"path", "it is required"})
	}
	if len(bad) > 0 {
		return bad
	}
	return nil
}

// edit replaces the set by what change makes of a copy, which has the next version already.
func (o *Overrides) edit(ctx context.Context, change func(*OverrideSet) error) (err error) {
	for range triesToEdit {
		if err = o.sync(ctx); err != nil {
			return unavailable(ctx, err)
		}
		have := o.set.Load()
		next := &OverrideSet{Version: have.Version + 1, Items: slices.Clone(have.Items), tag: rand.Text()}
		if err := change(next); err != nil {
			return err
		}
		slices.SortFunc(next.Items, func(a, b Override) int { return cmp.Compare(a.Path, b.Path) })
		if err = o.replace(ctx, have, next); err == nil {
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return unavailable(ctx, err)
		}
	}
	return err
}

// replace writes next where have is known to be.
func (o *Overrides) replace(ctx context.Context, have, next *OverrideSet) error {
	o.syncing.Lock()
	defer o.syncing.Unlock()
	if o.set.Load() != have {
		return ErrConflict
	}
	if err := o.write(ctx, have.Version, next); err != nil {
		return err
	}
	o.set.Store(next)
	return nil
}

func (o *Overrides) write(ctx context.Context, was uint64, set *OverrideSet) error {
	text, err := json.Marshal(overridesJSON{overridesVersion, set.tag, set})
	if err != nil {
		return err
	}
	return o.board.writeBoard(ctx, was, set.Version, set.tag, text)
}

// overridesJSON is the stored form.
type overridesJSON struct {
	Format int    `json:"v"`
	Tag    string `json:"tag"`
	*OverrideSet
}

// decodeOverrides reads the stored form; no text is an empty set.
func decodeOverrides(text []byte) (*OverrideSet, error) {
	set := new(OverrideSet)
	if text == nil {
		return set, nil
	}
	in := overridesJSON{OverrideSet: set}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, fmt.Errorf("read the overrides of the configuration: %w", err)
	}
	if in.Format != overridesVersion || set.Version == 0 || in.Tag == "" {
		return nil, fmt.Errorf("the overrides of the configuration have the format %d, this gateway knows %d", in.Format, overridesVersion)
	}
	set.tag = in.Tag
	slices.SortFunc(set.Items, func(a, b Override) int { return cmp.Compare(a.Path, b.Path) })
	return set, nil
}
