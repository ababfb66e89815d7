// Package admin is the API of operators, under /admin/api: what runs, what is configured,
// who may call, and who has changed what. It knows who is asking and what they may do, and
// nothing of how keys, limits or targets work: those come in by the interfaces in Options.
//
// Every route is a row in one table (route.go). The table says who may use it and whether
// it changes something, so that no route can forget to ask or to be written down.
package admin

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"sluice/handlers/auth"
)

// Prefix is where the API begins.
const Prefix = "/admin/api"

// Authority finds who is asking. A request without a credential is no error: it comes from
// the zero Actor.
type Authority interface {
	Who(ctx context.Context, r *http.Request) (auth.Actor, error)
}

// Options are what the API needs from outside. What a nil interface or func would tell
// is answered with 404.
type Options struct {
	Authority Authority
	SignIns   SignIns       // nil: nobody signs in
	Audit     auth.AuditLog // nil: what is done is told to Log alone
	// Address tells where a request comes from, for the audit log; nil: nowhere.
	Address   func(r *http.Request) netip.Addr
	System    SystemInfo
	Keys      Keys
	Config    Config
	Overrides Overrides
	Streams   Streams
	// Requests are those that ended last.
	Requests Requests
	Ledger   Ledger
	Limits   Limits
	// Fleet tells of upstreams, models and targets, of the configuration in force.
	Fleet   func(ctx context.Context) Fleet
	Explain Explain
	// Registry takes servers that announce themselves.
	Registry Registry
	// KeyName is what people call an issued key, "" for others; nil: nobody knows.
	KeyName func(key string) string
	Now     func() time.Time // nil means time.Now
	Log     *slog.Logger     // nil means slog.Default
}

type server struct {
	opt      Options
	failures budget // entries of what was refused or has failed
	guests   budget // entries of who is no admin
	mux      *http.ServeMux
	table    []route
}

// New returns the API; it is to be mounted at Prefix + "/".
func New(opt Options) http.Handler {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	s := &server{opt: opt, mux: http.NewServeMux()}
	s.table = s.routes()
	byPath := map[string]map[string]*route{}
	for i := range s.table {
		r := &s.table[i]
		if byPath[r.path] == nil {
			byPath[r.path] = map[string]*route{}
		}
		byPath[r.path][r.method] = r
	}
	for path, methods := range byPath {
		s.mux.Handle(Prefix+path, s.at(methods))
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.answer(&call{s: s, w: w, r: r}, notFound("There is no %s here.", r.URL.Path))
	})
	return s
}
