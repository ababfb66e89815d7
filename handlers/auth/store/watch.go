package store

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/handlers/auth"
)

// Revocation says which secrets of a key are no longer good.
type Revocation struct {
	ID auth.KeyID
	// Before is the serial of the oldest secret that still is good; 0: none is, because
	// the key is disabled, expired or deleted.
	Before uint32
}

// Ends reports whether a call that came with a secret is to end.
func (r Revocation) Ends(serial uint32) bool { return r.Before == 0 || serial < r.Before }

// OnRevoked has f called for every secret that ceases to be good from now on, whatever the
// reason and at whichever replica: within a second while the shelf can be reached. f is called
// from any goroutine, must return soon and must not edit or list keys.
func (s *Store) OnRevoked(f func(Revocation)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked = append(s.revoked, f)
}

// moment is when time ends something of a key.
type moment struct {
	at time.Time
	id auth.KeyID
}

// moments are a heap; the first comes first.
type moments []moment

func (m moments) Len() int           { return len(m) }
func (m moments) Less(i, j int) bool { return m[i].at.Before(m[j].at) }
func (m moments) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }

// Push is for container/heap.
func (m *moments) Push(x any) { *m = append(*m, x.(moment)) }

// Pop is for container/heap.
func (m *moments) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}

// apply takes a key into the copy unless the copy knows better. Of two keys with the same
// version the shelf's is taken when everything is read: one of them was lost by Redis.
func (s *Store) apply(k *Key, sum uint32, whole bool) {
	s.mu.Lock()
	e := s.copy.get(k.ID)
	if e != nil {
		have := e.key.Load().Version
		if k.Version < have || k.Version == have && (!whole || sum == e.sum) {
			s.mu.Unlock()
			return
		}
	}
	e, was := s.copy.set(k)
	e.sum = sum
	if was == nil {
		e.dead = true // nothing runs with it
	}
	r, ends := s.judge(e, k)
	tell := s.revoked
	s.mu.Unlock()
	if ends && was != nil {
		for _, f := range tell {
			f(r)
		}
	}
}

// judge finds what of a key has ended since it was last called. s.mu is held.
func (s *Store) judge(e *entry, k *Key) (r Revocation, ends bool) {
	now := s.o.Now()
	oldest, dead := k.oldest(now)
	switch {
	case dead && !e.dead:
		r, ends = Revocation{ID: k.ID}, true
	case !dead && oldest > e.oldest:
		r, ends = Revocation{ID: k.ID, Before: oldest}, true
	}
	if e.dead = dead; !dead {
		e.oldest = oldest
	}
	next := k.next(now)
	if dead && k.state(now) != nil {
		next = time.Time{}
	}
	if !next.IsZero() && (e.pending.IsZero() || next.Before(e.pending)) {
		e.pending = next
		heap.Push(&s.moments, moment{next, k.ID})
	}
	return r, ends
}

// pass ends what time has ended.
func (s *Store) pass() {
	now := s.o.Now()
	var all []Revocation
	s.mu.Lock()
	for len(s.moments) > 0 && !s.moments[0].at.After(now) {
		m := heap.Pop(&s.moments).(moment)
		e := s.copy.get(m.id)
		if e == nil {
			continue
		}
		if e.pending.Equal(m.at) {
			e.pending = time.Time{}
		}
		if r, ends := s.judge(e, e.key.Load()); ends {
			all = append(all, r)
		}
	}
	tell := s.revoked
	s.mu.Unlock()
	for _, r := range all {
		for _, f := range tell {
			f(r)
		}
	}
}

// watchClock lets time pass until ctx ends. It waits for nobody.
func (s *Store) watchClock(ctx context.Context) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.pass()
			s.setLevel()
		}
	}
}

func (s *Store) setLevel() {
	age, level := s.age(), fresh
	switch {
	case s.fresh.Load() == 0, s.o.MaxStale > 0 && age > s.o.MaxStale:
		level = tooOld
	case age > lateAfter:
		level = late
	}
	s.level.Store(level)
}

