package handlers

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"sluice/handlers/auth"
	"sluice/providers"
)

// Routing is what is known of where requests go, before they go there. The zero value
// leaves them as they are.
type Routing struct {
	// Headers are those that rules look at, in canonical form.
	Headers []string
	// Apply has the rules decide about a request whose hints are known; its error is their refusal.
	Apply func(req *providers.Request) error
	// Explain says in one line where the request would go.
	Explain func(ctx context.Context, req *providers.Request) string
	// Versioned reports whether a name names a version of a model.
	Versioned func(name string) bool
}

const (
	headerExplain = "X-Sluice-Explain"
	headerRoute   = "X-Sluice-Route"
)

// route finds where a request goes, and says so when it is asked to.
func (s *Server) route(c echo.Context, req *providers.Request, who *auth.Principal) error {
	h := c.Request().Header
	s.opt.Routing.Hint(req, who, h)
	if explain := s.opt.Routing.Explain; explain != nil && h.Get(headerExplain) == "1" {
		c.Response().Header().Set(headerRoute, explain(c.Request().Context(), req))
	}
	return s.decide(req)
}

// Hint tells a request what is known of it beside its body, as the handlers do.
func (r *Routing) Hint(req *providers.Request, who *auth.Principal, h http.Header) {
	hint(req, who, h)
	req.Hints.Header = r.of(h)
}

// Outcome is how an error is named in records and told to clients: its name in the table of
// ends, "ok" for nil, and status, code and message.
func Outcome(err error) (name string, status int, code, message string) {
	f := describe(err)
	return f.name, f.status, f.code, f.message
}

func (s *Server) decide(req *providers.Request) error {
	if s.opt.Routing.Apply == nil {
		return nil
	}
	return s.opt.Routing.Apply(req)
}

// of are the headers that rules look at; nil when the request has none of them.
func (r *Routing) of(h http.Header) (some http.Header) {
	for _, name := range r.Headers {
		if v := h[name]; len(v) > 0 {
			if some == nil {
				some = http.Header{}
			}
			some[name] = v
		}
	}
	return some
}
