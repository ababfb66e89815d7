package wall

import "unicode/utf8"

const hexDigits = "0123456789abcdef"

// appendJSONString appends s escaped as the inside of a JSON string, without the quotes. Valid UTF-8 is kept as it is.
func appendJSONString[T string | []byte](dst []byte, s T) []byte {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// quote returns s as a JSON string; invalid UTF-8 becomes the replacement character.
func quote(s string) string {
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	return string(append(appendJSONString([]byte{'"'}, s), '"'))
}

// spaceJSON appends src with one blank after every comma and colon outside strings, as Python's json.dumps writes it.
func spaceJSON(dst, src []byte) []byte {
	inString := false
	for i := 0; i < len(src); i++ {
		c := src[i]
		dst = append(dst, c)
		switch {
		case inString && c == '\\' && i+1 < len(src):
			i++
			dst = append(dst, src[i])
		case c == '"':
			inString = !inString
		case !inString && (c == ',' || c == ':'):
			dst = append(dst, ' ')
		}
	}
	return dst
}
