package admin

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sluice/handlers/auth"
)

// call is one request at one route. It is used by one goroutine.
type call struct {
	s     *server
	w     http.ResponseWriter
	r     *http.Request
	route *route
	who   auth.Actor

	status int
	body   []byte // the answer, once there is one
	kind   string // its type
	sent   bool   // the handler writes the answer itself

	entered bool // the handler was asked

	on            string // what was acted on, for the audit log
	before, after any
	same          bool // nothing has changed, and nothing is written down
}

// path is the value of a wildcard of the route.
func (c *call) path(name string) string { return c.r.PathValue(name) }

// query is a parameter of the URL, "" when there is none.
func (c *call) query(name string) string { return c.r.URL.Query().Get(name) }

// checkQuery refuses parameters that the route does not know, and those given twice.
func (c *call) checkQuery() error {
	values, err := queryOf(c.r)
	if err != nil {
		return badField("", "The query of the URL cannot be read.")
	}
	for name, v := range values {
		if !slices.Contains(c.route.query, name) {
			return badField(name, "There is no parameter %q here.", name)
		}
		if len(v) > 1 {
			return badField(name, "The parameter %q is given twice.", name)
		}
	}
	return nil
}

// limit reads the parameter "limit": between 1 and most, or usual when it is absent.
func (c *call) limit(usual, most int) (int, error) {
	text := c.query("limit")
	if text == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, badField("limit", "limit must be a number from 1 to %d.", most)
	}
	return n, nil
}

// list is one page of many; Next is the cursor of the next one, absent on the last.
type list[T any] struct {
	Data []T    `json:"data"`
	Next string `json:"next,omitempty"`
}

// reply answers with JSON. Nothing is sent before the audit log has the action.
func (c *call) reply(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.status, c.kind, c.body = status, "application/json", append(body, '\n')
	return nil
}

// done answers without a body.
func (c *call) done() error {
	c.status = http.StatusNoContent
	return nil
}

// stream lets the handler write an answer of its own, such as CSV. Such routes change nothing.
func (c *call) stream(kind string) http.ResponseWriter {
	c.sent = true
	c.w.Header().Set("Content-Type", kind)
	return c.w
}

// changed tells the audit log what was acted on, and how it was and is: values that
// encoding/json writes without secrets; nil for what was not there, or is no more.
func (c *call) changed(on string, before, after any) { c.on, c.before, c.after = on, before, after }

// etag names the version of what is answered.
func (c *call) etag(version string) { c.w.Header().Set("ETag", strconv.Quote(version)) }

// ifMatch is the version that an edit is for; ok is false when the request names none.
// The other versions of If-Match (RFC 9110 section 13.1.1), lists and weak ones, are refused.
func (c *call) ifMatch() (version string, ok bool, err error) {
	text := strings.TrimSpace(c.r.Header.Get("If-Match"))
	if text == "" || text == "*" {
		return "", false, nil
	}
	version, err = strconv.Unquote(text)
	if err != nil || text[0] != '"' {
		return "", false, badField("If-Match", "If-Match must be the ETag of one answer.")
	}
	return version, true, nil
}
