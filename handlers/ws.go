package handlers

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/streaming"
)

// WebSocket bounds the connections that carry many answers.
type WebSocket struct {
	Origins    []string // pages of other origins that may connect; "*" is any
	Ping, Pong time.Duration
	Lanes      int           // answers side by side on one connection
	Queued     int           // answers waiting in one lane
	SendQueue  int           // bytes waiting for one client
	Lifetime   time.Duration // of a connection; 0: no bound
	Control    int64         // bytes of a message that carries no request
}

// Ticketer makes and takes credentials for one connection each.
type Ticketer interface {
	Issue(who auth.Principal) string
	Lifetime() time.Duration
	Redeem(ctx context.Context, ticket string) (auth.Principal, error)
}

// The subprotocols that a client may offer (RFC 6455 section 1.9). Those with a
// credential are for browsers, which cannot set headers, and are never answered.
const (
	subprotocol       = "sluice.v1"
	subprotocolKey    = "openai-insecure-api-key."
	subprotocolTicket = "sluice-ticket."
)

// wsHeadroom is what a message may have around the request in it.
const wsHeadroom = 4 << 10

// upgrade is the handler of the routes that carry answers over WebSocket. It returns
// once the connection has changed hands, so that what the HTTP server holds for a
// request is freed.
func (s *Server) upgrade(op providers.Op, path string) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if err := handshake(c.Response().Header(), r); err != nil {
			return err
		}
		if !s.originAllowed(r) {
			return &providers.Error{Kind: providers.Forbidden, Code: "origin_not_allowed", Message: "Pages of this origin may not connect. The gateway's operator can allow it in websocket.origins."}
		}
		if s.opt.Drain.Refusing() {
			return streaming.ErrDraining
		}
		who, err := s.caller(r)
		if err == nil {
			err = permittedTransport(&who, "ws")
		}
		if err == nil {
			err = permittedRoute(&who, op, path)
		}
		if err != nil {
			return err
		}
		return s.connect(c, &session{
			srv: s, op: op, path: path, who: who, id: requestID(c), remote: c.RealIP(), route: "WS " + r.URL.Path,
			hints: s.opt.Routing.of(r.Header),
			limit: s.bodyLimit(op) + wsHeadroom, lanes: map[string]*wsLane{},
		})
	}
}

func (s *Server) connect(c echo.Context, x *session) error {
	h := http.Header{headerRequestID: {x.id}}
	if len(offered(c.Request())) > 0 {
		h.Set("Sec-Websocket-Protocol", subprotocol)
	}
	sock, err := streaming.Upgrade(s.opt.Drain.Base(), c.Response().Writer, c.Request(), h, streaming.SocketOptions{
		Ping: s.opt.WebSocket.Ping, Pong: s.opt.WebSocket.Pong, Write: s.opt.WriteLimit, Message: s.opt.BodyTime,
		MaxMessage: x.limit, Queue: s.opt.WebSocket.SendQueue,
	})
	if errors.Is(err, streaming.ErrNotWebSocket) {
		return &providers.Error{Kind: providers.BadRequest, Code: "bad_handshake", Message: "The WebSocket handshake is not valid (RFC 6455 section 4.2.1).", Err: err}
	}
	c.Response().Committed = true
	if err != nil {
		return err
	}
	x.begin(sock)
	go x.run()
	return nil
}

// handshake refuses what is no request for a connection, before anything else is
// looked at.
func handshake(answer http.Header, r *http.Request) error {
	if !streaming.IsUpgrade(r) || r.ProtoMajor != 1 {
		answer.Set("Allow", "POST")
		return &providers.Error{Kind: providers.MethodNotAllowed, Message: "GET is not allowed on " + r.URL.Path + ". POST the request, or ask for an upgrade to WebSocket over HTTP/1.1."}
	}
	if r.Header.Get("Sec-Websocket-Version") != "13" {
		answer.Set("Sec-Websocket-Version", "13")
		answer.Set("Upgrade", "websocket")
		return errUpgrade
	}
	if list := offered(r); len(list) > 0 && !contains(list, subprotocol) {
		return &providers.Error{Kind: providers.BadRequest, Code: "subprotocol_missing", Message: "Offer the subprotocol " + subprotocol + "."}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// offered lists the subprotocols of a handshake.
func offered(r *http.Request) (list []string) {
	for _, line := range r.Header.Values("Sec-Websocket-Protocol") {
		for e := range strings.SplitSeq(line, ",") {
			if e = strings.TrimSpace(e); e != "" {
				list = append(list, e)
			}
		}
	}
	return list
}

// caller finds who opens the connection: by a ticket, or by the one key that came in
// a header or as a subprotocol. Two credentials are one too many.
func (s *Server) caller(r *http.Request) (auth.Principal, error) {
	h := http.Header{"Authorization": r.Header["Authorization"], "Api-Key": r.Header["Api-Key"]}
	tickets := map[string]bool{}
	for _, e := range offered(r) {
		if ticket, ok := strings.CutPrefix(e, subprotocolTicket); ok {
			tickets[ticket] = true
		}
		if key, ok := strings.CutPrefix(e, subprotocolKey); ok {
			h.Add("Api-Key", key)
		}
	}
	switch {
	case len(tickets) > 1, len(tickets) == 1 && (h.Get("Authorization") != "" || h.Get("Api-Key") != ""):
		return auth.Principal{}, providers.Invalid("", "A ticket and another credential were sent. Send one.")
	case len(tickets) == 1:
		return s.redeem(r.Context(), slices.Collect(maps.Keys(tickets))[0])
	}
	return s.opt.Auth.Authenticate(h)
}

// redeem finds the caller behind a ticket, as the key in whose name it was made has it
// now.
func (s *Server) redeem(ctx context.Context, ticket string) (auth.Principal, error) {
	who, err := s.opt.Tickets.Redeem(ctx, ticket)
	if err != nil || s.opt.Current == nil {
		return who, err
	}
	who, err = s.opt.Current(who)
	if e := providers.AsError(err); e != nil && e.Kind != providers.Overloaded {
		return who, &providers.Error{Kind: providers.Forbidden, Code: "invalid_ticket", Message: "The key that the ticket was made for is not good any more."}
	}
	return who, err
}

// originAllowed guards against pages that use their visitor's network: a browser
// sends Origin, other clients need not.
func (s *Server) originAllowed(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	if (CORS{Origins: s.opt.WebSocket.Origins}).allows(origins[0]) && len(origins) == 1 {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && u.Host != "" && strings.EqualFold(u.Host, s.publicHost(r))
}

// publicHost is the host that the client asked for. A proxy that is trusted may have
// put another one into the request.
func (s *Server) publicHost(r *http.Request) string {
	forwarded := r.Header.Get("X-Forwarded-Host")
	if forwarded == "" || !trusted(s.opt.Proxies, r.RemoteAddr) {
		return r.Host
	}
	return strings.TrimSpace(forwarded[strings.LastIndexByte(forwarded, ',')+1:])
}

func trusted(proxies []*net.IPNet, addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	if err != nil || ip == nil {
		return false
	}
	for _, p := range proxies {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// ticket makes a credential for one WebSocket connection in the caller's name.
func (s *Server) ticket(c echo.Context) error {
	who, err := s.opt.Auth.Authenticate(c.Request().Header)
	if err == nil {
		err = permittedTransport(&who, "ws")
	}
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, struct {
		Object    string `json:"object"`
		Ticket    string `json:"ticket"`
		ExpiresIn int64  `json:"expires_in_ms"`
	}{"ticket", s.opt.Tickets.Issue(who), s.opt.Tickets.Lifetime().Milliseconds()})
}
