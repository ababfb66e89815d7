package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// RouteQuestion is a request of which nothing is sent.
type RouteQuestion struct {
	Model   string            `json:"model"`
	Op      string            `json:"op,omitempty"`      // "chat" by default
	Key     string            `json:"key,omitempty"`     // who calls; "" is nobody
	Headers map[string]string `json:"headers,omitempty"` // of the request
	Body    json.RawMessage   `json:"body,omitempty"`    // without one a short text is assumed
	At      *time.Time        `json:"at,omitempty"`      // now by default
}

// RouteAnswer is where the request would go.
type RouteAnswer struct {
	Model   string          `json:"model"`
	Rules   []RouteRule     `json:"rules"`
	Rule    string          `json:"rule,omitempty"` // that decides
	Pool    string          `json:"pool,omitempty"`
	Balance string          `json:"balance,omitempty"`
	Targets []RouteTarget   `json:"targets"`
	Then    []string        `json:"fallback"`
	Shadows []RouteShadow   `json:"shadows"`
	Error   *RouteRejection `json:"error,omitempty"`
}

// RouteRule is one rule, in order.
type RouteRule struct {
	Name    string `json:"name"`
	Holds   bool   `json:"holds"`
	Decides bool   `json:"decides"`
	Skipped bool   `json:"skipped"` // one before it has decided
	Why     string `json:"why,omitempty"`
	Then    string `json:"then"`
}

// RouteTarget is one target, in the order in which they are tried.
type RouteTarget struct {
	Name     string `json:"name"`
	Place    int    `json:"place"` // those of one place share the calls; 0: it is not asked
	State    string `json:"state"`
	Version  string `json:"version,omitempty"`
	Priority int    `json:"priority"`
	Weight   int    `json:"weight"`
	Running  int64  `json:"running"`
	Why      string `json:"why,omitempty"` // it is not asked
}

// RouteShadow is where a copy may go.
type RouteShadow struct {
	Model   string  `json:"model"`
	Percent float64 `json:"percent"`
}

// RouteRejection is what the caller would be told.
type RouteRejection struct {
	Code    string `json:"code"`
	Status  int    `json:"status"`
	Message string `json:"message"`
}

func (s *server) routeRoutes() []route {
	return []route{{method: http.MethodPost, path: "/routes/explain", role: viewer, handle: s.explainRoute}}
}

// explainRoute tells where a request would go, and why.
func (s *server) explainRoute(c *call) error {
	if s.opt.Explain == nil {
		return notFound("This gateway does not explain its routes.")
	}
	var q RouteQuestion
	if err := c.read(&q); err != nil {
		return err
	}
	if q.Model == "" {
		return badField("model", "model is missing.")
	}
	answer, err := s.opt.Explain(c.r.Context(), &q)
	if err != nil {
		return badField("", "%s", err)
	}
	return c.reply(http.StatusOK, answer)
}

// Explain asks the configuration in force where a request would go. The error is a fault of the question.
type Explain func(ctx context.Context, q *RouteQuestion) (*RouteAnswer, error)
