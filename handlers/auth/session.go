package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"time"
)

// Session is one browser that has signed in. What the browser holds is nowhere kept; the
// store knows its SHA-256.
type Session struct {
	Name string `json:"name"` // of the user or the key
	Role Role   `json:"role"`
	Way  string `json:"way"` // of signing in
	// Proof is a fingerprint of what it was opened with: when that is no longer so, a
	// password that was changed, a key that was revoked, the session is over.
	Proof  string    `json:"proof"`
	Opened time.Time `json:"opened"`
	Seen   time.Time `json:"seen"` // to the minute or so
	From   string    `json:"from"` // address
}

// SessionID is the SHA-256 of what a browser holds.
type SessionID [sha256.Size]byte

// MaxSessions is how many sessions one name may have; beyond it the oldest ends.
const MaxSessions = 32

var (
	// ErrNoSession means that a session does not exist, or exists no more.
	ErrNoSession = errors.New("there is no such session")
	// ErrStore means that the store cannot be reached now.
	ErrStore = errors.New("the store of the sessions is not available")
)

// SessionStore keeps sessions where all replicas see them. Errors other than ErrNoSession mean
// that it cannot be reached. Its methods may be called concurrently.
type SessionStore interface {
	// OpenSession keeps a new one until then.
	OpenSession(ctx context.Context, id SessionID, s *Session, until time.Time) error
	FindSession(ctx context.Context, id SessionID) (*Session, error)
	// TouchSession keeps an existing one longer. One that was ended meanwhile stays ended.
	TouchSession(ctx context.Context, id SessionID, s *Session, until time.Time) error
	// EndSession forgets one; it is no error when there is none.
	EndSession(ctx context.Context, id SessionID) error
}

// SessionCookie is the cookie's name. The prefix has browsers take it only when it is
// Secure, for this host alone and for all of it, so that no other host can set one.
const SessionCookie = "__Host-sluice"

const sessionBytes = 32

var sessionText = base64.RawURLEncoding.Strict()

// newSession makes what the browser holds.
func newSession() (text string, id SessionID) {
	var b [sessionBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return sessionText.EncodeToString(b[:]), sha256.Sum256(b[:])
}

// sessionID reads what a browser sent.
func sessionID(text string) (id SessionID, ok bool) {
	if len(text) != sessionText.EncodedLen(sessionBytes) {
		return id, false
	}
	b, err := sessionText.DecodeString(text)
	if err != nil {
		return id, false
	}
	return sha256.Sum256(b), true
}

// CookieFor is what tells a browser to keep a session; text "" tells it to forget.
func CookieFor(text string, life time.Duration) *http.Cookie {
	c := &http.Cookie{Name: SessionCookie, Value: text, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(life.Seconds())}
	if text == "" {
		c.MaxAge = -1
	}
	return c
}
