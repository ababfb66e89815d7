package kit

import "sluice/streaming"

// trail hands the log probabilities of a text on with the pieces that are made of it. A
// token goes with the first piece that holds any of it; one of which no piece holds
// anything, for it is cut off or a part of a mark, is left out. Nil is empty: who asks for
// no log probabilities pays nothing.
type trail []placed

// placed is a token, and where in the text that is looked at it stands.
type placed struct {
	streaming.TokenLogprob
	from, to int
}

// come adds the tokens of text, which stands behind at bytes that are held.
func (t *trail) come(at int, text string, p *streaming.LogprobData) {
	if p == nil {
		return
	}
	p.Place(text, func(token *streaming.TokenLogprob, from, to int) {
		*t = append(*t, placed{*token, at + from, at + to})
	})
}

// take returns the tokens of a piece of the text, nil when it has none. Those before it
// are forgotten.
func (t *trail) take(from, to int) *streaming.LogprobData {
	var out *streaming.LogprobData
	n := 0
	for _, p := range *t {
		if p.from >= to {
			break
		}
		n++
		if p.from < from && p.to <= from {
			continue
		}
		if out == nil {
			out = &streaming.LogprobData{}
		}
		out.Tokens = append(out.Tokens, p.TokenLogprob)
	}
	*t = (*t)[n:]
	return out
}

// shift lets the first n bytes of the text go.
func (t *trail) shift(n int) {
	kept := (*t)[:0]
	for _, p := range *t {
		if p.to > n || p.from >= n {
			kept = append(kept, placed{p.TokenLogprob, max(p.from-n, 0), max(p.to-n, 0)})
		}
	}
	*t = kept
}
