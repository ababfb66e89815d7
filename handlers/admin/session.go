package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"sluice/handlers/auth"
)

// SignIns opens and ends sessions; *auth.Operators is one.
type SignIns interface {
	// Open signs somebody in by a way that it knows: text is what the cookie is to hold. With
	// auth.ErrWrong comes the name when somebody has it.
	Open(ctx context.Context, r *http.Request, way string, c auth.Credential) (who auth.Actor, text string, err error)
	// Close ends the session that the request came with.
	Close(ctx context.Context, r *http.Request) error
	// Life is how long a session lasts at most.
	Life() time.Duration
}

// signInBody is one way of signing in: a password, or an API key.
type signInBody struct {
	User     string `json:"user"`
	Password string `json:"password"`
	Key      string `json:"key"`
}

type sessionAnswer struct {
	Name    string     `json:"name"`
	Role    auth.Role  `json:"role"`
	Via     string     `json:"via"`
	Expires *time.Time `json:"expires_at"` // null for a token
}

func (s *server) sessionRoutes() []route {
	return []route{
		{method: http.MethodPost, path: "/session", role: anyone, audit: true, handle: s.signIn},
		{method: http.MethodGet, path: "/session", role: signedIn, handle: s.whoAmI},
		{method: http.MethodDelete, path: "/session", role: signedIn, audit: true, handle: s.signOut},
	}
}

// usualUser is who signs in without a name: the one user of a configuration with a single
// password.
const usualUser = "admin"

func (s *server) signIn(c *call) error {
	if s.opt.SignIns == nil {
		return notFound("Nobody signs in here.")
	}
	var body signInBody
	if err := c.read(&body); err != nil {
		return err
	}
	way := "password"
	switch {
	case body.Key != "" && (body.User != "" || body.Password != ""):
		return badField("key", "Send either a password or a key.")
	case body.Key != "":
		way = "key"
	case body.Password == "":
		return badField("password", "A password is required.")
	case body.User == "":
		body.User = usualUser
	}
	who, text, err := s.opt.SignIns.Open(c.r.Context(), c.r, way, auth.Credential{User: body.User, Password: body.Password, Key: body.Key})
	if c.who = who; err != nil {
		return err
	}
	http.SetCookie(c.w, auth.CookieFor(text, s.opt.SignIns.Life()))
	return c.replySession()
}

func (c *call) replySession() error {
	out := sessionAnswer{Name: c.who.Name, Role: c.who.Role, Via: c.who.Via}
	if !c.who.Until.IsZero() {
		until := c.who.Until.UTC()
		out.Expires = &until
	}
	return c.reply(http.StatusOK, out)
}

func (s *server) whoAmI(c *call) error { return c.replySession() }

func (s *server) signOut(c *call) error {
	if c.who.Via != "session" || s.opt.SignIns == nil {
		return badField("", "There is no session to end: a token is good until it is taken out of the configuration.")
	}
	if err := s.opt.SignIns.Close(c.r.Context(), c.r); err != nil {
		return err
	}
	http.SetCookie(c.w, auth.CookieFor("", 0))
	return c.done()
}

// signFault says what is wrong with a credential, and no more than that.
func signFault(err error) (*fault, bool) {
	var many *auth.TooManyTries
	switch {
	case errors.As(err, &many):
		return &fault{status: http.StatusTooManyRequests, code: "too_many_tries", message: "Too many wrong credentials came from this address. Try again later.", retryAfter: many.RetryAfter}, true
	case errors.Is(err, auth.ErrWrong):
		return &fault{status: http.StatusUnauthorized, code: "wrong_credentials", message: "The name, the password or the key is wrong."}, true
	case errors.Is(err, auth.ErrSignedOut):
		return &fault{status: http.StatusUnauthorized, code: "not_signed_in", message: "The session or the token is not, or no longer, valid. Sign in again."}, true
	case errors.Is(err, auth.ErrTwo):
		return &fault{status: http.StatusBadRequest, code: "two_credentials", message: "Send one credential: a session's cookie or one Authorization header."}, true
	case errors.Is(err, auth.ErrBusy):
		return &fault{status: http.StatusServiceUnavailable, code: "busy", message: "Too many are signing in at once. Try again.", retryAfter: time.Second}, true
	case errors.Is(err, auth.ErrStore):
		return &fault{status: http.StatusServiceUnavailable, code: "unavailable", message: "The store of the sessions cannot be reached now.", retryAfter: time.Second}, true
	default:
		return nil, false
	}
}
