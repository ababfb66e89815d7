package openai

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// textSize is how many bytes the text of a valid JSON string has in UTF-8.
func textSize(s []byte) int {
	n := len(s)
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 || i+1 >= len(s) {
			return n
		}
		escape := 2
		if s[i+1] == 'u' {
			var size int
			escape, size = unicodeSize(s[i:])
			n += size - 1
		}
		n -= escape - 1
		s = s[i+escape:]
	}
}

// unicodeSize is how long the \uXXXX is that s begins with, or two of them that are one
// character, and how many bytes of UTF-8 it stands for.
func unicodeSize(s []byte) (escape, size int) {
	escape = min(6, len(s))
	r, _ := strconv.ParseUint(string(s[2:escape]), 16, 16)
	switch {
	case utf16.IsSurrogate(rune(r)):
		if len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
			low, _ := strconv.ParseUint(string(s[8:12]), 16, 16)
			if utf16.DecodeRune(rune(r), rune(low)) != utf8.RuneError {
				return 12, 4
			}
		}
		return escape, 3
	default:
		return escape, utf8.RuneLen(rune(r))
	}
}
