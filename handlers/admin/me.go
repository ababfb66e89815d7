package admin

import "net/http"

func (s *server) meRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/me", role: ownKey, query: []string{"start", "end", "group_by", "model"}, handle: s.me},
	}
}

// me is what GET /v1/key says, to who signed in with an API key: of that key, and of no other.
func (s *server) me(c *call) error {
	k := &s.opt.Keys
	if k.Report == nil {
		return notFound("There are no reports here.")
	}
	report, err := k.Report(c.r.Context(), c.who.Caller, c.r.URL.Query())
	if err == nil {
		return c.reply(http.StatusOK, report)
	}
	if k.BadQuery != nil {
		if param, message, ok := k.BadQuery(err); ok {
			return badField(param, "%s", message)
		}
	}
	return unavailable("The levels and records cannot be read now.")
}
