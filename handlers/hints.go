package handlers

import (
	"net/http"
	"strings"

	"sluice/handlers/auth"
	"sluice/providers"
)

// maxHint bounds what a caller may tell for routing, in bytes.
const maxHint = 256

// hint tells the router what is known of a request beside its body. What the body tells
// itself goes after the headers, and before the key.
func hint(req *providers.Request, who *auth.Principal, h http.Header) {
	x := &req.Hints
	if s := h.Get("X-Session-Id"); s != "" && len(s) <= maxHint {
		x.Session = s
	}
	if v := h.Get("X-Model-Version"); len(v) <= maxHint {
		x.Version = strings.TrimSpace(v)
	}
	if x.User == "" {
		x.User = who.User
	}
	if x.User == "" {
		x.User = who.Key
	} else {
		x.User = who.Org + "/" + x.User // two tenants may use one name
	}
	x.Key, x.Org, x.Groups = who.Key, who.Org, who.Groups
	if who.Team != "" {
		x.Team = who.Org + "/" + who.Team
	}
}
