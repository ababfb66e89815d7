package router

import (
	"context"
	"fmt"
	"slices"

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
func (t *Target) Capabilities(ctx context.Context, of providers.Feature) providers.Capabilities {
	var can providers.Capabilities
	if c, ok := t.Provider.(Capable); ok {
		can = c.Capabilities(ctx, of&^(t.Override.Yes|t.Override.No))
	}
	if t.list != nil {
		can = can.With(t.list.tells(ctx, t.Model, of))
	}
	return can.Configured(t.Override.Yes, t.Override.No)
}

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
// needs, and those that would leave something out while another one need not. When no
// target is left, err says what the request asks too much of.
func (p *Pool) unfit(ctx context.Context, req *providers.Request) (out []*Target, err error) {
	needs := req.Needs()
	var misses []miss
	for i, t := range p.Targets {
		can := t.Capabilities(ctx, needs)
		lacks := can.No & needs
		if lacks != 0 && misses == nil {
			misses = make([]miss, len(p.Targets))
		}
		if lacks != 0 {
			misses[i] = miss{can, lacks, 1}
			if lacks&^can.Dropped != 0 {
				misses[i].grade, misses[i].lacks = 2, lacks&^can.Dropped
			}
		}
	}
	if misses == nil {
		return nil, nil
	}
	best := misses[0].grade
	for _, m := range misses {
		best = min(best, m.grade)
	}
	if best == 2 {
		return nil, misfit(req, misses)
	}
	for i, m := range misses {
		if m.grade > best {
			out = append(out, p.Targets[i])
		}
	}
	return out, nil
}

// miss is what a target lacks: of grade 0 nothing, of grade 1 what it leaves out, of
// grade 2 what it cannot do without.
type miss struct {
	can   providers.Capabilities
	lacks providers.Feature
	grade int
}

// misfit names what all targets lack, else what the first does.
func misfit(req *providers.Request, misses []miss) error {
	common := misses[0].lacks
	for _, m := range misses {
		common &= m.lacks
	}
	if common == 0 {
		common = misses[0].lacks
	}
	e := req.Refusal(misses[0].can, common)
	if n := len(misses); n > 1 {
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
func (c *chase) refuse(t *Target, e *providers.Error) {
	c.spent = append(c.spent[:len(c.spent):len(c.spent)], t)
	if at := slices.Index(c.pool.Targets, t); c.refused.err == nil || at < c.refused.at {
		c.refused = refusal{e, at}
	}
}

// relax lets targets leave something out when each of them has refused the request as
// it stands, and reports whether they may be asked so. A target that failed could have
// served it.
func (c *chase) relax() bool {
	if c.lenient == nil || c.tries > 0 {
		return false
	}
	c.req, c.lenient = c.lenient, nil
	c.spent, c.refused = c.unfit, refusal{}
	return true
}

// nobody is the error when no target is left: the failure of one that could have served
// the request, else a refusal.
func (c *chase) nobody() error {
	if c.failed != nil {
		return c.failed
	}
	e := *c.refused.err
	if n := len(c.pool.Targets); n > 1 {
		e.Message += fmt.Sprintf(" None of the model's %d targets can serve this request.", n)
	}
	return &e
}
