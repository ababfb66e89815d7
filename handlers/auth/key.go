package auth

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// An API key that the gateway issues is text of one length:
//
//	sk-slc-<id><secret><checksum>
//
// id is 12 lower-case letters and digits and may be shown; secret is 32 letters and digits
// from crypto/rand (190 bits); checksum is the CRC-32 (IEEE) of all before it, as 6 letters
// and digits, so that a slip of the hand is told from a wrong key before any look-up. There
// is no punctuation behind the prefix: a double click takes all of it, and
// KeyPattern finds nothing else.
const (
	keyPrefix  = "sk-slc-"
	keySecret  = 32
	keyCheck   = 6
	keyBody    = len(keyPrefix) + len(KeyID{}) + keySecret
	keyLength  = keyBody + keyCheck
	idDigits   = "0123456789abcdefghijklmnopqrstuvwxyz"
	allDigits  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	keyShowing = "***"
)

// KeyPattern is the regular expression of issued keys, for scanners of secrets.
const KeyPattern = `sk-slc-[0-9a-z]{12}[0-9A-Za-z]{38}`

var (
	// ErrNotIssued means a credential of another form: it may be a key of the configuration.
	ErrNotIssued = errors.New("this is no key that the gateway issued")
	// ErrMistyped means a key of the right beginning with a character missing, changed or
	// added.
	ErrMistyped = errors.New("the key is mistyped or cut off")
)

// KeyID names an issued key. It is public.
type KeyID [12]byte

// ParseKeyID reads the id alone.
func ParseKeyID(s string) (id KeyID, err error) {
	if len(s) != len(id) || !madeOf(s, &idSet) {
		return KeyID{}, errors.New("the id of a key is 12 lower-case letters and digits")
	}
	copy(id[:], s)
	return id, nil
}

// String is the id; "" for the zero value.
func (id KeyID) String() string {
	if id == (KeyID{}) {
		return ""
	}
	return string(id[:])
}

// MarshalText is the inverse of UnmarshalText.
func (id KeyID) MarshalText() ([]byte, error) { return id[:], nil }

// UnmarshalText reads an id.
func (id *KeyID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseKeyID(string(text))
	return err
}

// Token is an issued key with its secret. Printed with any verb it shows its id only.
type Token struct{ text [keyLength]byte }

// NewToken makes a key.
func NewToken() Token { return newToken(randomText[KeyID](idDigits)) }

// TokenFor makes a key with the id and a new secret.
func TokenFor(id KeyID) Token { return newToken(id) }

func newToken(id KeyID) (t Token) {
	n := copy(t.text[:], keyPrefix)
	n += copy(t.text[n:], id[:])
	secret := randomText[[keySecret]byte](allDigits)
	copy(t.text[n:], secret[:])
	check := checkDigits(t.text[:keyBody])
	copy(t.text[keyBody:], check[:])
	return t
}

// randomText is evenly distributed over the digits.
func randomText[T KeyID | [keySecret]byte](digits string) (out T) {
	even := 256 / len(digits) * len(digits)
	text := make([]byte, 0, len(out))
	var pool [64]byte
	for len(text) < len(out) {
		_, _ = rand.Read(pool[:]) // never fails
		for _, b := range pool {
			if int(b) < even && len(text) < len(out) {
				text = append(text, digits[int(b)%len(digits)])
			}
		}
	}
	return T(text)
}

// ParseToken reads a key. It looks at no more than the length of one and does not allocate.
// The error is ErrNotIssued or ErrMistyped and tells nothing of the text.
func ParseToken(s string) (t Token, err error) {
	switch {
	case len(s) < len(keyPrefix) || s[:len(keyPrefix)] != keyPrefix:
		return Token{}, ErrNotIssued
	case len(s) != keyLength:
		return Token{}, ErrMistyped
	}
	copy(t.text[:], s)
	check := checkDigits(t.text[:keyBody])
	id := s[len(keyPrefix) : len(keyPrefix)+len(KeyID{})]
	if s[keyBody:] != string(check[:]) || !madeOf(id, &idSet) || !madeOf(s[len(keyPrefix)+len(id):], &allSet) {
		return Token{}, ErrMistyped
	}
	return t, nil
}

func checkDigits(body []byte) (out [keyCheck]byte) {
	sum := ^uint32(0)
	for _, b := range body { // the library's function would put the secret on the heap
		sum = crc32.IEEETable[byte(sum)^b] ^ sum>>8
	}
	sum = ^sum
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = allDigits[sum%uint32(len(allDigits))]
		sum /= uint32(len(allDigits))
	}
	return out
}

// digitSet tells in one step what a byte is.
type digitSet [256]bool

var idSet, allSet = setOf(idDigits), setOf(allDigits)

func setOf(digits string) (set digitSet) {
	for i := range len(digits) {
		set[digits[i]] = true
	}
	return set
}

func madeOf(s string, set *digitSet) bool {
	for i := range len(s) {
		if !set[s[i]] {
			return false
		}
	}
	return true
}

// ID is the public part.
func (t *Token) ID() KeyID { return KeyID(t.text[len(keyPrefix) : len(keyPrefix)+len(KeyID{})]) }

// Append appends the whole key, secret included.
func (t *Token) Append(dst []byte) []byte { return append(dst, t.text[:]...) }

// Reveal is the whole key, to be shown once.
func (t *Token) Reveal() string { return string(t.text[:]) }

// String shows the id and hides the secret.
func (t Token) String() string {
	return string(t.text[:len(keyPrefix)+len(KeyID{})]) + keyShowing
}

// Format shows the same whatever the verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// MarshalText shows what String shows: a key that is to be told is revealed.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
