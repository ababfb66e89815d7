package auth

import (
	"errors"
	"net/netip"
	"sync"
	"time"
)

// tries bounds wrong credentials per address: so many at once, and so many a minute. IPv6
// addresses count by their /64, which one customer has. It may be used concurrently.
type tries struct {
	most int
	bits int // of an IPv4 address that count as one
	now  func() time.Time

	mu    sync.Mutex
	spent map[netip.Addr]spent
	swept time.Time
}

// WrongKeys bounds the wrong API keys of a network: the /24 of an IPv4 address, the /64 of an
// IPv6 one. It is asked after a key has turned out wrong, so that right ones from the same
// network are never kept out, and cost nothing more. It may be used concurrently.
type WrongKeys struct{ tries *tries }

// NewWrongKeys lets so many wrong keys of a network be told to be wrong, at once and a minute; 0
// lets all.
func NewWrongKeys(perMinute int) *WrongKeys {
	if perMinute <= 0 {
		return nil
	}
	t := newTries(perMinute, time.Now)
	t.bits = 24
	return &WrongKeys{t}
}

// Count replaces an error that wraps ErrWrongKey by *TooManyTries when there were too many. Of a
// nil WrongKeys, and of any other error, it returns the error.
func (w *WrongKeys) Count(from netip.Addr, err error) error {
	if w == nil || !errors.Is(err, ErrWrongKey) {
		return err
	}
	if wait := w.tries.take(from); wait > 0 {
		return &TooManyTries{wait}
	}
	return err
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
	return &tries{most: most, bits: 32, now: now, spent: map[netip.Addr]spent{}}
}

// bucketOf is what counts as one address.
func (t *tries) bucketOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	bits := t.bits
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero value of the zero address
	return p.Addr()
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
	now, key := t.now(), t.bucketOf(a)
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

// sweep forgets those whose tries are all back, at most once a second: it looks at all of them.
func (t *tries) sweep(now time.Time) {
	if now.Sub(t.swept) < time.Second {
		return
	}
	t.swept = now
	for a, s := range t.spent {
		if float64(now.Sub(s.at))/float64(t.every()) >= s.tries {
			delete(t.spent, a)
		}
	}
}
