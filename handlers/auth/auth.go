// Package auth knows who is calling: it turns the credential of a request into a
// Principal.
package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/providers"
	"sluice/ratelimit"
)

// Principal is who is calling. It is read only.
type Principal struct {
	Key             string // name of the key in buckets and books: of an issued key its id
	Org, Team, User string // "" where the key says nothing
	// Rules are limits that the key carries, beside the declared ones.
	Rules  []*ratelimit.Rule
	Groups []string // that the key belongs to, for routing
	// Name is what people call an issued key, "" for others; it is not unique.
	Name     string
	Metadata map[string]string // of an issued key
	Expires  time.Time         // of an issued key; zero: never
	// Serial names the secret that the caller came with: see Configured.
	Serial uint32
	// May bounds what the key is for; nil: nothing does.
	May *Permissions
}

// Permissions are what a key may be used for. An empty list allows all.
type Permissions struct {
	Models     []string // patterns as limits have them
	Routes     []string // patterns of the operations' names ("chat", "embeddings")
	Transports []string // http, sse, ws
}

// configuredSecret is set in the serials of secrets of the configuration, whose other bits are of
// their digest. Issued keys count theirs from 1.
const configuredSecret uint32 = 1 << 31

// Configured reports whether the key stands in the configuration; otherwise it was issued.
func (p *Principal) Configured() bool { return p.Serial == 0 || p.Serial&configuredSecret != 0 }

// AllowsModel reports whether the key may be used for the model.
func (p *Principal) AllowsModel(name string) bool { return p.May == nil || fitsAny(p.May.Models, name) }

// AllowsRoute reports whether the key may be used for the operation.
func (p *Principal) AllowsRoute(op string) bool { return p.May == nil || fitsAny(p.May.Routes, op) }

// AllowsTransport reports whether answers may travel by http, sse or ws.
func (p *Principal) AllowsTransport(t string) bool {
	return p.May == nil || len(p.May.Transports) == 0 || slices.Contains(p.May.Transports, t)
}

func fitsAny(globs []string, name string) bool {
	for _, g := range globs {
		if ratelimit.Fits(g, name) {
			return true
		}
	}
	return len(globs) == 0
}

// Keys are the static API keys of a configuration. They are read only after New,
// by any goroutine.
type Keys struct {
	byDigest map[[sha256.Size]byte]Principal
	byName   map[string]Principal
}

// NewKeys takes the callers by the SHA-256 of their key. Names of keys are unique.
func NewKeys(byDigest map[[sha256.Size]byte]Principal) *Keys {
	k := &Keys{byDigest: make(map[[sha256.Size]byte]Principal, len(byDigest)), byName: make(map[string]Principal, len(byDigest))}
	for digest, who := range byDigest {
		sum := sha256.Sum256(append([]byte("sluice serial\x00"), digest[:]...))
		who.Serial = binary.BigEndian.Uint32(sum[:]) | configuredSecret
		k.byDigest[digest], k.byName[who.Key] = who, who
	}
	return k
}

// Holds reports whether a caller's key stands here, with the secret that the caller came with;
// Serial 0 is any secret.
func (k *Keys) Holds(who *Principal) bool {
	is, ok := k.byName[who.Key]
	return ok && (who.Serial == 0 || who.Serial == is.Serial)
}

// Named finds the caller by the name of the key, for credentials that stand for a key.
func (k *Keys) Named(key string) (who Principal, ok bool) {
	who, ok = k.byName[key]
	return who, ok
}

// Authenticate finds the caller behind a request's Authorization or api-key header.
func (k *Keys) Authenticate(h http.Header) (Principal, error) {
	secret, err := credential(h)
	if err != nil {
		return Principal{}, err
	}
	who, ok := k.find(secret)
	if !ok {
		return Principal{}, wrongKey()
	}
	return who, nil
}

// find finds the caller behind a key. The work is the same for known and unknown keys:
// what is compared are digests.
func (k *Keys) find(secret string) (who Principal, ok bool) {
	digest := sha256.Sum256([]byte(secret))
	var found [sha256.Size]byte
	same := 0
	for d := range k.byDigest {
		if subtle.ConstantTimeCompare(d[:], digest[:]) == 1 {
			found, same = d, 1
		}
	}
	if same == 0 {
		return Principal{}, false
	}
	return k.byDigest[found], true
}

// ErrWrongKey is wrapped by what a caller with a wrong key is told.
var ErrWrongKey = errors.New("a wrong API key")

func wrongKey() error {
	return &providers.Error{Kind: providers.Unauthorized, Err: ErrWrongKey, Message: "Incorrect API key provided. The gateway's operator issues keys, or sets them in its configuration."}
}

// credential reads the one key that a request carries.
func credential(h http.Header) (string, error) {
	key, err := only(h["Api-Key"])
	if err != nil {
		return "", err
	}
	line, err := only(h["Authorization"])
	if err != nil {
		return "", err
	}
	scheme, token, _ := strings.Cut(line, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		token = ""
	}
	token = strings.TrimSpace(token)
	switch {
	case token == "" && key == "":
		return "", &providers.Error{Kind: providers.Unauthorized, Message: "You didn't provide an API key. Send it as Authorization: Bearer YOUR_KEY, or in an api-key header."}
	case token != "" && key != "" && token != key:
		return "", errTwoKeys()
	case token == "":
		return key, nil
	default:
		return token, nil
	}
}

// only is the value of a header, which may be repeated but not with another one.
func only(values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	for _, v := range values[1:] {
		if v != values[0] {
			return "", errTwoKeys()
		}
	}
	return values[0], nil
}

func errTwoKeys() error {
	return providers.Invalid("", "Two different API keys were sent, in Authorization, api-key or both. Send one.")
}
