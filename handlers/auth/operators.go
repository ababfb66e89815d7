package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// User may sign in with a password.
type User struct {
	Name string
	Role Role // RoleAdmin or RoleViewer
	Hash *PasswordHash
}

// AdminToken is a bearer token of the admin API, for scripts.
type AdminToken struct {
	Name   string
	Role   Role // RoleAdmin or RoleViewer
	Digest [sha256.Size]byte
}

// Credential is what somebody signs in with; what a way does not know it leaves alone.
type Credential struct {
	User, Password string
	Key            string // an API key
}

// SignIn is one way of signing in: by password, by API key. Its methods may be called
// concurrently.
type SignIn interface {
	// Check finds who has the credential, and what a session stands on that is opened with
	// it. The error is ErrWrong when nobody has, with the name if that is somebody's; ErrBusy;
	// or it wraps ErrStore.
	Check(ctx context.Context, c Credential) (who Actor, proof string, err error)
	// Holds finds whose a session is. The error is ErrSignedOut when what it stands on is so
	// no more, and wraps ErrStore when nobody can tell.
	Holds(ctx context.Context, s *Session) (Actor, error)
}

var (
	// ErrWrong is told whatever of a credential is wrong.
	ErrWrong = errors.New("the name, the password or the key is wrong")
	// ErrSignedOut means that the credential of a request is good no more, or never was.
	ErrSignedOut = errors.New("the session or the token is not, or no longer, valid")
	// ErrTwo means that a request carries more than one credential.
	ErrTwo = errors.New("more than one credential was sent")
)

// TooManyTries is the error when an address has sent too many wrong credentials.
type TooManyTries struct{ RetryAfter time.Duration }

func (e *TooManyTries) Error() string {
	return fmt.Sprintf("too many wrong credentials came from this address; try again in %v", e.RetryAfter.Round(time.Second))
}

// OperatorOptions are what Operators need.
type OperatorOptions struct {
	Sessions SessionStore
	// Ways of signing in, by the name that sessions remember.
	Ways map[string]SignIn
	// Idle and Total bound a session: since it was last used, and since it was opened.
	Idle, Total time.Duration
	// Tries is how many wrong credentials an address may send in a minute.
	Tries int
	// Address tells where a request comes from; nil means the connection's other end.
	Address func(r *http.Request) netip.Addr
	Now     func() time.Time // nil means time.Now
}

// Operators knows who may use the admin API: by a session, or by a bearer token. It
// may be used concurrently.
type Operators struct {
	o      OperatorOptions
	tokens atomic.Pointer[[]AdminToken]
	tries  *tries
}

// NewOperators begins without tokens.
func NewOperators(o OperatorOptions) *Operators {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Address == nil {
		o.Address = RemoteAddress
	}
	op := &Operators{o: o, tries: newTries(o.Tries, o.Now)}
	op.SetTokens(nil)
	return op
}

// RemoteAddress is the other end of the connection; its zero value when that has no address.
func RemoteAddress(r *http.Request) netip.Addr {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	return at.Addr().Unmap()
}

// SetTokens replaces the tokens; those that are gone are refused from now on.
func (op *Operators) SetTokens(tokens []AdminToken) { op.tokens.Store(&tokens) }

// Address tells where a request comes from.
func (op *Operators) Address(r *http.Request) netip.Addr { return op.o.Address(r) }

// Who finds who sends a request; without a credential it is the zero Actor. Errors are
// ErrSignedOut, ErrTwo, *TooManyTries, and ErrStore.
func (op *Operators) Who(ctx context.Context, r *http.Request) (Actor, error) {
	token, cookie, err := credentials(r)
	switch {
	case err != nil:
		return Actor{}, err
	case token != "":
		return op.byToken(r, token)
	case cookie != "":
		return op.bySession(ctx, cookie)
	default:
		return Actor{}, nil
	}
}

// credentials reads the one credential of a request. One that cannot be read is as wrong as
// any other.
func credentials(r *http.Request) (token, cookie string, err error) {
	headers := r.Header.Values("Authorization")
	cookies := r.CookiesNamed(SessionCookie)
	switch n := len(headers) + len(cookies); {
	case n > 1:
		return "", "", ErrTwo
	case n == 0:
		return "", "", nil
	case len(cookies) == 1 && cookies[0].Value == "":
		return "", "", ErrSignedOut
	case len(cookies) == 1:
		return "", cookies[0].Value, nil
	}
	scheme, text, _ := strings.Cut(headers[0], " ")
	if token = strings.TrimSpace(text); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", "", ErrSignedOut
	}
	return token, "", nil
}

