package main

import "sluice/ratelimit/fair"

// newLines are where answers wait for a place of their model, by its name. Those of old,
// which may be nil, are taken over with who stands in them.
func newLines(c *Config, old *generation) map[string]*fair.Queue {
	lines := map[string]*fair.Queue{}
	for i := range c.Models {
		m := &c.Models[i]
		if m.MaxRunning <= 0 {
			continue
		}
		if old != nil && old.lines[m.Name] != nil {
			lines[m.Name] = old.lines[m.Name]
			continue
		}
		lines[m.Name] = fair.New(lineOf(m))
	}
	return lines
}

func lineOf(m *Model) fair.Options {
	return fair.Options{Places: m.MaxRunning, Depth: m.Queue, Wait: m.QueueWait.Std()}
}

// line finds the line of a model; nil when none is bounded.
func (g *generation) line() func(model string) *fair.Queue {
	if len(g.lines) == 0 {
		return nil
	}
	return func(model string) *fair.Queue { return g.lines[model] }
}
