package upstream

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Request is one request. Body is sent as it is and never written to; it must stay
// unchanged until the answer is closed. Its own fields go before those of the upstream
// and of Header; framing and Accept-Encoding are this package's alone.
type Request struct {
	Method      string
	Path        string // appended to the path of the base URL; escaped, may end in a query
	ContentType string // "" sends none
	Accept      string
	Header      http.Header // beyond those of the upstream; usually nil
	Body        []byte
}

// check refuses what would not be one request: a caller's text that got into a field
// must not begin another, nor a path choose another server.
func (r *Request) check() error {
	switch {
	case !isToken(r.Method):
		return fmt.Errorf("the method %.20q", r.Method)
	case r.Path != "" && r.Path[0] != '/' && r.Path[0] != '?' || !isTarget(r.Path):
		return errors.New("the path") // its text may hold what a log must not
	case !isValue(r.ContentType) || !isValue(r.Accept):
		return errors.New("the media types")
	default:
		return checkHeader(r.Header)
	}
}

// checkHeader names no values, for they may be secrets.
func checkHeader(h http.Header) error {
	for k, vs := range h {
		if !isToken(k) || !all(vs, isValue) {
			return fmt.Errorf("the header %.40q", k)
		}
	}
	return nil
}

func all(vs []string, ok func(string) bool) bool {
	return !slices.ContainsFunc(vs, func(v string) bool { return !ok(v) })
}

// isTarget checks a part of a request's target (RFC 9112 section 3.2) for what would
// end it early.
func isTarget(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// layout is what the requests to one upstream have in common.
type layout struct {
	path   string // of the base URL, before a request's own
	query  string
	host   string
	header http.Header
	fixed  string // lines of header but for those below
	accept string // unless a request has its own
	kind   string // the same for its content
}

func newLayout(base *url.URL, header http.Header) *layout {
	return &layout{
		path: base.EscapedPath(), query: base.RawQuery, host: hostOf(base, header),
		header: header, fixed: fields(header), accept: header.Get("Accept"), kind: header.Get("Content-Type"),
	}
}

// hostOf is the Host of every request (RFC 9112 section 3.2): what the header says,
// else the authority of base without credentials and zone.
func hostOf(base *url.URL, header http.Header) string {
	if v := header.Get("Host"); v != "" {
		return v
	}
	name, _, _ := strings.Cut(base.Hostname(), "%")
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if port := base.Port(); port != "" {
		name += ":" + port
	}
	return name
}

// ownFields are not taken from a header: append writes them, or they would contradict
// what it writes.
var ownFields = []string{"Host", "Accept", "Accept-Encoding", "Content-Type", "Content-Length", "Transfer-Encoding", "Trailer"}

// fields writes header lines in a fixed order.
func fields(h http.Header) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(h)) {
		if slices.Contains(ownFields, http.CanonicalHeaderKey(k)) {
			continue
		}
		for _, v := range h[k] {
			b.WriteString(k + ": " + v + "\r\n")
		}
	}
	return b.String()
}

// append writes the head of r.
func (l *layout) append(b []byte, r *Request) []byte {
	fixed, accept, kind := l.fixed, cmp.Or(r.Accept, l.accept), cmp.Or(r.ContentType, l.kind)
	if len(r.Header) > 0 {
		h := http.Header{}
		maps.Copy(h, l.header)
		maps.Copy(h, r.Header)
		fixed, accept, kind = fields(h), cmp.Or(r.Accept, h.Get("Accept")), cmp.Or(r.ContentType, h.Get("Content-Type"))
	}
	b = append(append(b, r.Method...), ' ')
	b = append(b, l.path...)
	if l.path == "" && !strings.HasPrefix(r.Path, "/") {
		b = append(b, '/')
	}
	b = append(b, joinQuery(r.Path, l.query)...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", l.host)
	b = append(b, "Accept-Encoding: identity\r\n"...)
	b = append(b, fixed...)
	b = appendField(b, "Accept", accept)
	b = appendField(b, "Content-Type", kind)
	if len(r.Body) > 0 || r.Method == http.MethodPost {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.Body)), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(b, name...), ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// joinQuery adds a query to a path that may have one.
func joinQuery(path, query string) string {
	switch {
	case query == "":
		return path
	case strings.Contains(path, "?"):
		return path + "&" + query
	default:
		return path + "?" + query
	}
}
