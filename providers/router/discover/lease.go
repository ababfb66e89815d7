package discover

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Leases are servers that announce themselves, each for a while. Who does not come again in
// time is drained, and forgotten later. It is safe for concurrent use.
type Leases struct {
	mu      sync.Mutex
	members map[string]*lease // by id
	changed chan struct{}     // closed and renewed
}

type lease struct {
	Member
	until time.Time
}

// NewLeases returns an empty list.
func NewLeases() *Leases {
	return &Leases{members: map[string]*lease{}, changed: make(chan struct{})}
}

// forgetAfter is how long a server whose lease is over stands among the drained ones.
const forgetAfter = 10 * time.Minute

// ErrFull is told to a server that would be one too many.
var ErrFull = errors.New("as many servers as there may be are registered")

// Put begins a lease, or goes on with it; fresh says that it was not in force before, or of
// another member.
func (l *Leases) Put(id string, m Member, ttl time.Duration) (fresh bool, err error) {
	if err := checkAddress(m.Address); err != nil {
		return false, err
	}
	m.Weight = max(m.Weight, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.members[id]
	if was == nil && len(l.members) >= maxMembers {
		return false, ErrFull
	}
	now := time.Now()
	fresh = was == nil || !now.Before(was.until) || was.Member != m
	until := now.Add(ttl)
	l.members[id] = &lease{m, until}
	if fresh || until.Before(was.until) {
		l.tell()
	}
	return fresh, nil
}

// End ends a lease: the server gets nothing new, and what runs goes on. It reports whether there was one in force.
func (l *Leases) End(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.members[id]
	if m == nil || !time.Now().Before(m.until) {
		return false
	}
	m.until = time.Now()
	l.tell()
	return true
}

// tell wakes who watches, under l.mu.
func (l *Leases) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Watch implements Source.
func (l *Leases) Watch(ctx context.Context, tell func([]Member, error)) {
	for {
		members, next, changed := l.now()
		tell(members, nil)
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// now is the list, and how long it holds unless somebody changes it.
func (l *Leases) now() (all []Member, next time.Duration, changed chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	next = forgetAfter
	for id, m := range l.members {
		left := m.until.Sub(now)
		one := m.Member
		if left <= 0 {
			if left += forgetAfter; left <= 0 {
				delete(l.members, id)
				continue
			}
			one.Drained = true
		}
		next = min(next, left)
		all = append(all, one)
	}
	// Of two with one address the one that is in force counts.
	slices.SortFunc(all, func(a, b Member) int { return order(a.Drained) - order(b.Drained) })
	seen := map[string]bool{}
	all = slices.DeleteFunc(all, func(m Member) bool {
		twice := seen[m.Address]
		seen[m.Address] = true
		return twice
	})
	all, _ = tidy(all)
	return all, next, l.changed
}

func order(drained bool) int {
	if drained {
		return 1
	}
	return 0
}
