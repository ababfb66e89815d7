package deltas

import (
	"fmt"
	"testing"

	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

func TestReadTokens(t *testing.T) {
	w := Words{Token: "t", Logprob: "p", Bytes: "b", Top: "top"}
	for in, want := range map[string]string{
		`[{"t":"a","p":-0.5}]`: `[{{a [] -0.5} []}]`, `null`: `[]`, `{}`: `[]`, `7`: `[]`, `[1,"x",null,{}]`: `[]`,
		`[{"t":"a","p":null,"x":[1]}]`:                             `[{{a [] -9999} []}]`,
		`[{"t":"\u00e9","b":[195,169],"p":0}]`:                     `[{{é [] 0} []}]`,
		`[{"t":"\ufffd","b":[195],"p":-1e-3}]`:                     `[{{� [195] -0.001} []}]`,
		`[{"t":"a","b":[256,-1,"x"],"p":"x"}]`:                     `[{{a [] -9999} []}]`,
		`[{"t":"a","p":-1,"top":[{"t":"b","p":-2,"top":[]}, 1]}]`:  `[{{a [] -1} [{b [] -2}]}]`,
		`[{"p":-1},{"t":null,"p":-1},{"t":"b","p":-2,"top":null}]`: `[{{b [] -2} []}]`,
	} {
		c := jsonscan.Cursor{B: []byte(in)}
		got := fmt.Sprint(w.ReadTokens(nil, &c))
		if got != want || !c.End() {
			t.Errorf("%s: %s, want %s; all read %t", in, got, want, c.End())
		}
	}
}

// Tokens of several texts are dealt out to them.
func TestScoresOfSeveralTexts(t *testing.T) {
	var s Scores
	if s.Share(nil); s.Of(1) != nil {
		t.Error("nothing has log probabilities")
	}
	var tokens []streaming.TokenLogprob
	for _, name := range []string{"ab", "c", "de", "f", "<eos>"} {
		tokens = append(tokens, streaming.TokenLogprob{TokenProb: streaming.TokenProb{Token: name}})
	}
	s.Share(tokens)
	for _, c := range []struct {
		size int
		want string
	}{{3, "ab c "}, {0, ""}, {1, "de "}, {1, "f "}} { // "de" goes with the first text that holds any of it
		got := ""
		if d := s.Of(c.size); d != nil {
			for _, one := range d.Tokens {
				got += one.Token + " "
			}
		}
		if got != c.want {
			t.Errorf("%d bytes: %q, want %q", c.size, got, c.want)
		}
	}
	if d := s.Rest(); d == nil || len(d.Tokens) != 1 || d.Tokens[0].Token != "<eos>" {
		t.Errorf("rest %+v", d)
	}
}

// Tokens wait for a text, and those of what the server did not tell are left out.
func TestScores(t *testing.T) {
	tokens := func(all ...string) (out []streaming.TokenLogprob) {
		for _, s := range all {
			out = append(out, streaming.TokenLogprob{TokenProb: streaming.TokenProb{Token: s}})
		}
		return out
	}
	for name, c := range map[string]struct {
		add  [][]string
		text string
		want string
	}{
		"of one":             {[][]string{{"a", "b"}}, "ab", "a b "},
		"a part of a rune":   {[][]string{{"\ufffd"}, {"\ufffd"}}, "é", "� � "},
		"a mark before":      {[][]string{{"<think>"}, {"\n"}, {"hm"}}, "hm", "hm "},
		"white space before": {[][]string{{"\n"}, {" hm"}}, "hm", " hm "},
		"too long of itself": {[][]string{{"a", "b", "c"}}, "c", "a b c "},
		"none":               {nil, "c", ""},
	} {
		var s Scores
		for _, one := range c.add {
			s.Add(tokens(one...))
		}
		got := ""
		if d := s.Of(len(c.text)); d != nil {
			for _, one := range d.Tokens {
				got += one.Token + " "
			}
		}
		if got != c.want || s.Rest() != nil {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// FuzzReadTokens: whatever JSON comes, reading ends where the value does.
func FuzzReadTokens(f *testing.F) {
	for _, s := range []string{`[{"token":"a","logprob":-1,"bytes":[1],"top_logprobs":[{"token":"b"}]}]`, `{}`, `[[{}]]`, `[{"token":{"token":[]}}]`, `"x"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		plain := jsonscan.Cursor{B: v, Limit: 64}
		plain.Skip()
		c := jsonscan.Cursor{B: v, Limit: 64}
		(&Words{Token: "token", Logprob: "logprob", Bytes: "bytes", Top: "top_logprobs"}).ReadTokens(nil, &c)
		if !plain.Bad && (c.Bad || c.I != plain.I) {
			t.Errorf("%q: read to %d of %d, bad %t", v, c.I, plain.I, c.Bad)
		}
	})
}