// follow keeps the copy what the shelf holds, and the shelf informed, until ctx ends.
func (s *Store) follow(ctx context.Context) {
	look, minute, hour := time.NewTicker(lookEvery), time.NewTicker(time.Minute), time.NewTicker(time.Hour)
	defer look.Stop()
	defer minute.Stop()
	defer hour.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			_ = s.sync(ctx)
		case <-look.C:
			_ = s.sync(ctx)
		case <-minute.C:
			_ = s.flushUsed(ctx)
		case <-hour.C:
			s.forget(ctx)
		}
	}
}

// sync reads what has changed. When everything had to be read, the shelf gets back what it
// has lost and the copy knows. Trouble is logged when it begins and when it ends.
func (s *Store) sync(ctx context.Context) error {
	if !s.remote && s.fresh.Load() != 0 {
		return nil
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	began := time.Since(s.began)
	seen := map[auth.KeyID]uint64{}
	whole, err := s.shelf.read(ctx, func(text []byte, whole bool) {
		k, err := decode(text)
		if err != nil {
			s.log.Error("a stored key cannot be read and is refused", "error", err)
		}
		if k == nil {
			return
		}
		if whole {
			seen[k.ID] = k.Version
		}
		s.apply(k, sumOf(text), whole)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.note(err)
	if err != nil {
		return err
	}
	s.fresh.Store(int64(max(began, 1)))
	s.setLevel()
	if whole {
		s.heal(ctx, seen)
	}
	return nil
}

// note keeps the last trouble.
func (s *Store) note(err error) {
	if err == nil {
		if was := s.fault.Swap(nil); was != nil {
			s.log.Info("the store of the keys can be read again")
		}
		return
	}
	if was := s.fault.Swap(&err); was == nil || (*was).Error() != err.Error() {
		s.log.Error("the store of the keys cannot be read; the copy is used", "error", err, "age", s.age().Round(time.Second))
	}
}

const editsAtOnce = 500

// heal writes what the copy knows and the shelf, which holds the versions that were seen, has
// lost: Redis was restarted empty, or a replica took over that had not heard everything.
func (s *Store) heal(ctx context.Context, seen map[auth.KeyID]uint64) {
	var lost []edit
	s.copy.all(func(id auth.KeyID, e *entry) {
		k := e.key.Load()
		if k.Version <= seen[id] || s.forgettable(k) {
			return
		}
		if text, err := k.encode(); err == nil {
			lost = append(lost, edit{id, seen[id], k.Version, text})
		}
	})
	if len(lost) == 0 {
		return
	}
	for from := 0; from < len(lost); from += editsAtOnce {
		for _, err := range s.shelf.write(ctx, lost[from:min(from+editsAtOnce, len(lost))]) {
			if err != nil && !errors.Is(err, ErrConflict) {
				s.note(fmt.Errorf("give back keys that the store has lost: %w", err))
				s.again()
				return
			}
		}
	}
	s.log.Warn("the store had lost keys, which it was given back from this copy", "keys", len(lost))
}

// again has the shelf read whole at the next look.
func (s *Store) again() {
	if r, ok := s.shelf.(interface{ restart() }); ok {
		r.restart()
	}
}

// forgettable reports whether a deleted key need not be named any more.
func (s *Store) forgettable(k *Key) bool {
	return !k.Deleted.IsZero() && s.o.Now().Sub(k.Deleted) > s.o.KeepDeleted
}

// forget drops the deleted keys that need not be named any more.
func (s *Store) forget(ctx context.Context) {
	var old []auth.KeyID
	s.copy.all(func(id auth.KeyID, e *entry) {
		if s.forgettable(e.key.Load()) {
			old = append(old, id)
		}
	})
	if len(old) == 0 {
		return
	}
	if err := s.attic.purge(ctx, old); err != nil {
		s.log.Warn("deleted keys could not be dropped; this is tried again in an hour", "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range old {
		s.copy.drop(id)
	}
}

// flushUsed hands on which keys were used since it was last called.
func (s *Store) flushUsed(ctx context.Context) error {
	used := map[auth.KeyID]int64{}
	s.mu.Lock()
	s.copy.all(func(id auth.KeyID, e *entry) {
		if at := e.used.Load(); at > e.told {
			used[id] = at
		}
	})
	s.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	if err := s.attic.touch(ctx, used); err != nil {
		return err // they are handed on with the next ones
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, at := range used {
		if e := s.copy.get(id); e != nil {
			e.told = at
		}
	}
	return nil
}
