package auth

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"sluice/providers"
)

// Why an issued key is not good.
var (
	// ErrUnknown means that there is no such key, or that its secret is another one.
	ErrUnknown = errors.New("there is no such key")
	// ErrDisabled and ErrExpired are told to who has the right secret only.
	ErrDisabled = errors.New("the key is disabled")
	ErrExpired  = errors.New("the key has expired")
	// ErrUnavailable means that nobody can tell now: the store of the keys cannot be reached
	// and what is known here is too old for an answer, or an edit could not be written.
	ErrUnavailable = errors.New("the store of the keys is not available")
)

// Issuer knows the keys that the gateway has issued. Its methods may be called concurrently
// and do not wait. Errors are, or wrap, those above; any other one is a key that is not good.
type Issuer interface {
	// Caller finds who calls with a key. It works as much for one that nobody has.
	Caller(t Token) (Principal, error)
	// Named finds who calls with a key by its id, as it is now.
	Named(id KeyID) (Principal, error)
	// Good returns nil while a secret of the key is in force.
	Good(id KeyID, serial uint32) error
}

// Callers know everybody who may call: by the keys of the configuration, which can be
// replaced, and by issued ones. All methods may be called concurrently.
type Callers struct {
	static atomic.Pointer[Keys]
	issued Issuer
}

// NewCallers takes both; issued may be nil.
func NewCallers(static *Keys, issued Issuer) *Callers {
	c := &Callers{issued: issued}
	c.static.Store(static)
	return c
}

// Replace puts other keys of the configuration in force.
func (c *Callers) Replace(static *Keys) { c.static.Store(static) }

// Authenticate finds the caller behind a request's Authorization or api-key header. Errors
// say no more to who has no right secret than that it is not one.
func (c *Callers) Authenticate(h http.Header) (Principal, error) {
	text, err := credential(h)
	if err != nil {
		return Principal{}, err
	}
	return c.Find(text)
}

// Find finds the caller behind a key.
func (c *Callers) Find(key string) (Principal, error) {
	if c.issued != nil {
		token, err := ParseToken(key)
		if err == nil {
			who, err := c.issued.Caller(token)
			return who, refusal(err)
		}
		if errors.Is(err, ErrMistyped) {
			if who, ok := c.static.Load().find(key); ok {
				return who, nil
			}
			return Principal{}, &providers.Error{Kind: providers.Unauthorized, Err: ErrWrongKey, Message: "Incorrect API key provided: it is mistyped or cut off. Copy it again, whole."}
		}
	}
	who, ok := c.static.Load().find(key)
	if !ok {
		return Principal{}, wrongKey()
	}
	return who, nil
}

// Current finds the caller again by the name and secret that it was known by, as it is now.
func (c *Callers) Current(was Principal) (Principal, error) {
	if was.Configured() {
		static := c.static.Load()
		if !static.Holds(&was) {
			return Principal{}, refusal(ErrUnknown)
		}
		who, _ := static.Named(was.Key)
		return who, nil
	}
	if err := c.Good(&was); err != nil {
		return Principal{}, err
	}
	id, err := ParseKeyID(was.Key)
	if err != nil {
		return Principal{}, refusal(ErrUnknown)
	}
	who, err := c.issued.Named(id)
	who.Serial = was.Serial
	return who, refusal(err)
}

// Good returns nil while the key that the caller came with is in force. It is asked again
// by who has listed a running answer: a revocation just before told nobody. Keys of the
// configuration are while they stand there with the same secret.
func (c *Callers) Good(who *Principal) error {
	if who.Configured() {
		if !c.static.Load().Holds(who) {
			return refusal(ErrUnknown)
		}
		return nil
	}
	id, err := ParseKeyID(who.Key)
	if err != nil || c.issued == nil {
		return refusal(ErrUnknown)
	}
	return refusal(c.issued.Good(id, who.Serial))
}

// storeRetry is when who could not be known may ask again.
const storeRetry = time.Second

// refusal is what a caller is told.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrExpired):
		return &providers.Error{Kind: providers.Unauthorized, Code: "api_key_expired", Message: "The API key has expired."}
	case errors.Is(err, ErrDisabled):
		return &providers.Error{Kind: providers.Forbidden, Code: "api_key_disabled", Message: "The API key is disabled. The gateway's operator can enable it."}
	case errors.Is(err, ErrUnavailable):
		return &providers.Error{Kind: providers.Overloaded, Code: "keys_unavailable", RetryAfter: storeRetry, Message: "The gateway cannot check API keys now. Try again in a moment.", Err: err}
	default:
		return wrongKey()
	}
}
