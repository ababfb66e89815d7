package auth

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
)

// cheap is a hash at the least cost.
func cheap(t testing.TB, password string) *PasswordHash {
	t.Helper()
	h, err := ParsePasswordHash(cheapHash(password))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestPasswordHash(t *testing.T) {
	phc, err := HashPassword("correct horse battery")
	if err != nil || !strings.HasPrefix(phc, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("%q, %v", phc, err)
	}
	again, _ := HashPassword("correct horse battery")
	h, err := ParsePasswordHash(phc)
	if err != nil || again == phc {
		t.Fatal(err, again == phc)
	}
	p := NewPasswords()
	for password, want := range map[string]bool{"correct horse battery": true, "correct horse batterz": false, "": false, "correct horse battery ": false, strings.Repeat("x", MaxPassword+1): false} {
		if ok, err := p.Match(t.Context(), h, password); ok != want || err != nil {
			t.Errorf("%.30q: %t, %v", password, ok, err)
		}
	}
	other, _ := ParsePasswordHash(again)
	if same, _ := ParsePasswordHash(phc); h.Fingerprint() != same.Fingerprint() || h.Fingerprint() == other.Fingerprint() || strings.Contains(phc, h.Fingerprint()) {
		t.Errorf("fingerprints %s, %s", h.Fingerprint(), other.Fingerprint())
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", MaxPassword+1)} {
		if _, err := HashPassword(bad); err == nil {
			t.Errorf("a password of %d bytes is hashed", len(bad))
		}
	}
}

// TestPasswordVector holds the parameters' order against RFC 9106's reference implementation:
// echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 -l 24 (its own test vector).
func TestPasswordVector(t *testing.T) {
	h, err := ParsePasswordHash("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	if err != nil || !h.matches("password") || h.matches("Password") {
		t.Error("the reference's hash does not match", err)
	}
}

func TestParsePasswordHashErrors(t *testing.T) {
	good := cheapHash("correct horse battery")
	change := func(from, to string) string { return strings.Replace(good, from, to, 1) }
	for name, phc := range map[string]string{
		"empty": "", "plain": "correct horse battery", "argon2i": change("argon2id", "argon2i"), "bcrypt": "$2b$12$abcdefghijklmnopqrstuv",
		"version": change("v=19", "v=16"), "no version": change("v=19$", ""), "memory": change("m=8,", "m=268435457,"), "no memory": change("m=8,", ""),
		"zero": change("t=1", "t=0"), "passes": change("t=1", "t=17"), "lanes": change("p=1", "p=2"), "order": change("m=8,t=1", "t=1,m=8"),
		"sign": change("t=1", "t=+1"), "zeros": change("t=1", "t=01"), "more": good + "$x", "salt": change("$c2FsdHNhbHRzYWx0$", "$c2Fs$"),
		"padding": good + "=", "cut": good[:len(good)-30], "space": " " + good,
	} {
		if h, err := ParsePasswordHash(phc); err == nil || h != nil {
			t.Errorf("%s: %q passes", name, phc)
		} else if len(phc) > 40 && strings.Contains(err.Error(), phc[len(phc)-20:]) {
			t.Errorf("%s: the error shows the hash: %v", name, err)
		}
	}
}

func FuzzParsePasswordHash(f *testing.F) {
	f.Add(cheapHash("correct horse battery"))
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Fuzz(func(t *testing.T, phc string) {
		h, err := ParsePasswordHash(phc)
		if err == nil && (h.memory > maxMemory || h.passes > maxPasses || h.lanes > maxLanes || h.lanes == 0 || h.passes == 0 || h.memory < 8*uint32(h.lanes)) {
			t.Fatalf("%q costs %+v", phc, h)
		}
	})
}

// TestPasswordsBound fills the line: who comes then is told to come again, and nobody is
// looked at beside those who are.
func TestPasswordsBound(t *testing.T) {
	p := NewPasswords()
	for range passwordsAtOnce {
		p.running <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range passwordsWaiting {
		wg.Go(func() {
			if _, err := p.Match(ctx, cheap(t, "correct horse battery"), "x"); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for len(p.waiting) < passwordsWaiting {
		select {
		case <-t.Context().Done():
			t.Fatal("they do not wait")
		default:
		}
	}
	if _, err := p.Match(t.Context(), cheap(t, "correct horse battery"), "x"); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	wg.Wait()
}
