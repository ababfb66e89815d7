package handlers

import (
	"slices"
	"strconv"
	"strings"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/ratelimit"
)

// permitted reports what the caller's key is not for. It says of a model that may not be
// used no more than of one that does not exist.
func (s *Server) permitted(who *auth.Principal, req *providers.Request, transport string) error {
	if who.May == nil {
		return nil
	}
	if err := permittedRoute(who, req.Op, req.Path); err != nil {
		return err
	}
	if err := permittedTransport(who, transport); err != nil {
		return err
	}
	if !s.allows(who, req.Model) {
		return &providers.Error{Kind: providers.Forbidden, Type: invalidRequest, Code: "model_not_found", Param: "model",
			Message: "This API key does not have access to the model " + strconv.Quote(req.Model) + ". GET /v1/models lists the models that it has access to."}
	}
	return nil
}

// allows reports whether a key may be used for a name. A version of a model needs the model,
// or a pattern that speaks of versions: "*-mini" is not meant to allow "large@2-mini".
func (s *Server) allows(who *auth.Principal, name string) bool {
	return s.opt.Routing.Allows(who, name)
}

// Allows is what the handlers ask before a model is routed: what a rule makes of it later is
// the operator's will, and needs no permission of the key.
func (r *Routing) Allows(who *auth.Principal, name string) bool {
	if who.May == nil || r.Versioned == nil || !r.Versioned(name) {
		return who.AllowsModel(name)
	}
	return who.AllowsModel(name[:strings.LastIndexByte(name, '@')]) ||
		slices.ContainsFunc(who.May.Models, func(p string) bool { return strings.Contains(p, "@") && ratelimit.Fits(p, name) })
}

// Operations are the names that patterns of routes are for: those of operations, and the
// paths of requests that are passed on unread.
func Operations() (names []string) {
	for op := providers.Chat; op <= providers.Passthrough; op++ {
		names = append(names, op.String())
	}
	for _, path := range passed {
		names = append(names, strings.TrimPrefix(path, "/"))
	}
	return names
}

// permittedRoute looks at the operation, and at the path of one that is passed on unread.
func permittedRoute(who *auth.Principal, op providers.Op, path string) error {
	if who.AllowsRoute(op.String()) || op == providers.Passthrough && who.AllowsRoute(strings.TrimPrefix(path, "/")) {
		return nil
	}
	return &providers.Error{Kind: providers.Forbidden, Code: "route_not_allowed", Message: "This API key is not for " + op.String() + " requests. GET /v1/key tells what it is for."}
}

func permittedTransport(who *auth.Principal, transport string) error {
	if who.AllowsTransport(transport) {
		return nil
	}
	message := map[string]string{
		"http": "This API key is for streamed answers only. Send \"stream\": true.",
		"sse":  "This API key is not for answers that are streamed over HTTP. Leave \"stream\" out.",
		"ws":   "This API key is not for WebSocket connections.",
	}[transport]
	return &providers.Error{Kind: providers.Forbidden, Code: "transport_not_allowed", Message: message}
}