// byToken does the same work for each token. A right one is let in however many wrong ones came
// from its address: tokens are too long to be guessed, and scripts must not be kept out by
// somebody who tries.
func (op *Operators) byToken(r *http.Request, token string) (Actor, error) {
	digest := sha256.Sum256([]byte(token))
	var who Actor
	for _, t := range *op.tokens.Load() {
		if subtle.ConstantTimeCompare(t.Digest[:], digest[:]) == 1 {
			who = Actor{Name: t.Name, Role: t.Role, Via: "token"}
		}
	}
	if who.Role != "" {
		return who, nil
	}
	if wait := op.tries.take(op.o.Address(r)); wait > 0 {
		return Actor{}, &TooManyTries{wait}
	}
	return Actor{}, ErrSignedOut
}

// bySession finds a session, and lets it last.
func (op *Operators) bySession(ctx context.Context, cookie string) (Actor, error) {
	id, ok := sessionID(cookie)
	if !ok {
		return Actor{}, ErrSignedOut
	}
	s, err := op.o.Sessions.FindSession(ctx, id)
	switch {
	case errors.Is(err, ErrNoSession):
		return Actor{}, ErrSignedOut
	case err != nil:
		return Actor{}, fmt.Errorf("%w: %w", ErrStore, err)
	}
	now := op.o.Now()
	who, err := Actor{}, ErrSignedOut
	if way := op.o.Ways[s.Way]; way != nil && now.Before(op.until(s)) {
		who, err = way.Holds(ctx, s)
	}
	if errors.Is(err, ErrSignedOut) {
		_ = op.o.Sessions.EndSession(ctx, id) // it is refused in any case
	}
	if err != nil {
		return Actor{}, err
	}
	if now.Sub(s.Seen) > op.o.Idle/30 {
		s.Seen = now
		if err := op.o.Sessions.TouchSession(ctx, id, s, op.until(s)); err != nil {
			return Actor{}, touchError(err)
		}
	}
	who.Via, who.Until = "session", op.until(s)
	return who, nil
}

func touchError(err error) error {
	if errors.Is(err, ErrNoSession) {
		return ErrSignedOut
	}
	return fmt.Errorf("%w: %w", ErrStore, err)
}

// until is when a session ends unless it is used.
func (op *Operators) until(s *Session) time.Time {
	idle, total := s.Seen.Add(op.o.Idle), s.Opened.Add(op.o.Total)
	if idle.Before(total) {
		return idle
	}
	return total
}

// Open signs somebody in: text is what the browser is to hold, under a new name each time.
// The session that the request came with, if any, ends. Errors are ErrWrong, with the name if it is somebody's, *TooManyTries,
// ErrBusy and ErrStore.
func (op *Operators) Open(ctx context.Context, r *http.Request, way string, c Credential) (who Actor, text string, err error) {
	from := op.o.Address(r)
	if wait := op.tries.take(from); wait > 0 {
		return Actor{}, "", &TooManyTries{wait}
	}
	in := op.o.Ways[way]
	if in == nil {
		return Actor{}, "", ErrWrong
	}
	who, proof, err := in.Check(ctx, c)
	if !errors.Is(err, ErrWrong) {
		op.tries.giveBack(from)
	}
	if err != nil {
		return Actor{Name: who.Name}, "", err
	}
	now := op.o.Now()
	s := &Session{Name: who.Name, Role: who.Role, Way: way, Proof: proof, Opened: now, Seen: now, From: from.String()}
	text, id := newSession()
	if err := op.o.Sessions.OpenSession(ctx, id, s, op.until(s)); err != nil {
		return Actor{}, "", fmt.Errorf("%w: %w", ErrStore, err)
	}
	if err := op.Close(ctx, r); err != nil {
		return Actor{}, "", errors.Join(err, op.o.Sessions.EndSession(ctx, id))
	}
	who.Via, who.Until = "session", op.until(s)
	return who, text, nil
}

// Close ends the session that a request came with, if any. The error is ErrStore.
func (op *Operators) Close(ctx context.Context, r *http.Request) error {
	for _, c := range r.CookiesNamed(SessionCookie) {
		if id, ok := sessionID(c.Value); ok {
			if err := op.o.Sessions.EndSession(ctx, id); err != nil {
				return fmt.Errorf("%w: %w", ErrStore, err)
			}
		}
	}
	return nil
}

// Life is how long a browser may keep the cookie.
func (op *Operators) Life() time.Duration { return op.o.Total }
