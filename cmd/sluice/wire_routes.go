package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/handlers"
	"sluice/handlers/admin"
	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/providers/router"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// newRoutes are the rules of a configuration, which has been checked.
func newRoutes(c *Config, catalog *router.Catalog) *router.Rules {
	var rules []router.Rule
	for i := range c.Routes {
		rules = append(rules, c.Routes[i].rule())
	}
	return router.NewRules(catalog, rules)
}

func prefixes(c *Config) (out []handlers.Prefix) {
	for i := range c.Paths {
		out = append(out, c.Paths[i].prefix())
	}
	return out
}

// routing is what the handlers ask before the router.
func (g *generation) routing() handlers.Routing {
	return handlers.Routing{
		Headers: g.routes.Headers(), Apply: g.routes.Apply, Versioned: g.catalog.Versioned,
		Explain: func(ctx context.Context, req *providers.Request) string {
			e := g.router.Explain(ctx, g.routes, req)
			return routeLine(&e)
		},
	}
}

// routeLine is an explanation as a header: the names of models may hold any character.
func routeLine(e *router.Explanation) string {
	parts := []string{"model=" + strconv.QuoteToASCII(e.Model)}
	if e.Rule != "" {
		parts = append(parts, "rule="+strconv.QuoteToASCII(e.Rule))
	}
	if e.Pool != "" {
		parts = append(parts, "pool="+strconv.QuoteToASCII(e.Pool))
	}
	var targets []string
	for i := range e.Candidates {
		if c := &e.Candidates[i]; c.Place > 0 {
			targets = append(targets, strconv.QuoteToASCII(c.Name))
		}
	}
	return strings.Join(append(parts, "targets="+strings.Join(targets, ",")), "; ")
}

// shadowName is who copies are written down for.
const shadowName = "shadow"

// copies are the bounds of copies, and who is told of them.
func (l *lasting) copies(c *Config) router.ShadowOptions {
	return router.ShadowOptions{Running: c.Shadow.MaxRunning, Bytes: int64(c.Shadow.Bytes), Limit: c.Shadow.Timeout.Std(), Done: l.copied}
}

// copied writes down what a copy has cost. It takes from no limit.
func (l *lasting) copied(c *router.Copy) {
	r := &c.Report
	row := ledger.Row{
		ID: c.Request.ID, Start: r.Start, TTFT: r.TTFT, Total: time.Since(r.Start), Key: shadowName, Transport: shadowName,
		Op: c.Request.Op.String(), Model: c.Request.Asks(), Target: c.Target.Name, Requests: 1, Attempts: int64(r.Attempts),
	}
	row.End, _, _, _ = handlers.Outcome(c.Err)
	if r.TTFT > 0 {
		u := &r.Usage
		row.Input, row.Cached, row.Output, row.Reasoning, row.Estimated = u.Prompt, u.Cached, u.Completion, u.Reasoning, u.Estimated
		if !r.Reported {
			row.Input, row.Estimated = c.Request.PromptEstimate(), true
		}
	}
	l.post(&row)
}

// hedgeName is who the slower ones of two attempts are written down for, and how they end.
const hedgeName = "hedge"

// hedged writes down what the slower one of two attempts has cost at its upstream. It takes
// from no limit: the caller pays for the other one.
func (l *lasting) hedged(lost *router.Loss) {
	l.post(&ledger.Row{
		ID: lost.Request.ID + "." + hedgeName, Start: lost.Start, Total: lost.Took, Key: hedgeName, Transport: hedgeName,
		Op: lost.Request.Op.String(), Model: l.newest.Load().quota.ModelOf(lost.Request.Model), Target: lost.Target.Name, Requests: 1, Attempts: 1,
		Input: lost.Spent.Input, Output: lost.Spent.Output, Estimated: true, End: hedgeName,
	})
}

// post prices a row that is no caller's, and writes it down.
func (l *lasting) post(row *ledger.Row) {
	g := l.newest.Load()
	price, own := g.quota.PriceAt(row.Target)
	if !own {
		price = g.quota.Prices.Of(g.catalog.Base(row.Model))
	}
	row.Money = price.Cost(row.Input, row.Cached, row.Output)
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	call := &ratelimit.Call{ID: row.ID, Who: ratelimit.Subject{Key: row.Key}}
	if err := g.quota.Limiter.Settle(ctx, &ratelimit.Settlement{Call: call, Row: *row}); err != nil {
		l.log.Error("the usage record of an upstream's cost is lost", slog.String("request_id", row.ID), slog.Any("error", err))
	}
}

