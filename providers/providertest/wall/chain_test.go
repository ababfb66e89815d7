package wall

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

var alphabets = []Alphabet{Hex, Emoji, UTF8, Escape}

func TestChainVerifiesEveryWholePrefix(t *testing.T) {
	for _, a := range alphabets {
		c := Chain{Seed: "s", Alphabet: a}
		for n := range 50 {
			text := c.Text(n)
			if !utf8.ValidString(text) {
				t.Fatalf("%s: not UTF-8", a)
			}
			if got, err := c.Verify(text); got != n || err != nil {
				t.Fatalf("%s: Verify(Text(%d)) = %d, %v", a, n, got, err)
			}
		}
	}
}

func TestChainFindsTheFault(t *testing.T) {
	const n, size = 20, 7
	text := Text("s", n)
	flip := func(at int) string { b := []byte(text); b[at] ^= 1; return string(b) }
	for _, tc := range []struct {
		name, text   string
		tokens, byte int
		reason       string
	}{
		{"flipped first byte", flip(0), 0, 0, "deviates"},
		{"flipped middle byte", flip(5*size + 3), 5, 5*size + 3, "deviates"},
		{"flipped space", flip(6*size - 1), 5, 6*size - 1, "deviates"},
		{"half token", text[:4*size+2], 4, 4*size + 2, "ends inside a token"},
		{"other seed after the end", text + "zz", n, n * size, "deviates"},
	} {
		got, err := Verify("s", tc.text)
		var ce *ChainError
		if !errors.As(err, &ce) || got != tc.tokens || *ce != (ChainError{tc.tokens, tc.byte, tc.reason}) {
			t.Errorf("%s: %d, %v", tc.name, got, err)
		}
	}
	for i := range n {
		lost := text[:i*size] + text[(i+1)*size:]
		if k, err := Verify("s", lost); i < n-1 && (err == nil || k != i) {
			t.Errorf("token %d lost: %d, %v", i, k, err)
		}
		doubled := text[:(i+1)*size] + text[i*size:]
		if k, err := Verify("s", doubled); err == nil || k != i+1 {
			t.Errorf("token %d doubled: %d, %v", i, k, err)
		}
	}
	if _, err := Verify("other", text); err == nil {
		t.Error("foreign seed accepted")
	}
}

func TestChainArgs(t *testing.T) {
	for _, a := range alphabets {
		c := Chain{Seed: "s", Alphabet: a}
		args := c.Args(1, 9)
		if !json.Valid([]byte(args)) {
			t.Fatalf("%s: arguments are not JSON: %s", a, args)
		}
		if n, err := c.VerifyArgs(1, args); n != 9 || err != nil {
			t.Errorf("%s: VerifyArgs = %d, %v", a, n, err)
		}
		if _, err := c.VerifyArgs(0, args); err == nil {
			t.Errorf("%s: arguments of another call accepted", a)
		}
	}
	for _, bad := range []string{`{"chain":"`, `{}`, `{"chain":"","more":""}`} {
		if _, err := (Chain{}).VerifyArgs(0, bad); err == nil {
			t.Errorf("%s accepted", bad)
		}
	}
}

func TestJSONHelpers(t *testing.T) {
	in := "a\"b\\c\n\r\t\x01\u2028é😀"
	var out string
	if err := json.Unmarshal([]byte(quote(in)), &out); err != nil || out != in {
		t.Fatalf("quote: %q, %v", out, err)
	}
	if got := string(spaceJSON(nil, []byte(`{"a":[1,"x:,\""],"b":2}`))); got != `{"a": [1, "x:,\""], "b": 2}` {
		t.Errorf("spaceJSON: %s", got)
	}
}

func BenchmarkChainToken(b *testing.B) {
	w := Chain{Seed: "s"}.Walk()
	for b.Loop() {
		w.Next()
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("s", Text("s", 3))
	f.Add("s", "x")
	f.Fuzz(func(t *testing.T, seed, text string) {
		n, err := Verify(seed, text)
		whole := Text(seed, n)
		if !strings.HasPrefix(text, whole) || (err == nil) != (text == whole) {
			t.Fatalf("Verify(%q, %q) = %d, %v", seed, text, n, err)
		}
	})
}
