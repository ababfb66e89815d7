package handlers

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/providers"
	"sluice/streaming"
)

// headerRequestID is where a request's id stands, for the client and for us.
const headerRequestID = "X-Request-Id"

// identify gives every request an id, in the answer's header too.
func (s *Server) identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set(headerRequestID, newRequestID())
		return next(c)
	}
}

func newRequestID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], rand.Uint64())
	binary.BigEndian.PutUint64(b[8:], rand.Uint64())
	return "req_" + hex.EncodeToString(b[:12])
}

func requestID(c echo.Context) string { return c.Response().Header().Get(headerRequestID) }

// lingerTime is how long an answer without a look at the body waits for the rest of
// that body, which net/http wants to read first.
const lingerTime = 300 * time.Millisecond

// linger leaves a client whose request was refused little time for the rest of its body.
func (s *Server) linger(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		err := next(c)
		if err != nil && !c.Response().Committed && c.Request().ContentLength != 0 {
			_ = http.NewResponseController(c.Response().Writer).SetReadDeadline(time.Now().Add(lingerTime)) // a writer without deadlines has no rest
		}
		return err
	}
}

// recover turns a panic of a handler into an answer, but lets an abort through.
func (s *Server) recover(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			switch v := recover(); {
			case v == nil:
			case v == http.ErrAbortHandler:
				panic(v)
			default:
				err = &streaming.PanicError{Value: v, Stack: debug.Stack()}
			}
		}()
		return next(c)
	}
}

// fail is the one place where a request without an answer gets its error.
func (s *Server) fail(err error, c echo.Context) {
	s.logPanic(requestID(c), err)
	if c.Response().Committed {
		return
	}
	if h := new(echo.HTTPError); errors.As(err, &h) {
		err = routeError(h, c.Request())
	}
	f := describe(s.opt.WrongKeys.Count(addressOf(c), err))
	if _, told := c.Get(toldKey).(bool); !told {
		s.opt.Observer.refuse(requestID(c), c.RealIP(), c.Request().Method+" "+c.Request().URL.Path, f)
	}
	f.write(c.Response(), c.Request().Method == http.MethodHead)
}

func addressOf(c echo.Context) netip.Addr {
	a, _ := netip.ParseAddr(c.RealIP())
	return a
}

// toldKey marks requests that came as far as an answer, which tells of itself.
const toldKey = "told"

// logPanic writes down what the client is only told the request id of.
func (s *Server) logPanic(id string, err error) {
	if err == nil {
		return
	}
	if p := new(streaming.PanicError); errors.As(err, &p) {
		s.opt.Log.Error("panic", slog.String("request_id", id), slog.Any("value", p.Value), slog.String("stack", string(p.Stack)))
	}
}

// routeError turns what the framework says into the table's kinds.
func routeError(h *echo.HTTPError, r *http.Request) error {
	switch h.Code {
	case http.StatusNotFound:
		return &providers.Error{Kind: providers.NotFound, Message: fmt.Sprintf("Unknown request URL: %s %s. The gateway serves OpenAI's API under /v1.", r.Method, r.URL.Path)}
	case http.StatusMethodNotAllowed:
		return &providers.Error{Kind: providers.MethodNotAllowed, Message: fmt.Sprintf("%s is not allowed on %s.", r.Method, r.URL.Path)}
	default:
		return h
	}
}

// withoutTrailingSlash serves /path/ as /path, without a redirect that SDKs would not follow.
func withoutTrailingSlash(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		u := c.Request().URL
		if p := u.Path; len(p) > 1 && strings.HasSuffix(p, "/") {
			u.Path = strings.TrimRight(p, "/")
			u.RawPath = strings.TrimRight(u.RawPath, "/")
		}
		return next(c)
	}
}

// CORS says which browser pages may call.
type CORS struct {
	Origins []string // "*" is any; none: no page
	MaxAge  time.Duration
}

// exposed are the answer headers that a page may read.
const exposed = "x-request-id, retry-after, retry-after-ms, x-should-retry, x-sluice-target, x-sluice-route, x-sluice-dropped-params, x-sluice-reasoning, openai-processing-ms, inference-header-content-length, " +
	"x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, " +
	"x-ratelimit-reset-requests, x-ratelimit-reset-tokens"

// middleware answers preflights by reflecting the headers that were asked for: a
// list of known ones would break with the next SDK release.
func (o CORS) middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		origin := c.Request().Header.Get("Origin")
		if origin == "" {
			return next(c)
		}
		h := c.Response().Header()
		h.Add("Vary", "Origin")
		allowed := o.allows(origin)
		if allowed {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Expose-Headers", exposed)
		}
		if c.Request().Method != http.MethodOptions || c.Request().Header.Get("Access-Control-Request-Method") == "" {
			return next(c)
		}
		h.Add("Vary", "Access-Control-Request-Headers")
		if allowed {
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE, OPTIONS")
			if want := c.Request().Header.Get("Access-Control-Request-Headers"); want != "" {
				h.Set("Access-Control-Allow-Headers", want)
			}
			h.Set("Access-Control-Max-Age", strconv.Itoa(int(o.MaxAge.Seconds())))
		}
		return c.NoContent(http.StatusNoContent)
	}
}

func (o CORS) allows(origin string) bool {
	for _, a := range o.Origins {
		if a == "*" || strings.EqualFold(a, origin) {
			return true
		}
	}
	return false
}
