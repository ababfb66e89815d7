package main

import "sluice/ratelimit/fair"

// newLines finds the line of a model whose answers are bounded; nil when none is.
func newLines(c *Config) func(model string) *fair.Queue {
	lines := map[string]*fair.Queue{}
	for i := range c.Models {
		if m := &c.Models[i]; m.MaxRunning > 0 {
			lines[m.Name] = fair.New(fair.Options{Places: m.MaxRunning, Depth: m.Queue, Wait: m.QueueWait.Std()})
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return func(model string) *fair.Queue { return lines[model] }
}
