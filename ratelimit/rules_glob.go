package ratelimit

import (
	"errors"
	"unicode/utf8"
)

// errGlob says what is wrong with a pattern without naming it.
var errGlob = errors.New("an unfinished [class] or a \\ at the end")

// globMatch reports whether the whole name fits the pattern, in the syntax of path.Match
// with one difference: * also matches slashes, since model names have them. A pattern that
// is not well-formed matches nothing. It does not allocate.
func globMatch(pattern, name string) bool {
	star, from := -1, 0 // the last *, and where the name goes on behind what it took
	p, n := 0, 0
	for p < len(pattern) || n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			if p++; p == len(pattern) {
				return true
			}
			star, from = p, n
			continue
		}
		if width, took := globOne(pattern[p:], name[n:]); took > 0 {
			p, n = p+width, n+took
			continue
		}
		if star < 0 || from >= len(name) {
			return false
		}
		from++
		p, n = star, from
	}
	return true
}

// globOne matches one element that is not a star. It returns the element's width and how
// many bytes of the name it took; none when it does not match.
func globOne(pattern, name string) (width, took int) {
	if pattern == "" || name == "" {
		return 0, 0
	}
	switch pattern[0] {
	case '?':
		_, took = utf8.DecodeRuneInString(name)
		return 1, took
	case '[':
		r, size := utf8.DecodeRuneInString(name)
		width, in, err := globClass(pattern, r)
		if err != nil || !in {
			return 0, 0
		}
		return width, size
	case '\\':
		if len(pattern) > 1 && pattern[1] == name[0] {
			return 2, 1
		}
		return 0, 0
	default:
		if pattern[0] == name[0] {
			return 1, 1
		}
		return 0, 0
	}
}

// globClass reads the class that the pattern begins with, and whether r is in it.
func globClass(pattern string, r rune) (width int, in bool, err error) {
	i := 1
	negated := i < len(pattern) && pattern[i] == '^'
	if negated {
		i++
	}
	for first := true; ; first = false {
		if i >= len(pattern) {
			return 0, false, errGlob
		}
		if pattern[i] == ']' && !first {
			return i + 1, in != negated, nil
		}
		lo, w, err := globChar(pattern[i:])
		if err != nil {
			return 0, false, err
		}
		hi := lo
		if i += w; i < len(pattern) && pattern[i] == '-' {
			if hi, w, err = globChar(pattern[i+1:]); err != nil {
				return 0, false, err
			}
			i += 1 + w
		}
		in = in || lo <= r && r <= hi
	}
}

// globChar reads one end of a range.
func globChar(pattern string) (r rune, width int, err error) {
	if pattern == "" || pattern[0] == '-' || pattern[0] == ']' {
		return 0, 0, errGlob
	}
	escaped := 0
	if pattern[0] == '\\' {
		if escaped = 1; len(pattern) == 1 {
			return 0, 0, errGlob
		}
	}
	r, width = utf8.DecodeRuneInString(pattern[escaped:])
	if r == utf8.RuneError && width == 1 {
		return 0, 0, errGlob
	}
	return r, width + escaped, nil
}

// checkGlob reports whether a pattern is well-formed, whatever it is matched with.
func checkGlob(pattern string) error {
	for i := 0; i < len(pattern); {
		switch pattern[i] {
		case '[':
			width, _, err := globClass(pattern[i:], 0)
			if err != nil {
				return err
			}
			i += width
		case '\\':
			if i+1 == len(pattern) {
				return errGlob
			}
			i += 2
		default:
			i++
		}
	}
	return nil
}
