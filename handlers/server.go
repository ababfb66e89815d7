// Package handlers knows the clients: the routes of OpenAI's API, who may use them,
// what an answer looks like in each dialect, and what a failure is called.
package handlers

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/ratelimit/fair"
	"sluice/streaming"
)

// Authenticator finds the caller behind the headers of a request.
type Authenticator interface {
	Authenticate(h http.Header) (auth.Principal, error)
}

// Catalog knows which models there are.
type Catalog interface {
	Models(ctx context.Context) []providers.Model
	// Has reports whether a model that may not be listed can be asked for.
	Has(ctx context.Context, model string) bool
	// Capabilities are what is known of a model now; it waits for nobody.
	Capabilities(ctx context.Context, model string) providers.Capabilities
}

// Options are what the handlers need from outside.
type Options struct {
	// Newest, if not nil, is the server of the newest configuration, for requests on WebSocket
	// connections that are older; leave is called when the answer has ended.
	Newest   func() (s *Server, leave func())
	Provider providers.Provider // the router
	Catalog  Catalog
	Auth     Authenticator
	// Current, if not nil, finds a caller again as it is now: behind a ticket, and for each
	// request on a WebSocket connection.
	Current func(was auth.Principal) (auth.Principal, error)
	// Standing, if not nil, says why a caller whom Auth or Callers has found may not call any
	// longer. It is asked once the answer is in Live, and must not wait.
	Standing func(who *auth.Principal) error
	// WrongKeys, if not nil, bounds how often a network is told that a key is wrong.
	WrongKeys *auth.WrongKeys
	Relay     streaming.Relay // Total is set per request
	// Total bounds a whole answer by its model.
	Total      func(ctx context.Context, model string) time.Duration
	WriteLimit time.Duration // for one write to a client
	BodyTime   time.Duration // for a client to send a message over WebSocket
	Body       int64         // bytes of a request body
	BodyVision int64         // bytes of a request body with images or a form
	Depth      int           // nesting of a request's JSON
	CORS       CORS
	WebSocket  WebSocket
	Tickets    Ticketer
	Routing    Routing
	Prefixes   []Prefix
	Proxies    []*net.IPNet // whose X-Forwarded-For and X-Forwarded-Host are believed
	Quota      *Quota       // nil: no limits, and nothing is written down
	// Line, if not nil, finds where answers of a model wait for a place; nil: they need none.
	Line     func(model string) *fair.Queue
	Observer *Observer
	Live     *Live // nil: one of its own
	Drain    *Drain
	Log      *slog.Logger
}

// Server serves the API.
type Server struct {
	opt  Options
	echo *echo.Echo
}

// New returns the API as an http.Handler.
func New(opt Options) *Server {
	if opt.Live == nil {
		opt.Live = NewLive()
	}
	s := &Server{opt: opt, echo: echo.New()}
	s.echo.HideBanner = true
	s.echo.HTTPErrorHandler = s.fail
	s.echo.IPExtractor = clientAddress(opt.Proxies)
	s.echo.Pre(s.opt.CORS.middleware, withoutTrailingSlash)
	s.echo.Use(s.identify, s.recover, s.linger)
	for _, prefix := range []string{"/v1", ""} {
		s.routes(s.echo.Group(prefix))
	}
	for _, p := range s.opt.Prefixes {
		s.echo.POST(p.Before+"*", s.below(p))
	}
	get(s.echo.Group(""), "/livez", s.livez)
	get(s.echo.Group(""), "/readyz", s.readyz)
	get(s.echo.Group(""), staticPath+"*", static())
	return s
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// passed are the routes whose bodies and answers are passed on unread.
var passed = []string{
	"/audio/speech", "/audio/transcriptions", "/audio/translations",
	"/images/generations", "/images/edits", "/images/variations", "/rerank",
}

func (s *Server) routes(g *echo.Group) {
	g.POST("/chat/completions", s.relay(providers.Chat, "/chat/completions"))
	g.POST("/completions", s.relay(providers.Completions, "/completions"))
	g.GET("/chat/completions", s.upgrade(providers.Chat, "/chat/completions"))
	g.GET("/completions", s.upgrade(providers.Completions, "/completions"))
	g.POST("/tickets", s.ticket)
	g.POST("/embeddings", s.relay(providers.Embeddings, "/embeddings"))
	g.POST("/moderations", s.relay(providers.Moderations, "/moderations"))
	g.POST("/responses", s.relay(providers.Responses, "/responses"))
	for _, path := range passed {
		g.POST(path, s.relay(providers.Passthrough, path))
	}
	get(g, "/usage", s.usage)
	get(g, "/key", s.key)
	get(g, "/models", s.models)
	get(g, "/models/*", s.model)
	g.POST("/models/*", s.onModel)
}

// clientAddress believes nobody but the given proxies about who is calling.
func clientAddress(proxies []*net.IPNet) echo.IPExtractor {
	if len(proxies) == 0 {
		return echo.ExtractIPDirect()
	}
	trust := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range proxies {
		trust = append(trust, echo.TrustIPRange(p))
	}
	return echo.ExtractIPFromXFFHeader(trust...)
}

func get(g *echo.Group, path string, h echo.HandlerFunc) {
	g.GET(path, h)
	g.HEAD(path, h)
}

func (s *Server) livez(c echo.Context) error { return c.String(http.StatusOK, "ok\n") }

func (s *Server) readyz(c echo.Context) error {
	if !s.opt.Drain.Ready() {
		return c.String(http.StatusServiceUnavailable, "draining\n")
	}
	return c.String(http.StatusOK, "ok\n")
}
