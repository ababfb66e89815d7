package auth

import (
	"net/netip"
	"sync"
	"time"
)

// tries bounds wrong credentials per address: so many at once, and so many a minute. IPv6
// addresses count by their /64, which one customer has. It may be used concurrently.
type tries struct {
	most int
	now  func() time.Time

	mu    sync.Mutex
	spent map[netip.Addr]spent
}

// spent is how many tries an address has used at a time; they come back evenly.
type spent struct {
	tries float64
	at    time.Time
}

// addressesKept bounds the memory, to about a megabyte. When so many addresses have spent
// tries within a minute, the others share one count.
const addressesKept = 10_000

func newTries(most int, now func() time.Time) *tries {
	return &tries{most: most, now: now, spent: map[netip.Addr]spent{}}
}

// bucketOf is what counts as one address.
func bucketOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // of a valid address
		return p.Addr()
	}
	return a
}

// take spends a try; when there is none left, wait is how long until there is one.
func (t *tries) take(a netip.Addr) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key, s := t.find(a)
	if s.tries+1 > float64(t.most) {
		return time.Duration((s.tries + 1 - float64(t.most)) * float64(t.every()))
	}
	s.tries++
	t.spent[key] = s
	return 0
}

// wait is how long until there is a try; it spends none.
func (t *tries) wait(a netip.Addr) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, s := t.find(a); s.tries+1 > float64(t.most) {
		return time.Duration((s.tries + 1 - float64(t.most)) * float64(t.every()))
	}
	return 0
}

// giveBack undoes take: the credential was right.
func (t *tries) giveBack(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key, s := t.find(a)
	if s.tries = max(s.tries-1, 0); s.tries == 0 {
		delete(t.spent, key)
		return
	}
	t.spent[key] = s
}

func (t *tries) every() time.Duration { return time.Minute / time.Duration(t.most) }

// find brings an address's count up to now. mu is held.
func (t *tries) find(a netip.Addr) (netip.Addr, spent) {
	now, key := t.now(), bucketOf(a)
	s, ok := t.spent[key]
	if !ok && len(t.spent) >= addressesKept {
		t.sweep(now)
		if len(t.spent) >= addressesKept {
			key = netip.Addr{}
			s = t.spent[key]
		}
	}
	if !s.at.IsZero() {
		s.tries = max(s.tries-float64(now.Sub(s.at))/float64(t.every()), 0)
	}
	s.at = now
	return key, s
}

// sweep forgets those whose tries are all back.
func (t *tries) sweep(now time.Time) {
	for a, s := range t.spent {
		if float64(now.Sub(s.at))/float64(t.every()) >= s.tries {
			delete(t.spent, a)
		}
	}
}