// explain implements admin.Explain for the configuration in force.
func (l *lasting) explain(ctx context.Context, q *admin.RouteQuestion) (*admin.RouteAnswer, error) {
	g := l.take()
	defer g.leave()
	var who auth.Principal
	if q.Key != "" {
		var ok bool
		if who, ok = (limits{l}).Caller(q.Key); !ok {
			return nil, fmt.Errorf("there is no key %q", q.Key)
		}
	}
	return g.explain(ctx, &who, q)
}

// explainOps are the operations that can be asked about, with a body for who gives none.
var explainOps = map[string]struct {
	op         providers.Op
	path, body string
}{
	"":            {providers.Chat, "/chat/completions", `{"messages":[{"role":"user","content":"hello"}]}`},
	"chat":        {providers.Chat, "/chat/completions", `{"messages":[{"role":"user","content":"hello"}]}`},
	"completions": {providers.Completions, "/completions", `{"prompt":"hello"}`},
	"embeddings":  {providers.Embeddings, "/embeddings", `{"input":"hello"}`},
	"moderations": {providers.Moderations, "/moderations", `{"input":"hello"}`},
	"responses":   {providers.Responses, "/responses", `{"input":"hello"}`},
}

func (g *generation) explain(ctx context.Context, who *auth.Principal, q *admin.RouteQuestion) (*admin.RouteAnswer, error) {
	form, ok := explainOps[q.Op]
	if !ok {
		return nil, fmt.Errorf("there is no operation %q", q.Op)
	}
	body := []byte(q.Body)
	if len(body) == 0 {
		body = []byte(form.body)
	}
	req, err := providers.ParseFor(q.Model, form.op, form.path, "application/json", body, g.cfg.Sizes.JSONDepth)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	for name, value := range q.Headers {
		header.Set(name, value)
	}
	routing, rules := g.routing(), g.routes
	routing.Hint(req, who, header)
	if q.At != nil {
		rules = rules.At(func() time.Time { return *q.At })
	}
	e := g.router.Explain(ctx, rules, req)
	if !routing.Allows(who, q.Model) {
		e.Err = &providers.Error{Kind: providers.Forbidden, Code: "model_not_found", Message: fmt.Sprintf("The key does not have access to the model %q.", q.Model)}
	}
	return routeAnswer(&e), nil
}

func routeAnswer(e *router.Explanation) *admin.RouteAnswer {
	out := &admin.RouteAnswer{Model: e.Model, Rule: e.Rule, Pool: e.Pool, Balance: e.Balance,
		Rules: []admin.RouteRule{}, Targets: []admin.RouteTarget{}, Then: append([]string{}, e.Fallback...), Shadows: []admin.RouteShadow{}}
	for _, r := range e.Rules {
		out.Rules = append(out.Rules, admin.RouteRule(r))
	}
	for i := range e.Candidates {
		c := &e.Candidates[i]
		out.Targets = append(out.Targets, admin.RouteTarget{
			Name: c.Name, Place: c.Place, State: c.State, Version: c.Version, Priority: c.Priority, Weight: c.Weight, Running: c.Running, Why: c.Why,
		})
	}
	for _, s := range e.Shadows {
		out.Shadows = append(out.Shadows, admin.RouteShadow(s))
	}
	if e.Err != nil {
		_, status, code, message := handlers.Outcome(e.Err)
		out.Error = &admin.RouteRejection{Code: code, Status: status, Message: message}
	}
	return out
}

// explainOffline answers from a configuration alone: nothing is known of how targets are.
func explainOffline(ctx context.Context, c *Config, version string, q *admin.RouteQuestion) (*admin.RouteAnswer, error) {
	g := &generation{cfg: c, links: newLinks(c, version, nil)}
	defer g.links.release()
	g.catalog = newCatalog(c, g.links)
	g.router, g.routes = router.New(g.catalog, router.Options{Breaker: newBreaker(c)}), newRoutes(c, g.catalog)
	var who auth.Principal
	if q.Key != "" {
		i := slices.IndexFunc(c.Keys, func(k Key) bool { return k.Name == q.Key })
		if i < 0 {
			return nil, fmt.Errorf("there is no key %q in the configuration; of issued keys only a gateway that runs can tell", q.Key)
		}
		who = principal(&c.Keys[i])
	}
	return g.explain(ctx, &who, q)
}
