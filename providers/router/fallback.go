package router

import (
	"context"
	"slices"
	"strings"
	"time"

	"sluice/providers"
)

// maxFalls bounds the models that one answer goes through.
const maxFalls = 8

// tooLong reports whether an upstream has refused a request because it does not fit into
// the model's context. Most servers say so only in words.
func tooLong(e *providers.Error) bool {
	if e.Kind != providers.Passed && e.Kind != providers.BadRequest || e.Status == 0 {
		return false
	}
	switch {
	case strings.Contains(e.Code, "context_length") || strings.Contains(e.Type, "context_length"),
		strings.Contains(e.Type, "exceed_context_size"), strings.Contains(e.Code, "exceed_context_size"):
		return true
	case e.Status != 400 && e.Status != 413 && e.Status != 422:
		return false
	}
	said := strings.ToLower(e.Message)
	return slices.ContainsFunc(contextWords, func(w string) bool { return strings.Contains(said, w) })
}

// contextWords are how servers say it: OpenAI and vLLM, Anthropic, llama.cpp, Gemini, TGI.
var contextWords = []string{
	"maximum context length", "context window", "prompt is too long", "exceeds the available context size",
	"exceeds the maximum number of tokens", "`inputs` tokens + `max_new_tokens` must be", "context size has been exceeded",
}

// chain is the way of a chase through other models.
type chain struct {
	queue []string // those that were declared before the pool's own
	seen  []string // those that were gone to
	fell  int
}

// list is the fallbacks of a pool for a reason.
func (p *Pool) list(tooLong bool) []string {
	if tooLong {
		return p.FallbackContext
	}
	return p.Fallback
}

// mayFall reports whether another model is left.
func (c *chase) mayFall(tooLong bool) bool {
	if c.chain == nil {
		return c.waits(c.pool.list(tooLong))
	}
	return c.chain.fell < maxFalls && (c.waits(c.pool.list(tooLong)) || !tooLong && c.waits(c.chain.queue))
}

func (c *chase) waits(models []string) bool {
	return slices.ContainsFunc(models, func(m string) bool { return !c.been(m) })
}

// been reports whether a model was asked already.
func (c *chase) been(model string) bool {
	return model == c.asked.Asks() || model == c.own.Model || slices.Contains(c.own.Aliases, model) || c.chain != nil && slices.Contains(c.chain.seen, model)
}

// fall goes on with the next model that is declared for the case, and reports whether
// there is one that may be asked. The fallbacks of a fallback come after its siblings.
func (c *chase) fall(ctx context.Context, tooLong bool) bool {
	if !c.mayFall(tooLong) {
		return false
	}
	if c.chain == nil {
		c.chain = new(chain)
	}
	way := c.chain
	if tooLong {
		way.queue = slices.Clone(c.pool.FallbackContext)
	} else {
		way.queue = append(way.queue, c.pool.Fallback...)
	}
	for len(way.queue) > 0 && way.fell < maxFalls {
		model := way.queue[0]
		way.queue = way.queue[1:]
		if c.been(model) {
			continue
		}
		way.fell++
		way.seen = append(way.seen, model)
		pool, err := c.pools.Resolve(ctx, model)
		if err == nil && c.enter(ctx, pool) == nil && c.affords(pool, tooLong) {
			c.most = max(c.most, c.tries+1)
			return true
		}
	}
	return false
}

// affords reports whether a pool may be asked after another has failed: when it is known
// to be well, when nobody was asked yet, or within its budget of retries.
func (c *chase) affords(p *Pool, tooLong bool) bool {
	o := p.survey(&c.tried, &c.spent, &c.opt.Breaker, uptime())
	if o.fresh == 0 {
		return false
	}
	return o.well || tooLong || c.tries == 0 || p.budget.take(c.opt.Budget, time.Now())
}

// enter begins with the targets of a pool. An error says what the request asks too much
// of it; then the chase stays where it was.
func (c *chase) enter(ctx context.Context, p *Pool) error {
	unfit, some, err := p.unfit(ctx, c.asked)
	if err != nil {
		return err
	}
	c.pool, c.spent, c.tried = p, unfit, set{}
	c.req, c.lenient, c.refused = c.asked, nil, refusal{}
	if p.PresentAs != "" {
		c.req = c.req.With(p.PresentAs)
	}
	if some > 1 {
		c.lenient, c.req = c.req, c.req.Strictly()
	}
	return nil
}
