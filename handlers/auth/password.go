package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
)

// Bounds of a password, in bytes.
const (
	MinPassword = 12
	MaxPassword = 1024
)

// What new hashes cost: the second of OWASP's equivalent settings for Argon2id, 19 MiB and
// two passes.
const (
	hashMemory = 19 << 10 // KiB
	hashPasses = 2
	hashLanes  = 1
	saltBytes  = 16
	hashBytes  = 32
)

// What a hash may cost at most, so that signing in cannot be made to eat the machine.
const (
	maxMemory = 256 << 10 // KiB
	maxPasses = 16
	maxLanes  = 16
)

// PasswordHash is an Argon2id hash (RFC 9106) as it stands in the configuration. It is read only.
type PasswordHash struct {
	memory, passes uint32
	lanes          uint8
	salt, sum      []byte
	print          string
}

var phcText = base64.RawStdEncoding.Strict()

// HashPassword makes the PHC string of a password under a new salt:
// $argon2id$v=19$m=19456,t=2,p=1$salt$hash.
func HashPassword(password string) (string, error) {
	if len(password) < MinPassword || len(password) > MaxPassword {
		return "", fmt.Errorf("a password has %d to %d bytes", MinPassword, MaxPassword)
	}
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	sum := argon2.IDKey([]byte(password), salt, hashPasses, hashMemory, hashLanes, hashBytes)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashPasses, hashLanes,
		phcText.EncodeToString(salt), phcText.EncodeToString(sum)), nil
}

// ParsePasswordHash reads a PHC string. The error says what is wrong and shows none of it.
func ParsePasswordHash(phc string) (*PasswordHash, error) {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return nil, errors.New("want an argon2id hash in PHC form, $argon2id$v=19$m=…,t=…,p=…$salt$hash: sluice admin hash-password makes one")
	}
	if parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return nil, fmt.Errorf("want version %d of Argon2 (v=%d)", argon2.Version, argon2.Version)
	}
	h := &PasswordHash{}
	lanes, err := uint32(0), error(nil)
	for i, cost := range []struct {
		name string
		most uint32
		at   *uint32
	}{{"m", maxMemory, &h.memory}, {"t", maxPasses, &h.passes}, {"p", maxLanes, &lanes}} {
		if *cost.at, err = costOf(parts[3], i, cost.name, cost.most); err != nil {
			return nil, err
		}
	}
	if h.lanes = uint8(lanes); h.memory < 8*lanes {
		return nil, errors.New("the memory m must be at least 8 times the lanes p")
	}
	if h.salt, err = phcText.DecodeString(parts[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return nil, errors.New("the salt must be 8 to 64 bytes in base64 without padding")
	}
	if h.sum, err = phcText.DecodeString(parts[5]); err != nil || len(h.sum) < 16 || len(h.sum) > 64 {
		return nil, errors.New("the hash must be 16 to 64 bytes in base64 without padding")
	}
	print := sha256.Sum256([]byte("sluice password\x00" + phc))
	h.print = hex.EncodeToString(print[:16])
	return h, nil
}

// costOf reads one of the comma-separated costs, of which there are three.
func costOf(text string, i int, name string, most uint32) (uint32, error) {
	costs := strings.Split(text, ",")
	if len(costs) != 3 {
		return 0, errors.New("want the costs as m=…,t=…,p=…")
	}
	digits, ok := strings.CutPrefix(costs[i], name+"=")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || n < 1 || n > uint64(most) || strconv.FormatUint(n, 10) != digits {
		return 0, fmt.Errorf("the cost %s must be a number from 1 to %d", name, most)
	}
	return uint32(n), nil
}

// Fingerprint changes with the hash, its salt included, and tells nothing of it.
func (h *PasswordHash) Fingerprint() string { return h.print }

// cost compares hashes by the work that they are.
func (h *PasswordHash) cost() uint64 { return uint64(h.memory) * uint64(h.passes) }

func (h *PasswordHash) matches(password string) bool {
	sum := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.lanes, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

// ErrBusy means that too many passwords are being looked at.
var ErrBusy = errors.New("too many are signing in at once")

// Passwords bounds how many passwords are looked at side by side, and so the memory and
// the cores that signing in can take. It may be used concurrently.
type Passwords struct {
	running chan struct{}
	waiting chan struct{}
}

const (
	passwordsAtOnce  = 2
	passwordsWaiting = 32
	passwordWait     = 10 * time.Second
)

// NewPasswords lets two be looked at at once, while 32 wait for at most 10 s.
func NewPasswords() *Passwords {
	return &Passwords{running: make(chan struct{}, passwordsAtOnce), waiting: make(chan struct{}, passwordsWaiting)}
}

// Match reports whether a password is the one of the hash. The error is ErrBusy, or that of ctx.
func (p *Passwords) Match(ctx context.Context, h *PasswordHash, password string) (bool, error) {
	select {
	case p.waiting <- struct{}{}:
		defer func() { <-p.waiting }()
	default:
		return false, ErrBusy
	}
	timer := time.NewTimer(passwordWait)
	defer timer.Stop()
	select {
	case p.running <- struct{}{}:
		defer func() { <-p.running }()
	case <-timer.C:
		return false, ErrBusy
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return len(password) <= MaxPassword && h.matches(password), nil
}
