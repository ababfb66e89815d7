package streaming

import "unicode/utf8"

// LogprobData tells how likely the tokens of an event's text were, in their order. It is
// never changed once it is told: whoever keeps the event may share it.
type LogprobData struct{ Tokens []TokenLogprob }

// TokenLogprob is a token that was chosen, and those that were likely in its place.
type TokenLogprob struct {
	TokenProb
	Top []TokenProb // the likeliest first; empty when they were not asked for
}

// TokenProb is a token and its log probability, to the base e.
type TokenProb struct {
	Token string
	// Bytes are those of the token where Token cannot say them, for it is a part of a
	// character; nil: they are those of Token.
	Bytes   []byte
	Logprob float64
}

// Unlikely stands for a log probability that nobody tells, as OpenAI has it: the token
// was not among the likely ones.
const Unlikely = -9999

// width is how many bytes of text a token makes. One that is told as U+FFFD instead of
// its bytes is a part of a character, of a byte at least.
func (p *TokenProb) width() int {
	if p.Bytes != nil {
		return len(p.Bytes)
	}
	n := 0
	for _, r := range p.Token {
		if n++; r != utf8.RuneError {
			n += utf8.RuneLen(r) - 1
		}
	}
	return n
}

// Width is how many bytes of text the tokens make.
func (d *LogprobData) Width() (n int) {
	for i := range d.Tokens {
		n += d.Tokens[i].width()
	}
	return n
}

// Place calls visit for each token with where it stands in the text that the tokens make:
// text[from:to]. Where their bytes are not exactly the text, as some tokenizers have it, the
// last ones take what is left.
func (d *LogprobData) Place(text string, visit func(t *TokenLogprob, from, to int)) {
	at := 0
	for i := range d.Tokens {
		t := &d.Tokens[i]
		from := min(at, max(len(text)-1, 0))
		at += t.width()
		to := max(min(at, len(text)), from)
		if i == len(d.Tokens)-1 {
			to = len(text)
		}
		visit(t, from, to)
	}
}
