package admin

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"sluice/handlers/auth"
)

// access is who may use a route.
type access int

const (
	anyone   access = iota
	signedIn        // whoever has a credential
	ownKey          // who signed in with an API key
	viewer          // viewers and admins
	admin
)

func (a access) allows(r auth.Role) bool {
	switch a {
	case anyone:
		return true
	case signedIn:
		return r != ""
	case ownKey:
		return r == auth.RoleKey
	case viewer:
		return r == auth.RoleViewer || r == auth.RoleAdmin
	default:
		return r == auth.RoleAdmin
	}
}

// route is one row of the table.
type route struct {
	method string
	path   string // below Prefix, with {wildcards} as http.ServeMux has them
	role   access
	audit  bool     // it changes something: each use is written down
	query  []string // the parameters that it knows; others are refused
	handle func(*call) error
}

// routes is the table. Each subject has its rows in its own file.
func (s *server) routes() []route {
	return slices.Concat(
		s.sessionRoutes(),
		s.meRoutes(),
		s.systemRoutes(),
		s.auditRoutes(),
		s.openapiRoutes(),
		s.keyRoutes(),
		s.configRoutes(),
		s.streamRoutes(),
		s.requestRoutes(),
		s.usageRoutes(),
		s.ledgerRoutes(),
		s.limitRoutes(),
		s.targetRoutes(),
		s.registerRoutes(),
		s.routeRoutes(),
	)
}

// at serves one path.
func (s *server) at(methods map[string]*route) http.Handler {
	allowed := slices.Sorted(maps.Keys(methods))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		c := &call{s: s, w: w, r: r, route: methods[method]}
		if c.route == nil {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			s.answer(c, &fault{status: http.StatusMethodNotAllowed, code: "method_not_allowed", message: "This path knows " + strings.Join(allowed, ", ") + "."})
			return
		}
		err := s.serve(c)
		if c.route.audit {
			err = s.record(c, err)
		}
		s.answer(c, err)
	})
}

// serve asks who it is before anything of the request is looked at.
func (s *server) serve(c *call) error {
	if err := s.admit(c); err != nil {
		return err
	}
	if err := c.checkQuery(); err != nil {
		return err
	}
	c.entered = true
	return c.route.handle(c)
}

// admit finds who is asking, and whether they may.
func (s *server) admit(c *call) (err error) {
	if c.route.role == anyone {
		return nil
	}
	if c.who, err = s.opt.Authority.Who(c.r.Context(), c.r); err != nil {
		if errors.Is(err, auth.ErrSignedOut) && len(c.r.CookiesNamed(auth.SessionCookie)) > 0 {
			http.SetCookie(c.w, auth.CookieFor("", 0))
		}
		return err
	}
	switch {
	case c.route.role.allows(c.who.Role):
		return nil
	case c.who.Role == "":
		return unauthorized("Sign in first: POST " + Prefix + "/session, or send an admin token as Authorization: Bearer TOKEN.")
	default:
		return forbidden("The role %q may not do this.", c.who.Role)
	}
}
