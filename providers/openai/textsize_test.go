package openai

import (
	"encoding/json"
	"testing"
)

var escapedTexts = []string{
	`plain`, `a\nb`, `\"quoted\"`, `{\"city\":\"Berlin\"}`, `\u00e9\u4e2d`, `\ud83d\ude00!`, `\ud83d alone`, `\ude00\ud83d`, `\ud83d\u0041`, `\\\\u0041`, `é中😀`, `\/\b\f\t`,
}

// TestTextSize: a tool call's arguments, and whatever else a server escapes, count as what they say.
func TestTextSize(t *testing.T) {
	for _, s := range escapedTexts {
		checkTextSize(t, s)
	}
}

func checkTextSize(t *testing.T, s string) {
	t.Helper()
	var text string
	if json.Unmarshal([]byte(`"`+s+`"`), &text) != nil {
		return
	}
	for _, r := range []byte(s) {
		if r >= 0x80 { // what is no UTF-8 is replaced by encoding/json
			if string([]rune(s)) != s {
				return
			}
			break
		}
	}
	if got := textSize([]byte(s)); got != len(text) {
		t.Errorf("%q has %d bytes, want %d", s, got, len(text))
	}
}

func FuzzTextSize(f *testing.F) {
	for _, s := range escapedTexts {
		f.Add(s)
	}
	f.Fuzz(checkTextSize)
}
