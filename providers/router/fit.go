package router

import (
	"context"
	"fmt"

	"sluice/providers"
)

// Capable is a Provider that knows what its model can do.
type Capable interface {
	// Capabilities may ask the server about what it does not know of a set of features, and
	// then returns soon all the same; with an empty set it asks nobody. It is called for
	// every request, by any goroutine.
	Capabilities(ctx context.Context, of providers.Feature) providers.Capabilities
}

// Teller is a Lister whose entries tell what a model can do.
type Teller interface {
	// Told reads an entry of the list that Models returned.
	Told(m *providers.Model) providers.Capabilities
}

// Override is what the configuration says of a model, whatever else is known.
type Override struct{ Yes, No providers.Feature }

// Under is both, where o yields to another.
func (o Override) Under(other Override) Override {
	return Override{Yes: o.Yes&^other.No | other.Yes, No: o.No&^other.Yes | other.No}
}

// Capabilities are what is known of a target, as far as it matters for a set of
// features.
func (t *Target) Capabilities(ctx context.Context, of providers.Feature) (can providers.Capabilities) {
	if c := t.capable(); c != nil {
		can = c.Capabilities(ctx, of&^(t.Override.Yes|t.Override.No))
	}
	if t.list != nil && t.list.asks(ctx, of) {
		can = can.With(t.list.tells(t.Model))
	}
	if t.Override != (Override{}) {
		can = can.Configured(t.Override.Yes, t.Override.No)
	}
	return can
}

// capable is the provider as far as it knows what it can do; nil when it does not. Finding
// that out costs more than all the rest, so it is done once.
func (t *Target) capable() Capable {
	k := t.able.Load()
	if k == nil {
		k = new(knower)
		k.Capable, _ = t.Provider.(Capable)
		t.able.Store(k)
	}
	return k.Capable
}

// knower holds what may be nil.
type knower struct{ Capable }

// capabilities are what some target of the pool can do; no is only what none can.
func (p *Pool) capabilities(ctx context.Context, _ string) (can providers.Capabilities) {
	for i, t := range p.Targets {
		if one := t.Capabilities(ctx, 0); i == 0 {
			can = one
		} else {
			can = can.Or(one)
		}
	}
	return can
}

// unfit finds the targets that a request must not be sent to: those that lack what it
// needs, and those that would leave something out while another one need not; some is how
// many are left. When none is, err says what the request asks too much of.
func (p *Pool) unfit(ctx context.Context, req *providers.Request) (out set, some int, err error) {
	needs := req.Needs()
	var leaves, cannot set // out of the request, serve it
	m := miss{common: providers.All}
	for i, t := range p.Targets {
		if t.capable() == nil && t.Override.No&needs == 0 && (t.list == nil || !t.list.asks(ctx, needs)) {
			continue // nothing is known of it
		}
		can := t.Capabilities(ctx, needs)
		lacks := can.No & needs
		if lacks == 0 {
			continue
		}
		if lacks &^= can.Dropped; lacks == 0 {
			leaves.add(i)
			continue
		}
		if m.common &= lacks; i == 0 {
			m.can, m.first = can, lacks
		}
		cannot.add(i)
	}
	bad := cannot.len()
	switch n := len(p.Targets); {
	case bad == n && n > 0:
		return out, 0, p.misfit(req, &m)
	case bad+leaves.len() < n: // some serve it whole
		for i := leaves.after(-1); i >= 0; i = leaves.after(i) {
			cannot.add(i)
		}
	}
	return cannot, len(p.Targets) - cannot.len(), nil
}

// miss is what the first target lacks, and what all do.
type miss struct {
	can           providers.Capabilities
	first, common providers.Feature
}

// misfit names what all targets lack, else what the first does.
func (p *Pool) misfit(req *providers.Request, m *miss) error {
	if m.common == 0 {
		m.common = m.first
	}
	e := req.Refusal(m.can, m.common)
	if n := len(p.Targets); n > 1 {
		e.Message += fmt.Sprintf(" None of its %d targets can serve this request.", n)
	}
	return e
}

// refusal is what targets have said that refused a request themselves; of several, the
// first one's in the pool's order, whichever was asked first.
type refusal struct {
	err *providers.Error
	at  int
}

// refuse notes that a target has refused the request.
func (c *chase) refuse(t *try, e *providers.Error) {
	c.spent.add(t.at)
	if c.refused.err == nil || t.at < c.refused.at {
		c.refused = refusal{e, t.at}
	}
}

// relax lets targets leave something out when each of them has refused the request as
// it stands, and reports whether they may be asked so. A target that failed could have
// served it.
func (c *chase) relax(ctx context.Context) bool {
	if c.lenient == nil || c.tries > 0 {
		return false
	}
	unfit, _, err := c.pool.unfit(ctx, c.asked)
	if err != nil {
		return false
	}
	c.req, c.lenient = c.lenient, nil
	c.spent, c.refused = unfit, refusal{}
	return true
}

// nobody is the error when no target is left: the failure of one that could have served
// the request, else why those that could are not asked, else a refusal.
func (c *chase) nobody(away error) error {
	switch {
	case c.failed != nil:
		return c.failed
	case away != nil:
		return away
	case c.refused.err == nil:
		return &providers.Error{Kind: providers.Overloaded, Code: "no_healthy_target", Message: fmt.Sprintf("The model %q has no servers at present.", c.pool.Model)}
	}
	e := *c.refused.err
	if n := len(c.pool.Targets); n > 1 {
		e.Message += fmt.Sprintf(" None of the model's %d targets can serve this request.", n)
	}
	return &e
}
