package handlers

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// lineWriter puts access lines together as slog's text and JSON handlers do. There is one
// such line per answer and its fields are known, which slog cannot make use of: its handlers
// took four times as long, and more than counting the answer's tokens did.
type lineWriter struct {
	json bool
	b    []byte
}

// begin starts a line; its end is left to finish.
func (w *lineWriter) begin(now time.Time, what string) {
	w.b = w.b[:0]
	if !w.json {
		w.b = append(w.b, "time="...)
		w.b = appendMillis(w.b, now)
		w.b = append(w.b, " level=INFO msg="...)
	} else {
		w.b = append(w.b, `{"time":"`...)
		w.b = now.AppendFormat(w.b, time.RFC3339Nano)
		w.b = append(w.b, `","level":"INFO","msg":`...)
	}
	w.text(what)
}

// appendMillis writes RFC 3339 with milliseconds by way of the layout that package time has
// a short cut for: a tenth of a millisecond keeps the zeros before it, and is cut out again.
func appendMillis(b []byte, t time.Time) []byte {
	n := len(b) + len("2006-01-02T15:04:05.000")
	b = t.Truncate(time.Millisecond).Add(time.Millisecond/10).AppendFormat(b, time.RFC3339Nano)
	return append(b[:n], b[n+1:]...)
}

func (w *lineWriter) finish() []byte {
	if w.json {
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, '\n')
	return w.b
}

func (w *lineWriter) key(k string) {
	if w.json {
		w.b = append(w.b, `,"`...)
		w.b = append(w.b, k...)
		w.b = append(w.b, `":`...)
		return
	}
	w.b = append(w.b, ' ')
	w.b = append(w.b, k...)
	w.b = append(w.b, '=')
}

func (w *lineWriter) str(k, v string) {
	w.key(k)
	w.text(v)
}

func (w *lineWriter) num(k string, v int64) {
	w.key(k)
	w.b = strconv.AppendInt(w.b, v, 10)
}

func (w *lineWriter) flag(k string, v bool) {
	w.key(k)
	w.b = strconv.AppendBool(w.b, v)
}

// span writes a duration to the microsecond; in JSON as nanoseconds.
func (w *lineWriter) span(k string, v time.Duration) {
	v = v.Round(time.Microsecond)
	w.key(k)
	if w.json {
		w.b = strconv.AppendInt(w.b, int64(v), 10)
		return
	}
	w.b = append(w.b, v.String()...)
}

func (w *lineWriter) text(s string) {
	switch {
	case w.json && all(s, bareInJSON):
		w.b = append(append(append(w.b, '"'), s...), '"')
	case w.json:
		w.b = append(w.b, quotedJSON(s)...)
	case s != "" && (all(s, bareInText) || !needsQuotes(s)):
		w.b = append(w.b, s...)
	default:
		w.b = strconv.AppendQuote(w.b, s)
	}
}

const (
	bareInText byte = 1 << iota
	bareInJSON
)

// bare tells of each byte where it stands as it is.
var bare = func() (t [256]byte) {
	for c := byte(' '); c < 0x7f; c++ {
		if c != '"' && c != '\\' {
			t[c] |= bareInJSON
		}
		if c != '"' && c != ' ' && c != '=' {
			t[c] |= bareInText
		}
	}
	return t
}()

func all(s string, kind byte) bool {
	for i := range len(s) {
		if bare[s[i]]&kind == 0 {
			return false
		}
	}
	return true
}

// needsQuotes is slog's rule for values in text.
func needsQuotes(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || r == '"' || r == '=' || unicode.IsSpace(r) || r < utf8.RuneSelf && r < ' ' || r >= utf8.RuneSelf && !unicode.IsPrint(r) {
			return true
		}
	}
	return false
}

func quotedJSON(s string) []byte {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string is always encoded
	return []byte(strings.TrimSuffix(out.String(), "\n"))
}
