package jsonscan

import (
	"encoding/json"
	"strings"
	"testing"
)

func valid(b []byte) bool {
	c := Cursor{B: b, Limit: 1 << 30}
	c.Skip()
	return c.End()
}

func TestValidity(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`: true, `[]`: true, ` {"a" : [1, -2.5e+3 ,"x\u00e9\n", null,true,false]} `: true,
		`{"a":1,}`: false, `[1,]`: false, `{"a" 1}`: false, `{a:1}`: false, `01`: false, `1.`: false,
		`"\x"`: false, `"\u12g4"`: false, `"` + "\n" + `"`: false, `"abc`: false, `{"a":1}}`: false,
		`tru`: false, ``: false, `-`: false, `"\\"`: true, `"\\\""`: true, `"é😀"`: true, "\"\xff\"": false,
		`"a\n` + "\xff\"": false,
	} {
		if got := valid([]byte(text)); got != want {
			t.Errorf("%q: valid = %v, want %v", text, got, want)
		}
	}
}

func TestDepth(t *testing.T) {
	c := Cursor{B: []byte(strings.Repeat("[", 65) + strings.Repeat("]", 65))}
	c.Skip()
	if !c.Bad || !c.Deep {
		t.Errorf("65 levels passed: %+v", c)
	}
	c = Cursor{B: []byte(strings.Repeat("[", 64) + strings.Repeat("]", 64))}
	c.Skip()
	if !c.End() {
		t.Error("64 levels refused")
	}
}

func TestSpans(t *testing.T) {
	b := []byte(`{"model" : "m\u0031", "n":{"x":[1,2]},"s":true}`)
	got := map[string]string{}
	c := Cursor{B: b}
	for c.Object(); c.Key(); {
		name := string(c.Name)
		got[name] = string(c.Skip().Of(b))
	}
	if !c.End() || got["model"] != `"m\u0031"` || got["n"] != `{"x":[1,2]}` || got["s"] != "true" {
		t.Errorf("%v %+v", got, c)
	}
	if s, ok := Unquote([]byte(got["model"])); !ok || s != "m1" {
		t.Errorf("unquote: %q %v", s, ok)
	}
}

// FuzzValid holds the cursor against encoding/json, which only differs in taking
// broken UTF-8 for text.
func FuzzValid(f *testing.F) {
	for _, s := range []string{`{"a":[1,2,{"b":"c\n"}]}`, `[1e5,-0.1]`, `"\u00e9"`, `{"a":}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if strings.Count(string(b), "[")+strings.Count(string(b), "{") > 5000 {
			return
		}
		got, want := valid(b), json.Valid(b)
		if got != want && strings.ToValidUTF8(string(b), "") == string(b) {
			t.Errorf("%q: valid = %v, encoding/json says %v", b, got, want)
		}
		if got && !want {
			t.Errorf("%q accepted", b)
		}
	})
}

func FuzzQuote(f *testing.F) {
	f.Add("a\"\\\né😀<>&")
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "?")
		if back, ok := Unquote(AppendQuote(nil, s)); !ok || back != s {
			t.Errorf("%q came back as %q", s, back)
		}
	})
}

func BenchmarkChunk(b *testing.B) {
	text := []byte(`{"id":"chatcmpl-0123456789abcdefghijklmnop","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null}`)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		c := Cursor{B: text}
		c.Skip()
		if !c.End() {
			b.Fatal("bad")
		}
	}
}
