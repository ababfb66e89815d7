package router

import (
	"context"
	"errors"
	"slices"
	"time"

	"sluice/providers"
)

// listen remembers the text of the answer, where its pool wants a broken one continued and
// that is possible at all.
func (c *chase) listen() {
	if c.own.Continue && c.asked.Continuable() {
		c.told = &told{yield: c.yield}
		c.yield = c.told.keep
	}
}

// resume has the rest of an answer that broke in the middle told by another target, once. An
// error is that of the break while nothing of the rest has come.
func (c *chase) resume(ctx context.Context, broke error) error {
	e := providers.AsError(broke)
	if e == nil || !e.Retryable() || !c.told.whole() || ctx.Err() != nil || c.tries >= c.most || !c.enough(ctx) {
		return broke
	}
	spent := tokens(c.told.deltas, len(c.told.text))
	rest, ok := c.asked.Continued(string(c.told.text), spent)
	if !ok {
		return broke
	}
	t := c.successor(ctx, rest, e)
	if t == nil {
		return broke
	}
	j := &join{told: c.told, req: t.req, before: before(c.progress.Report(), c.asked)}
	came, err := t.rest(ctx, j)
	switch {
	case err == nil && !j.end():
		return errStopped
	case err == nil || errors.Is(err, errStopped):
		return err
	case !came:
		return broke
	}
	u := j.cost()
	c.progress.SetUsage(&u)
	return err
}

// chatty are the kinds of upstreams that answer a prompt as a message, and do not go on behind it.
var chatty = []string{"anthropic", "gemini", "ollama", "demo"}

// successor finds the target for the rest: another one, if it can be, that is known to go on
// where a text ends. It is bound by the budget of retries like any further try.
func (c *chase) successor(ctx context.Context, rest *providers.Request, e *providers.Error) *try {
	for i, t := range c.pool.Targets {
		can := t.Capabilities(ctx, rest.Needs())
		goesOn := can.Yes.Has(providers.Prefill)
		if rest.Op == providers.Completions {
			goesOn = !slices.Contains(chatty, can.Kind)
		}
		if !goesOn || can.No&rest.Needs() != 0 {
			c.spent.add(i)
		}
	}
	o := c.pool.survey(&c.tried, &c.spent, &c.opt.Breaker, uptime())
	if o.fresh+o.again == 0 || !o.well && !c.pool.budget.take(c.opt.Budget, time.Now()) {
		return nil
	}
	if c.req = rest; c.pool.PresentAs != "" {
		c.req = rest.With(c.pool.PresentAs)
	}
	c.lenient = nil
	t, _ := c.admit(ctx)
	return t
}

// rest asks a target for the rest; came says that some of it has come.
func (t *try) rest(ctx context.Context, j *join) (came bool, err error) {
	t.tries++
	t.progress.SetTarget(t.target.Name)
	h := &t.held
	*h = hold{try: t, yield: j.pass}
	t.send()
	defer func() {
		t.state.end(t.probe)
		if t.release != nil {
			t.release(j.spent(h.content))
		}
	}()
	err = h.run(ctx, t.firstToken(t.target, t.others))
	t.count(t)
	t.judge(ctx, h, err)
	if err != nil && ctx.Err() == nil && !errors.Is(err, errStopped) {
		t.progress.EndTry(err)
	}
	return h.content, err
}

// spent is what the second call alone has cost.
func (j *join) spent(came bool) Spent {
	if !came {
		return Spent{}
	}
	all := j.cost()
	return Spent{Input: all.Prompt - j.before.Prompt, Output: all.Completion - j.before.Completion}
}
