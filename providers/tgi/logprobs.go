package tgi

import (
	"sluice/providers/kit/deltas"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// tokenWords are the server's names for what it tells of a token.
var tokenWords = deltas.Words{Token: "text", Logprob: "logprob"}

// score notes how likely the token of a stream's event was, and what else was likely.
//
//go:noinline
func (r *reader) score(b []byte) {
	e := &r.event
	c := jsonscan.Cursor{B: b[:e.token.End], I: e.token.Start}
	t, ok := tokenWords.ReadToken(&c)
	if !ok {
		return
	}
	t.Top = top(b, e.likely)
	r.scores.Add([]streaming.TokenLogprob{t})
}

// top reads a list of likely tokens.
func top(b []byte, at jsonscan.Span) (all []streaming.TokenProb) {
	if at.Empty() {
		return nil
	}
	c := jsonscan.Cursor{B: b[:at.End], I: at.Start}
	for _, t := range tokenWords.ReadTokens(nil, &c) {
		all = append(all, t.TokenProb)
	}
	return all
}

// score reads the tokens of an answer that was not streamed: special ones, which have
// no text in it, stand among them.
func (d *details) score(b []byte) (s deltas.Scores) {
	if d.tokens.Empty() || b[d.tokens.Start] != '[' {
		return s
	}
	var all []streaming.TokenLogprob
	likely := jsonscan.Cursor{B: b[:d.likely.End], I: d.likely.Start}
	more := !d.likely.Empty() && likely.Peek() == '[' && likely.Array()
	c := jsonscan.Cursor{B: b[:d.tokens.End], I: d.tokens.Start}
	for c.Array(); c.Elem(); {
		var tops jsonscan.Span
		if more = more && likely.Elem(); more {
			tops = likely.Skip()
		}
		if c.Peek() != '{' {
			c.Skip()
			continue
		}
		at := c.I
		special := false
		for c.Object(); c.Key(); {
			if is := string(c.Name) == "special"; is {
				special = c.Peek() == 't'
			}
			c.Skip()
		}
		one := jsonscan.Cursor{B: b[:c.I], I: at}
		if t, ok := tokenWords.ReadToken(&one); ok && !special {
			t.Top = top(b, tops)
			all = append(all, t)
		}
	}
	s.Add(all)
	return s
}
