package store

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"sluice/handlers/auth"
)

// MinPepper is how many bytes a pepper has at least: as many as what it makes (RFC 2104 §3).
const MinPepper = sha256.Size

// Pepper is the secret under which keys are stored: who has the store alone can neither use
// its keys nor try others. All replicas have the same. It may be used concurrently and shows
// nothing when printed.
type Pepper struct {
	pool  *sync.Pool
	print [8]byte
}

// mac is kept between uses: it is the one thing on the hot path that is worth it.
type mac struct {
	hash.Hash
	in, out []byte
}

// NewPepper takes a secret of at least MinPepper bytes, which is copied.
func NewPepper(secret []byte) (*Pepper, error) {
	if len(secret) < MinPepper {
		return nil, fmt.Errorf("the pepper of the keys has %d bytes; it needs at least %d, from a source of random", len(secret), MinPepper)
	}
	secret = append([]byte(nil), secret...)
	p := &Pepper{pool: &sync.Pool{New: func() any { return &mac{Hash: hmac.New(sha256.New, secret)} }}}
	h := hmac.New(sha256.New, secret)
	_, _ = h.Write([]byte("sluice pepper"))
	copy(p.print[:], h.Sum(nil))
	return p, nil
}

// sum is what is stored of a key: the HMAC-SHA256 of all of it, so that it is good for its
// id only.
func (p *Pepper) sum(t *auth.Token) (out [sha256.Size]byte) {
	m := p.pool.Get().(*mac)
	m.Reset()
	m.in = t.Append(m.in[:0])
	_, _ = m.Write(m.in)
	m.out = m.Sum(m.out[:0])
	copy(out[:], m.out)
	clear(m.in)
	p.pool.Put(m)
	return out
}

// Derive makes a secret for another use, by its name. It tells nothing of the pepper.
func (p *Pepper) Derive(use string) []byte {
	m := p.pool.Get().(*mac)
	defer p.pool.Put(m)
	m.Reset()
	_, _ = m.Write([]byte("sluice derived\x00" + use))
	return m.Sum(nil)
}

// Fingerprint tells peppers apart and nothing about them: 16 hexadecimal digits.
func (p *Pepper) Fingerprint() string { return hex.EncodeToString(p.print[:]) }

// String hides the pepper.
func (p *Pepper) String() string { return "pepper " + p.Fingerprint() }

// GoString hides the pepper.
func (p *Pepper) GoString() string { return p.String() }

const pepperFile = "pepper"

// KeepPepper reads the pepper of a single node from the file "pepper" in its data directory,
// and makes it at the first start: 64 hexadecimal digits and a line feed, for the owner
// alone. A file that others may read, or that holds anything else, is an error and stays
// as it is: with another pepper all keys are dead.
func KeepPepper(dir string) (*Pepper, error) {
	name := filepath.Join(dir, pepperFile)
	p, err := readPepper(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	if err := makePepper(dir, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("keep the pepper of the keys: %w", err)
	}
	return readPepper(name)
}

func readPepper(name string) (*Pepper, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s holds the pepper of the keys and may be read by others (%v): set its mode to 600, and rotate the keys if somebody did", name, info.Mode())
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) != MinPepper {
		return nil, fmt.Errorf("%s is no pepper: want %d hexadecimal digits; restore it, or move it away together with the keys that it is for", name, 2*MinPepper)
	}
	return NewPepper(secret)
}

// makePepper writes the file whole or not at all, and never over another one.
func makePepper(dir, name string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, pepperFile+"-*") // mode 600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	var secret [MinPepper]byte
	_, _ = rand.Read(secret[:])
	_, err = f.WriteString(hex.EncodeToString(secret[:]) + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), name); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir lets a new name survive a power failure where directories can be synced.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync()
	return d.Close()
}
