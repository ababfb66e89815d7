// Package router knows which targets can answer for a model and how to get one
// answer out of them: one attempt after the other, each with its own time limits,
// for as long as the client has not seen content.
package router

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/providers"
)

// Phases are the time limits of one attempt.
type Phases struct {
	Headers    time.Duration // until the upstream answers at all
	FirstToken time.Duration // from there to the first content, on the last target
	Between    time.Duration // between two contents
	Silence    time.Duration // without a single byte, pings included
}

// Target is one place where a model can be asked.
type Target struct {
	Name     string // upstream/model, as x-sluice-target tells it
	Provider providers.Provider
	Upstream string // the name of its upstream in the catalog
	Model    string // there
	Override Override
	Phases   Phases
	Local    bool
	Weight   int

	list   *listed      // its upstream's, nil outside a catalog
	cooled atomic.Int64 // unix nanoseconds until which it is left alone
	named  atomic.Pointer[http.Header]
}

// header tells the client which target answers. It is shared: nobody writes to it.
func (t *Target) header() http.Header {
	h := t.named.Load()
	if h == nil {
		h = &http.Header{"X-Sluice-Target": {t.Name}}
		t.named.Store(h)
	}
	return *h
}

func (t *Target) coolFor(d time.Duration, now time.Time) {
	t.cooled.Store(now.Add(d).UnixNano())
}

func (t *Target) healthy(now time.Time) bool { return t.cooled.Load() <= now.UnixNano() }

// Pool is the targets behind one model name. It is safe for concurrent use.
type Pool struct {
	Model     string
	PresentAs string
	Targets   []*Target
	// FailoverAfter is how long the first token may take while another target remains; 0 means the default.
	FailoverAfter time.Duration

	budget budget
}

// Local reports whether a target is a local server, which may have to load a model first.
func (p *Pool) Local() bool {
	for _, t := range p.Targets {
		if t.Local {
			return true
		}
	}
	return false
}

// pick chooses by weight among the healthy targets not tried yet; if there is none,
// among the healthy ones, then among all; never a spent one, so that nil means that
// all are. others is how many untried healthy ones remain.
func (p *Pool) pick(tried, spent []*Target, now time.Time) (t *Target, others int) {
	if len(p.Targets) == 1 && len(spent) == 0 {
		return p.Targets[0], 0
	}
	var fresh, healthy, all []*Target
	for _, t := range p.Targets {
		if slices.Contains(spent, t) {
			continue
		}
		all = append(all, t)
		if !t.healthy(now) {
			continue
		}
		healthy = append(healthy, t)
		if !slices.Contains(tried, t) {
			fresh = append(fresh, t)
		}
	}
	switch {
	case len(fresh) > 0:
		return weighted(fresh), len(fresh) - 1
	case len(healthy) > 0:
		return weighted(healthy), 0
	case len(all) > 0:
		return weighted(all), 0
	default:
		return nil, 0
	}
}

func weighted(targets []*Target) *Target {
	sum := 0
	for _, t := range targets {
		sum += t.Weight
	}
	if sum <= 0 {
		return targets[0]
	}
	n := rand.IntN(sum)
	for _, t := range targets {
		if n -= t.Weight; n < 0 {
			return t
		}
	}
	return targets[len(targets)-1]
}

// Budget bounds how many retries a pool makes, so that a sick upstream is not
// trampled: a share of the calls plus a steady trickle.
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

func (b *budget) most(c Budget) float64 { return max(1, budgetSeconds*c.PerSecond) }

func (b *budget) refill(c Budget, now time.Time) {
	if b.at.IsZero() {
		b.tokens = b.most(c)
	} else {
		b.tokens = min(b.tokens+c.PerSecond*now.Sub(b.at).Seconds(), b.most(c))
	}
	b.at = now
}
