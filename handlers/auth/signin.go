package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"sluice/providers"
)

// PasswordSignIn knows the users. It may be used concurrently.
type PasswordSignIn struct {
	passwords *Passwords
	users     atomic.Pointer[[]User]
}

// NewPasswordSignIn begins with the users; their names are unique.
func NewPasswordSignIn(users []User) *PasswordSignIn {
	p := &PasswordSignIn{passwords: NewPasswords()}
	p.SetUsers(users)
	return p
}

// SetUsers replaces the users. Sessions of those who are gone, or whose password or role is
// another one now, are over.
func (p *PasswordSignIn) SetUsers(users []User) { p.users.Store(&users) }

// nobodysHash is looked at when there are no users, so that this takes its time too.
const nobodysHash = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// Check takes as long for a name that nobody has as for the user whose password costs most.
func (p *PasswordSignIn) Check(ctx context.Context, c Credential) (Actor, string, error) {
	users := *p.users.Load()
	var found *User
	var decoy *PasswordHash
	for i := range users {
		u := &users[i]
		if u.Name == c.User {
			found = u
		}
		if decoy == nil || u.Hash.cost() > decoy.cost() {
			decoy = u.Hash
		}
	}
	if decoy == nil {
		decoy, _ = ParsePasswordHash(nobodysHash)
	}
	hash := decoy
	if found != nil {
		hash = found.Hash
	}
	ok, err := p.passwords.Match(ctx, hash, c.Password)
	switch {
	case err != nil:
		return Actor{}, "", err
	case found == nil:
		return Actor{}, "", ErrWrong
	case !ok:
		return Actor{Name: found.Name}, "", ErrWrong
	}
	return Actor{Name: found.Name, Role: found.Role}, proofOf(found), nil
}

func proofOf(u *User) string { return string(u.Role) + " " + u.Hash.Fingerprint() }

// Holds is so while the user has the password and the role that the session was opened with.
func (p *PasswordSignIn) Holds(_ context.Context, s *Session) (Actor, error) {
	for _, u := range *p.users.Load() {
		if u.Name == s.Name && proofOf(&u) == s.Proof && u.Role == s.Role {
			return Actor{Name: u.Name, Role: u.Role}, nil
		}
	}
	return Actor{}, ErrSignedOut
}

// KeySignIn is for holders of API keys, who see what is theirs. It may be used concurrently.
type KeySignIn struct{ Callers *Callers }

// Check finds the holder of a key.
func (k KeySignIn) Check(_ context.Context, c Credential) (Actor, string, error) {
	who, err := k.Callers.Find(c.Key)
	if err != nil {
		return Actor{}, "", keyError(err, ErrWrong)
	}
	return Actor{Name: who.Key, Role: RoleKey, Caller: who}, k.proof(who), nil
}

// keyError tells a key that is not good from a store that cannot say so.
func keyError(err, bad error) error {
	if e := providers.AsError(err); e != nil && e.Kind == providers.Overloaded {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return bad
}

// proof names the secret: of an issued key its serial, of a configured one a fingerprint.
func (k KeySignIn) proof(who Principal) string {
	if !who.Configured() {
		return "issued " + strconv.FormatUint(uint64(who.Serial), 10)
	}
	return "configured " + k.Callers.static.Load().fingerprint(who.Key)
}

// fingerprint changes with the key of that name, and tells nothing of it.
func (k *Keys) fingerprint(name string) string {
	for digest, who := range k.byDigest {
		if who.Key == name {
			sum := sha256.Sum256(append([]byte("sluice session\x00"), digest[:]...))
			return hex.EncodeToString(sum[:16])
		}
	}
	return ""
}

// Holds is so while the secret that the session was opened with is in force.
func (k KeySignIn) Holds(_ context.Context, s *Session) (Actor, error) {
	was := Principal{Key: s.Name}
	if digits, issued := strings.CutPrefix(s.Proof, "issued "); issued {
		serial, err := strconv.ParseUint(digits, 10, 32)
		was.Serial = uint32(serial)
		if err != nil || was.Configured() {
			return Actor{}, ErrSignedOut
		}
	}
	who, err := k.Callers.Current(was)
	switch {
	case err != nil:
		return Actor{}, keyError(err, ErrSignedOut)
	case k.proof(who) != s.Proof || s.Role != RoleKey:
		return Actor{}, ErrSignedOut
	}
	return Actor{Name: s.Name, Role: RoleKey, Caller: who}, nil
}
