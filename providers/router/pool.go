// Package router knows which targets can answer for a model and how to get one
// answer out of them: one attempt after the other, each with its own time limits,
// for as long as the client has not seen content.
package router

import (
	"net/http"
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
	Version  string // of the public model, for who asks for one; "" is any
	Override Override
	Phases   Phases
	Local    bool
	Weight   int  // against the others of its tier; 0: only when no other of it is left
	Priority int  // its tier: lower ones are asked while one in them can be
	Drained  bool // asked nothing more; what runs goes on
	// MaxRunning is how many attempts of this process run there at once; 0 is no bound.
	MaxRunning int

	list   *listed // its upstream's, nil outside a catalog
	known  atomic.Pointer[state]
	named  atomic.Pointer[http.Header]
	hashed atomic.Uint64 // of its name
	able   atomic.Pointer[knower]
}

// state is the target's own until a catalog shares another.
func (t *Target) state() *state {
	if s := t.known.Load(); s != nil {
		return s
	}
	t.known.CompareAndSwap(nil, new(state))
	return t.known.Load()
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

// Pool is the targets behind one model name. It is safe for concurrent use.
type Pool struct {
	Model     string   // its name, or a pattern in which * stands for any characters
	Aliases   []string // further names
	PresentAs string
	Targets   []*Target
	// Make is the pool for one name, where Model is a pattern.
	Make func(model string) *Pool
	// FailoverAfter is how long the first token may take while another target remains; 0 means the default.
	FailoverAfter time.Duration
	Balance       Balance
	Affinity      Affinity // for BalanceHash
	// Fallback are the models that are asked, in order, when no target here can answer;
	// FallbackContext when the request is too long for this model.
	Fallback, FallbackContext []string
	Hedge                     Hedge
	Eject                     Eject
	// Continue has another target go on with an answer of plain text that broke in the middle.
	Continue bool
	// Shadow is what gets copies of its calls.
	Shadow Shadow

	base    string // of the targets of one version, the model; "" else
	budget  budget
	turn    atomic.Uint32 // of BalanceRoundRobin
	hedged  hedges
	swept   atomic.Int64 // uptime of the last search for outliers
	mu      sync.Mutex
	current []int // of BalanceWeighted, by target
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
