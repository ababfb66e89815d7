// Package kit holds what adapters of several wire protocols share: chat templates,
// the stop matcher and the splitter of thoughts. It knows no wire protocol.
package kit

import (
	"strings"
	"unicode/utf8"
)

// heldBack is how much of the end of text could be the beginning of pattern.
func heldBack(text, pattern string) int {
	for n := min(len(text), len(pattern)-1); n > 0; n-- {
		if strings.HasSuffix(text, pattern[:n]) {
			return n
		}
	}
	return 0
}

// firsts is the set of bytes that patterns begin with.
type firsts [utf8.RuneSelf * 2]bool

func firstsOf(patterns ...string) (f firsts) {
	for _, p := range patterns {
		if p != "" {
			f[p[0]] = true
		}
	}
	return f
}

// in reports whether text has a byte that some pattern begins with.
func (f *firsts) in(text string) bool {
	for i := range len(text) {
		if f[text[i]] {
			return true
		}
	}
	return false
}
