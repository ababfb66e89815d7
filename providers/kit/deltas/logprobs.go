package deltas

import (
	"strconv"

	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// Words are the names that a protocol gives to what is told of a token.
type Words struct{ Token, Logprob, Bytes, Top string }

// ReadTokens reads an array of tokens and appends them. What is no array, or no object in
// it, is passed over. Top, where it is named, is an array of the likeliest tokens.
func (w *Words) ReadTokens(dst []streaming.TokenLogprob, c *jsonscan.Cursor) []streaming.TokenLogprob {
	if c.Peek() != '[' {
		c.Skip()
		return dst
	}
	for c.Array(); c.Elem(); {
		if t, ok := w.ReadToken(c); ok {
			dst = append(dst, t)
		}
	}
	return dst
}

// ReadToken reads one token; ok is false for what is none.
func (w *Words) ReadToken(c *jsonscan.Cursor) (t streaming.TokenLogprob, ok bool) {
	if c.Peek() != '{' {
		c.Skip()
		return t, false
	}
	t.Logprob = streaming.Unlikely
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case w.Token:
			t.Token, ok = jsonscan.Unquote(c.Skip().Of(c.B))
		case w.Logprob:
			t.Logprob = ReadLogprob(c.Skip().Of(c.B))
		case w.Bytes:
			t.Bytes = readBytes(c)
		case w.Top:
			t.Top = w.readTop(c)
		default:
			c.Skip()
		}
	}
	if string(t.Bytes) == t.Token {
		t.Bytes = nil
	}
	return t, ok
}

func (w *Words) readTop(c *jsonscan.Cursor) (top []streaming.TokenProb) {
	own := Words{Token: w.Token, Logprob: w.Logprob, Bytes: w.Bytes}
	for _, t := range own.ReadTokens(nil, c) {
		top = append(top, t.TokenProb)
	}
	return top
}

// ReadLogprob reads a number; anything else says that the token was not likely.
func ReadLogprob(v []byte) float64 {
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return streaming.Unlikely
	}
	return f
}

// readBytes reads an array of bytes; nil is none.
func readBytes(c *jsonscan.Cursor) (out []byte) {
	if c.Peek() != '[' {
		c.Skip()
		return nil
	}
	wrong := false
	for c.Array(); c.Elem(); {
		n, err := strconv.ParseUint(string(c.Skip().Of(c.B)), 10, 8)
		out, wrong = append(out, byte(n)), wrong || err != nil
	}
	if wrong {
		return nil
	}
	return out
}

// Scores brings the tokens of one choice together with its text, which may come later: a
// part of a character has none of its own, and some servers look at text before they tell
// it. The zero value is empty.
type Scores struct {
	waiting []streaming.TokenLogprob
	last    int  // where those begin that were added last
	shared  bool // they are of several texts
}

// Add takes the tokens that came with the next text.
func (s *Scores) Add(tokens []streaming.TokenLogprob) {
	s.last = len(s.waiting)
	s.waiting = append(s.waiting, tokens...)
}

// Share takes the tokens of all texts that follow, each of which gets those that make it.
func (s *Scores) Share(tokens []streaming.TokenLogprob) {
	s.Add(tokens)
	s.shared = true
}

// Of returns the tokens of a text of so many bytes; nil: there are none. Those that came
// earlier are left out where the text has no room for them: what they stood for was a mark
// that the server did not tell.
func (s *Scores) Of(size int) *streaming.LogprobData {
	if s.shared {
		return s.first(size)
	}
	d := s.Rest()
	for ; d != nil && s.last > 0 && d.Width() > size; s.last-- {
		d.Tokens = d.Tokens[1:]
	}
	return d
}

// first returns the tokens that make the next bytes.
func (s *Scores) first(size int) *streaming.LogprobData {
	n := 0
	for width := 0; n < len(s.waiting) && width < size; n++ {
		one := streaming.LogprobData{Tokens: s.waiting[n : n+1]}
		width += one.Width()
	}
	if n == 0 {
		return nil
	}
	d := &streaming.LogprobData{Tokens: s.waiting[:n:n]}
	s.waiting = s.waiting[n:]
	return d
}

// Rest returns what no text has come for; nil is nothing.
func (s *Scores) Rest() *streaming.LogprobData {
	if len(s.waiting) == 0 {
		return nil
	}
	d := &streaming.LogprobData{Tokens: s.waiting}
	s.waiting = nil
	return d
}
