// Package auth knows who is calling: it turns the credential of a request into a
// Principal.
package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"sluice/providers"
	"sluice/ratelimit"
)

// Principal is who is calling. It is read only.
type Principal struct {
	Key             string // name of the key
	Org, Team, User string // "" where the key says nothing
	// Rules are limits that the key carries, beside the declared ones.
	Rules []*ratelimit.Rule
}

// Keys are the static API keys of a configuration. They are read only after New,
// by any goroutine.
type Keys struct {
	byDigest map[[sha256.Size]byte]Principal
	byName   map[string]Principal
}

// NewKeys takes the callers by the SHA-256 of their key. Names of keys are unique.
func NewKeys(byDigest map[[sha256.Size]byte]Principal) *Keys {
	k := &Keys{byDigest: byDigest, byName: map[string]Principal{}}
	for _, who := range byDigest {
		k.byName[who.Key] = who
	}
	return k
}

// Named finds the caller by the name of the key, for credentials that stand for a key.
func (k *Keys) Named(key string) (who Principal, ok bool) {
	who, ok = k.byName[key]
	return who, ok
}

// Authenticate finds the caller behind a request's Authorization or api-key header.
// The work is the same for known and unknown keys: what is compared are digests.
func (k *Keys) Authenticate(h http.Header) (Principal, error) {
	secret, err := credential(h)
	if err != nil {
		return Principal{}, err
	}
	digest := sha256.Sum256([]byte(secret))
	var found [sha256.Size]byte
	ok := 0
	for d := range k.byDigest {
		if subtle.ConstantTimeCompare(d[:], digest[:]) == 1 {
			found, ok = d, 1
		}
	}
	if ok == 0 {
		return Principal{}, &providers.Error{Kind: providers.Unauthorized, Message: "Incorrect API key provided. Keys are set in the [[keys]] tables of the gateway's configuration."}
	}
	return k.byDigest[found], nil
}

// credential reads the one key that a request carries.
func credential(h http.Header) (string, error) {
	key := h.Get("Api-Key")
	scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		token = ""
	}
	token = strings.TrimSpace(token)
	switch {
	case token == "" && key == "":
		return "", &providers.Error{Kind: providers.Unauthorized, Message: "You didn't provide an API key. Send it as Authorization: Bearer YOUR_KEY, or in an api-key header."}
	case token != "" && key != "" && token != key:
		return "", providers.Invalid("", "Two different API keys were sent, in Authorization and in api-key. Send one.")
	case token == "":
		return key, nil
	default:
		return token, nil
	}
}
