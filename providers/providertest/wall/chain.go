package wall

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Alphabet says what the tokens of a chain are made of.
type Alphabet string

const (
	Hex    Alphabet = "hex"    // six hexadecimal digits and a space; the zero value means the same
	Emoji  Alphabet = "emoji"  // two runes of four bytes each
	UTF8   Alphabet = "utf8"   // four runes of one, two, three and four bytes in changing order
	Escape Alphabet = "escape" // characters that JSON must or may escape: quotes, backslashes, controls, U+2028
)

// Chain is a sequence of tokens in which every token depends on all tokens before it, so that a text made of them
// proves its own completeness: a lost, doubled or exchanged token shows at the exact byte. Token i is cut from
// state i; state 0 is the SHA-256 of the seed, state i+1 the SHA-256 of state i. A Chain is a value and may be
// shared freely.
type Chain struct {
	Seed     string
	Alphabet Alphabet
}

// ChainError tells where a text leaves its chain.
type ChainError struct {
	Tokens int    // whole tokens that were right
	Byte   int    // offset of the first byte that is wrong, or of the end of a text that stops inside a token
	Reason string // "deviates" or "ends inside a token"
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("text %s at byte %d, after %d whole tokens", e.Reason, e.Byte, e.Tokens)
}

// Text returns the first n tokens of the default (hexadecimal) chain of seed.
func Text(seed string, n int) string { return Chain{Seed: seed}.Text(n) }

// Verify proves that text is made of the first whole tokens of the default chain of seed and tells how many. An
// empty text is a valid prefix of zero tokens. The error is a *ChainError; tokens then counts those before the fault.
func Verify(seed, text string) (tokens int, err error) { return Chain{Seed: seed}.Verify(text) }

// Text returns the first n tokens.
func (c Chain) Text(n int) string {
	var b strings.Builder
	w := c.Walk()
	for range n {
		b.Write(w.Next())
	}
	return b.String()
}

// Verify proves that text is made of the first whole tokens of the chain and tells how many. The error is a *ChainError.
func (c Chain) Verify(text string) (tokens int, err error) {
	w := c.Walk()
	for off := 0; off < len(text); tokens++ {
		tok := w.Next()
		rest := text[off:]
		n := 0
		for n < len(tok) && n < len(rest) && tok[n] == rest[n] {
			n++
		}
		switch {
		case n == len(tok):
			off += n
		case n == len(rest):
			return tokens, &ChainError{Tokens: tokens, Byte: off + n, Reason: "ends inside a token"}
		default:
			return tokens, &ChainError{Tokens: tokens, Byte: off + n, Reason: "deviates"}
		}
	}
	return tokens, nil
}

// Choice returns the chain of choice i of an answer; choice 0 is the chain itself.
func (c Chain) Choice(i int) Chain {
	if i == 0 {
		return c
	}
	return c.derive("choice", i)
}

// Tool returns the chain inside the arguments of tool call i.
func (c Chain) Tool(i int) Chain { return c.derive("tool", i) }

// Reasoning returns the chain of the reasoning text.
func (c Chain) Reasoning() Chain { return c.derive("reasoning", 0) }

func (c Chain) derive(kind string, i int) Chain {
	c.Seed += "/" + kind + strconv.Itoa(i)
	return c
}

// Args returns the JSON arguments of tool call i with n tokens: an object with the one key "chain".
func (c Chain) Args(i, n int) string {
	return string(append(appendJSONString([]byte(argsHead), c.Tool(i).Text(n)), argsTail...))
}

// VerifyArgs proves that args is what Args(i, n) returns for some n, and returns that n.
func (c Chain) VerifyArgs(i int, args string) (tokens int, err error) {
	var obj map[string]string
	if err := json.Unmarshal([]byte(args), &obj); err != nil {
		return 0, fmt.Errorf("reading tool arguments: %w", err)
	}
	text, ok := obj["chain"]
	if !ok || len(obj) != 1 {
		return 0, fmt.Errorf("tool arguments have keys other than the one key \"chain\"")
	}
	return c.Tool(i).Verify(text)
}

const (
	argsHead = `{"chain":"`
	argsTail = `"}`
)

// Walker steps through a chain. It belongs to one goroutine.
type Walker struct {
	alphabet Alphabet
	state    [sha256.Size]byte
	buf      []byte
}

// Walk returns a walker before the first token.
func (c Chain) Walk() *Walker {
	return &Walker{alphabet: c.Alphabet, state: sha256.Sum256([]byte("wall:" + c.Seed)), buf: make([]byte, 0, 24)}
}

// Next returns the next token. The bytes are valid until the next call.
func (w *Walker) Next() []byte {
	w.buf = w.alphabet.appendToken(w.buf[:0], &w.state)
	w.state = sha256.Sum256(w.state[:])
	return w.buf
}

func (a Alphabet) appendToken(dst []byte, s *[sha256.Size]byte) []byte {
	switch a {
	case Emoji:
		return utf8.AppendRune(utf8.AppendRune(dst, 0x1F400+rune(s[0])), 0x1F300+rune(s[1]))
	case UTF8:
		// The order of the four lengths rotates with the state, so that every boundary meets every other.
		runes := [4]rune{'a' + rune(s[0]%26), 0xC0 + rune(s[1])%0x200, 0x4E00 + rune(s[2]), 0x1F300 + rune(s[3])}
		for i := range runes {
			dst = utf8.AppendRune(dst, runes[(i+int(s[4]))%4])
		}
		return dst
	case Escape:
		for i := range 4 {
			dst = append(dst, escapes[int(s[i])%len(escapes)]...)
		}
		return append(hex.AppendEncode(dst, s[4:5]), ' ')
	default:
		return append(hex.AppendEncode(dst, s[:3]), ' ')
	}
}

var escapes = [...]string{`"`, `\`, "\n", "\r", "\t", "\b", "\x01", "<", ">", "&", "/", "\u2028", "\u2029", `\n`, "{", "]", "data: ", "\n\n"}

// known reports whether a is one of the alphabets above.
func (a Alphabet) known() bool {
	switch a {
	case "", Hex, Emoji, UTF8, Escape:
		return true
	}
	return false
}
