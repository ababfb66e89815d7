package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

func TestTokenRoundTrip(t *testing.T) {
	pattern := regexp.MustCompile(`^` + KeyPattern + `$`)
	seen := map[KeyID]bool{}
	for range 2000 {
		token := NewToken()
		text := token.Reveal()
		if !pattern.MatchString(text) {
			t.Fatalf("%q does not fit the pattern", text)
		}
		back, err := ParseToken(text)
		if err != nil || back != token || seen[token.ID()] {
			t.Fatalf("%q: %v, %v", text, back, err)
		}
		seen[token.ID()] = true
		other := TokenFor(token.ID())
		if other == token || other.ID() != token.ID() {
			t.Fatalf("%q has no other secret", text)
		}
	}
}

// TestTokenChecksum compares with the library's.
func TestTokenChecksum(t *testing.T) {
	token := NewToken()
	text := token.Reveal()
	want := crc32.ChecksumIEEE([]byte(text[:keyBody]))
	var got uint64
	for _, b := range []byte(text[keyBody:]) {
		got = got*uint64(len(allDigits)) + uint64(strings.IndexByte(allDigits, b))
	}
	if got != uint64(want) {
		t.Errorf("%d, not %d", got, want)
	}
}

// TestTokenDigits draws enough digits that one which never comes, or comes too often, shows.
func TestTokenDigits(t *testing.T) {
	count := map[byte]int{}
	const draws = 5000
	for range draws {
		secret := randomText[[keySecret]byte](allDigits)
		for _, b := range secret {
			count[b]++
		}
	}
	want := draws * keySecret / len(allDigits)
	for i := range len(allDigits) {
		if n := count[allDigits[i]]; n < want*8/10 || n > want*12/10 {
			t.Errorf("%c came %d times, not about %d", allDigits[i], n, want)
		}
	}
}

// TestTokenTypos changes each character into each other one, swaps neighbours, drops and
// doubles: all of it is noticed without a look-up.
func TestTokenTypos(t *testing.T) {
	token := NewToken()
	text := token.Reveal()
	try := func(what, typo string) {
		t.Helper()
		if _, err := ParseToken(typo); err == nil && typo != text {
			t.Errorf("%s: %q passes for %q", what, typo, text)
		}
	}
	for i := range len(text) {
		for j := range len(allDigits) {
			try("changed", text[:i]+allDigits[j:j+1]+text[i+1:])
		}
		try("dropped", text[:i]+text[i+1:])
		try("doubled", text[:i]+text[i:i+1]+text[i:])
		if i > 0 {
			try("swapped", text[:i-1]+text[i:i+1]+text[i-1:i]+text[i+1:])
		}
	}
}

func TestParseTokenErrors(t *testing.T) {
	token := NewToken()
	good := token.Reveal()
	body := []byte(good[:keyBody])
	body[len(keyPrefix)] = 'A' // the checksum holds, the id is none
	check := checkDigits(body)
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"empty": {"", ErrNotIssued}, "prefix": {"sk-slc", ErrNotIssued}, "other": {"sk-proj-abc", ErrNotIssued},
		"upper-case prefix": {"SK" + good[2:], ErrNotIssued}, "prefix alone": {keyPrefix, ErrMistyped},
		"cut": {good[:20], ErrMistyped}, "more": {good + "x", ErrMistyped}, "space": {good + " ", ErrMistyped},
		"long": {keyPrefix + strings.Repeat("a", 1<<20), ErrMistyped}, "lower": {strings.ToLower(good), ErrMistyped},
		"id": {string(body) + string(check[:]), ErrMistyped},
	} {
		if got, err := ParseToken(c.text); !errors.Is(err, c.want) || got != (Token{}) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestTokenHides(t *testing.T) {
	token := NewToken()
	secret := token.Reveal()[len(keyPrefix)+len(KeyID{}):]
	line, err := json.Marshal(struct{ A, B any }{token, &token})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{string(line)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%c", "%t"} {
		out = append(out, fmt.Sprintf(verb, token), fmt.Sprintf(verb, &token), fmt.Sprintf(verb, []Token{token}))
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", token, "at", &token)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", token)
	for _, shown := range append(out, log.String()) {
		if !strings.Contains(shown, token.ID().String()) || strings.Contains(shown, secret[:6]) || strings.Contains(shown, fmt.Sprintf("%x", secret[:6])) {
			t.Errorf("shown as %s", shown)
		}
	}
}

func TestParseTokenAllocates(t *testing.T) {
	token := NewToken()
	for _, text := range []string{token.Reveal(), "sk-other", keyPrefix + strings.Repeat("a", 1<<20)} {
		if n := testing.AllocsPerRun(100, func() { _, _ = ParseToken(text) }); n != 0 {
			t.Errorf("%v allocations for %.20q", n, text)
		}
	}
}

func TestKeyID(t *testing.T) {
	for text, good := range map[string]bool{"0123456789az": true, "0123456789a": false, "0123456789azz": false, "0123456789aZ": false, "": false} {
		var id KeyID
		err := id.UnmarshalText([]byte(text))
		if (err == nil) != good || good && id.String() != text || !good && id.String() != "" {
			t.Errorf("%q: %q, %v", text, id, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	token := NewToken()
	f.Add(token.Reveal())
	f.Add(keyPrefix)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseToken(text)
		switch {
		case err == nil && parsed.Reveal() != text:
			t.Fatalf("%q became %q", text, parsed.Reveal())
		case err != nil && !errors.Is(err, ErrNotIssued) && !errors.Is(err, ErrMistyped):
			t.Fatal(err)
		case err != nil && strings.HasPrefix(text, keyPrefix) != errors.Is(err, ErrMistyped):
			t.Fatalf("%q: %v", text, err)
		}
		if _, err := ParseKeyID(text); err == nil && len(text) != len(KeyID{}) {
			t.Fatalf("%q is an id", text)
		}
	})
}

func BenchmarkParseToken(b *testing.B) {
	token := NewToken()
	text := token.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseToken(text); err != nil {
			b.Fatal(err)
		}
	}
}
