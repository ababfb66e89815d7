package main

import (
	"sluice/handlers"
	"sluice/ratelimit/fair"
)

// newLines finds the line of a model whose answers are bounded; nil when none is.
func newLines(c *Config, o *handlers.Observer) func(model string) *fair.Queue {
	lines := map[string]*fair.Queue{}
	for i := range c.Models {
		if m := &c.Models[i]; m.MaxRunning > 0 {
			lines[m.Name] = fair.New(fair.Options{Places: m.MaxRunning, Depth: m.Queue, Wait: m.QueueWait.Std()})
		}
	}
	if len(lines) == 0 {
		return nil
	}
	o.Watch("gateway_queue_waiting", "Answers that wait for a place of their model.", func() (n float64) {
		for _, q := range lines {
			n += float64(q.Stats().Waiting)
		}
		return n
	})
	return func(model string) *fair.Queue { return lines[model] }
}
