package router

import (
	"sync"
	"time"
)

// Budget bounds how many retries a pool makes, so that a sick upstream is not
// trampled: a share of the calls plus a steady trickle. A retry at another target that
// is known to be well is not counted.
type Budget struct {
	Share     float64 // retries per call, e.g. 0.1
	PerSecond float64
}

// budgetSeconds is how much of the trickle a quiet pool may save up.
const budgetSeconds = 10

type budget struct {
	mu     sync.Mutex
	tokens float64
	at     time.Time
}

func (b *budget) call(c Budget, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(c, now)
	b.tokens = min(b.tokens+c.Share, b.most(c))
}

// take reports whether a retry may be made now. A pool that was quiet has at least one.
func (b *budget) take(c Budget, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(c, now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// inherit begins with what another has left.
func (b *budget) inherit(old *budget) {
	old.mu.Lock()
	tokens, at := old.tokens, old.at
	old.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens, b.at = tokens, at
}

func (b *budget) most(c Budget) float64 { return max(1, budgetSeconds*c.PerSecond) }

func (b *budget) refill(c Budget, now time.Time) {
	if b.at.IsZero() {
		b.tokens = b.most(c)
	} else {
		b.tokens = min(b.tokens+c.PerSecond*now.Sub(b.at).Seconds(), b.most(c))
	}
	b.at = now
}
