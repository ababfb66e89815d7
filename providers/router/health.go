package router

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// Health says how targets are asked whether they are well, beside the calls of clients.
// The zero value asks nobody.
type Health struct {
	Every   time.Duration // between two checks of a target, ± 20 %
	Timeout time.Duration
	Sick    int // failed checks in a row after which it is asked nothing
	Well    int // good ones after which it is asked again
}

// Check asks one target, or one upstream, whether it is well. It must end with ctx.
type Check struct {
	Upstream string // its name
	Target   string // "" stands for all targets of the upstream
	// Ask returns why the target is not well.
	Ask func(ctx context.Context) error
	// Serves says that a good check is an answer of the model itself: it tells the breaker
	// as much as a client's call does.
	Serves bool
	Health
}

// checked is what checks have told of a target. Its state's mutex guards it.
type checked struct {
	sick        bool
	good, bad   int // in a row
	at          time.Time
	every       time.Duration
	failure     string
	took        time.Duration
	count, fail int64
}

// Run checks targets until ctx ends, and returns when no check runs any more. It is
// called once.
func (c *Catalog) Run(ctx context.Context) {
	c.uncheck()
	var all sync.WaitGroup
	for i := range c.checks {
		all.Go(func() { c.watch(ctx, &c.checks[i]) })
	}
	<-ctx.Done()
	all.Wait()
}

// Watch sets what Run does, and the breaker that status and checks go by. It is called
// once, before the catalog is used.
func (c *Catalog) Watch(b *Breaker, checks []Check) { c.breaker, c.checks = b, checks }

// uncheck forgets what earlier checks have told of targets that nobody checks any more.
func (c *Catalog) uncheck() {
	for name, k := range c.states.all() {
		if !slices.ContainsFunc(c.checks, func(one Check) bool { return one.of(name, k.upstream) }) {
			k.unchecked()
		}
	}
}

func (k *Check) of(target, upstream string) bool {
	return k.Upstream == upstream && (k.Target == "" || k.Target == target)
}

// watch checks one target. The first check comes within a second, at a moment drawn by
// chance, like the pauses: many targets and gateways must not ask in step.
func (c *Catalog) watch(ctx context.Context, k *Check) {
	timer := time.NewTimer(time.Duration(rand.Float64() * float64(min(k.Every, time.Second))))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		started := uptime()
		one, cancel := context.WithTimeout(ctx, k.Timeout)
		err := k.Ask(one)
		cancel()
		if ctx.Err() != nil {
			return
		}
		took := uptime() - started
		for name, s := range c.states.all() {
			if k.of(name, s.upstream) {
				s.note(k, c.breaker, err, took)
			}
		}
		timer.Reset(time.Duration((0.8 + 0.4*rand.Float64()) * float64(k.Every)))
	}
}

// note takes what a check has told.
func (s *state) note(k *Check, cfg *Breaker, err error, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &s.checked
	h.at, h.took, h.every, h.failure = time.Now(), took, k.Every, ""
	h.count++
	if err != nil {
		h.fail++
		h.good, h.failure = 0, words(err)
		if h.bad++; h.bad >= k.Sick && !h.sick {
			h.sick = true
			s.odd.Store(true)
			s.say(err)
		}
		return
	}
	h.bad = 0
	if h.good++; h.sick && h.good >= k.Well {
		h.sick = false
		s.breaker.close(uptime()) // a small share first
	}
	if k.Serves && cfg != nil && s.breaker.at != closed {
		s.breaker.succeed(cfg, true, uptime())
	}
}

// unchecked forgets that a target was sick, once nobody asks any more.
func (s *state) unchecked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked = checked{}
}

// probes are the smallest requests that a model may be asked, by what it can do.
var probes = []struct {
	feature providers.Feature
	op      providers.Op
	path    string
	body    string
}{
	{providers.ChatRoute, providers.Chat, "/chat/completions", `{"model":"probe","messages":[{"role":"user","content":"hi"}],"max_tokens":1,"stream":true}`},
	{providers.CompletionsRoute, providers.Completions, "/completions", `{"model":"probe","prompt":"hi","max_tokens":1,"stream":true}`},
	{providers.EmbeddingsRoute, providers.Embeddings, "/embeddings", `{"model":"probe","input":"hi"}`},
}

// Probe asks the target for one token, as a client would, and ends with the first content.
// It is no call of anybody's: nothing is counted or billed.
func (t *Target) Probe(ctx context.Context) error {
	can := t.Capabilities(ctx, 0)
	for _, p := range probes {
		if can.No.Has(p.feature) {
			continue
		}
		req, err := providers.Parse(p.op, p.path, "application/json", []byte(p.body), 8)
		if err != nil {
			return err
		}
		req.ID = "probe"
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for batch, err := range t.Provider.Stream(ctx, req, streaming.NewProgress(time.Now())) {
			if err != nil || hasContent(batch) {
				return err
			}
		}
		return nil // an empty answer is one
	}
	return nil // there is nothing that it could be asked
}
