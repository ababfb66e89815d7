package router

import (
	"context"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"sluice/providers"
)

// listed is an upstream with the newest list it gave.
type listed struct {
	Upstream
	timeout, refresh time.Duration

	mu     sync.Mutex
	models []providers.Model
	told   map[string]providers.Capabilities // of models of which the list tells some
	at     time.Time                         // of the last good list
	failed time.Time                         // when the last failed try ended
	err    error                             // of the last try
	asking chan struct{}
	tell   atomic.Bool // told is not empty
}

// target is the one target for a model that this upstream serves.
func (u *listed) target(model string) *Target {
	return &Target{Name: u.Name + "/" + model, Upstream: u.Name, Model: model, Provider: u.Target(model),
		Override: u.Override, Phases: u.Phases, Local: u.Local, Drained: u.Drained, Weight: 1, list: u}
}

func (u *listed) declares(model string) bool {
	for _, pattern := range u.Models {
		if ok, err := path.Match(pattern, model); pattern == model || err == nil && ok || pattern == "*" {
			return true
		}
	}
	return false
}

func (u *listed) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at.IsZero() && u.Lister != nil {
		return u.err
	}
	return nil
}

// askPause is the least time between a failed try and the next, so that callers in
// a hurry do not become a storm at a server that is coming up.
const askPause = time.Second

// list returns the newest list and has an old one renewed. Only an upstream that
// never gave a list is waited for: for its first try, and again by a patient caller,
// who would fail without it, when the last failure is older than refresh.
func (u *listed) list(ctx context.Context, patient bool) []providers.Model {
	u.mu.Lock()
	wait := u.at.IsZero() && (u.failed.IsZero() || patient && time.Since(u.failed) >= u.refresh)
	u.mu.Unlock()
	asking := u.renew(ctx)
	if wait && asking != nil {
		select {
		case <-asking:
		case <-ctx.Done():
		}
	}
	return u.newest()
}

// renew has an old list asked for; the channel, nil when nobody asks, is closed when
// the answer is there.
func (u *listed) renew(ctx context.Context) chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.at.IsZero() || time.Since(u.at) >= u.refresh
	if old && u.asking == nil && (u.failed.IsZero() || time.Since(u.failed) >= askPause) {
		u.asking = make(chan struct{})
		go u.ask(context.WithoutCancel(ctx), u.asking)
	}
	return u.asking
}

func (u *listed) newest() []providers.Model {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.models
}

func (u *listed) ask(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	models, err := u.Lister.Models(ctx)
	told := u.read(models)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err = err; err == nil {
		u.models, u.told, u.at = models, told, time.Now()
		u.tell.Store(len(told) > 0)
	} else {
		u.failed = time.Now()
	}
	u.asking = nil
	close(done)
}

// read takes what the entries of a list tell of their models; nil when they tell nothing.
func (u *listed) read(models []providers.Model) (told map[string]providers.Capabilities) {
	teller, ok := u.Lister.(Teller)
	if !ok {
		return nil
	}
	for i := range models {
		if can := teller.Told(&models[i]); can.Yes|can.No != 0 {
			if told == nil {
				told = map[string]providers.Capabilities{}
			}
			told[models[i].ID] = can
		}
	}
	return told
}

// asks reports whether the newest list tells something of any model. Who needs more than
// a plain answer has an old list renewed, and does not wait for it.
func (u *listed) asks(ctx context.Context, of providers.Feature) bool {
	if u.Lister == nil {
		return false
	}
	if of&^providers.Routes != 0 {
		if _, ok := u.Lister.(Teller); ok {
			u.renew(ctx)
		}
	}
	return u.tell.Load()
}

// tells is what the newest list tells of a model.
func (u *listed) tells(model string) providers.Capabilities {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.told[model]
}

// capabilities are what is known of a model here.
func (u *listed) capabilities(ctx context.Context, model string) providers.Capabilities {
	return u.target(model).Capabilities(ctx, 0)
}
