package router

import "sync"

// states are what is known of the targets of a catalog, by their names.
type states struct {
	mu    sync.Mutex
	known map[string]known
}

type known struct {
	*state
	upstream string
}

// maxStates bounds what is remembered: patterns let any name of a model through.
const maxStates = 8192

func newStates() *states { return &states{known: map[string]known{}} }

// share gives a target the state of its name.
func (s *states) share(t *Target) { t.known.Store(s.of(t.Name, t.Upstream)) }

func (s *states) of(target, upstream string) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.known[target]; ok {
		return k.state
	}
	if len(s.known) >= maxStates {
		s.forget()
	}
	k := known{new(state), upstream}
	s.known[target] = k
	return k.state
}

// forget drops those that nothing is to be said of. Where that is too few, since names that
// were made up have failed, it drops half of those that nothing runs at: targets that are
// still asked keep what they have.
func (s *states) forget() {
	for name, k := range s.known {
		if k.running.Load() == 0 && !k.odd.Load() {
			delete(s.known, name)
		}
	}
	for name, k := range s.known {
		if len(s.known) <= maxStates/2 {
			return
		}
		if k.running.Load() == 0 {
			delete(s.known, name)
		}
	}
}

func (s *states) all() map[string]known {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]known, len(s.known))
	for name, k := range s.known {
		out[name] = k
	}
	return out
}

// Inherit takes over what is known of targets and upstreams that old has too: the state of
// each target by its name, the retry budgets by model, and the newest lists of models. same
// says whether an upstream is reached as before; a nil old does nothing. It is called
// once, before the catalog is used. Both catalogs go on sharing the states.
func (c *Catalog) Inherit(old *Catalog, same func(upstream string) bool) {
	if old == nil {
		return
	}
	for name, k := range old.states.all() {
		if same(k.upstream) {
			c.states.known[name] = k
		}
	}
	for _, p := range c.every() {
		for _, t := range p.Targets {
			c.states.share(t)
		}
		if was := old.names[p.Model]; was != nil {
			p.budget.inherit(&was.budget)
		}
	}
	for _, u := range c.upstreams {
		if was := old.upstream(u.Name); was != nil && same(u.Name) {
			u.inherit(was)
		}
	}
}

// inherit takes over the newest list.
func (u *listed) inherit(old *listed) {
	old.mu.Lock()
	models, told, at, failed, err := old.models, old.told, old.at, old.failed, old.err
	old.mu.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.models, u.told, u.at, u.failed, u.err = models, told, at, failed, err
	u.tell.Store(len(told) > 0)
}
