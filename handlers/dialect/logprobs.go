package dialect

import (
	"math"
	"strconv"
	"unicode/utf8"

	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// scored is a token with where it begins in the text of its choice, in bytes.
type scored struct {
	streaming.TokenLogprob
	at int
}

// score places the tokens of a text that stands at a place of its choice.
func score(dst []scored, text string, at int, d *streaming.LogprobData) []scored {
	if d != nil {
		d.Place(text, func(t *streaming.TokenLogprob, from, _ int) { dst = append(dst, scored{*t, at + from}) })
	}
	return dst
}

// scoredSize is about what a token takes, in bytes: a caller may ask for twenty others
// with each.
func scoredSize(d *streaming.LogprobData) (n int) {
	if d == nil {
		return 0
	}
	const each = 64
	for i := range d.Tokens {
		t := &d.Tokens[i]
		n += each + len(t.Token) + len(t.Bytes)
		for j := range t.Top {
			n += each + len(t.Top[j].Token) + len(t.Top[j].Bytes)
		}
	}
	return n
}

// appendLogprobs adds the object that a choice of a chat has under logprobs.
func appendLogprobs(dst []byte, tokens []scored) []byte {
	dst = append(dst, `{"content":[`...)
	for i := range tokens {
		dst = appendProb(comma(dst, i), &tokens[i].TokenProb)
		dst = append(dst, `,"top_logprobs":[`...)
		for j := range tokens[i].Top {
			dst = append(appendProb(comma(dst, j), &tokens[i].Top[j]), '}')
		}
		dst = append(dst, `]}`...)
	}
	return append(dst, `],"refusal":null}`...)
}

// appendProb adds an object, but for its end.
func appendProb(dst []byte, p *streaming.TokenProb) []byte {
	dst = jsonscan.AppendQuote(append(dst, `{"token":`...), p.Token)
	dst = appendFloat(append(dst, `,"logprob":`...), p.Logprob)
	dst = append(dst, `,"bytes":[`...)
	own := p.Bytes
	if own == nil {
		own = []byte(p.Token)
	}
	for i, b := range own {
		dst = strconv.AppendUint(comma(dst, i), uint64(b), 10)
	}
	return append(dst, ']')
}

// appendFloat adds a number that JSON has.
func appendFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		f = streaming.Unlikely
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

// appendTextLogprobs adds the object that a choice of a legacy completion has under
// logprobs. text is what the tokens stand in, and before how many characters of the choice
// come before it: offsets count characters, from the beginning of the choice.
func appendTextLogprobs(dst []byte, tokens []scored, text string, before int) []byte {
	dst = append(dst, `{"tokens":[`...)
	for i := range tokens {
		dst = appendName(comma(dst, i), &tokens[i].TokenProb)
	}
	dst = append(dst, `],"token_logprobs":[`...)
	for i := range tokens {
		dst = appendFloat(comma(dst, i), tokens[i].Logprob)
	}
	dst = appendTop(append(dst, `],"top_logprobs":`...), tokens)
	dst = append(dst, `,"text_offset":[`...)
	from := 0
	for i := range tokens {
		at := max(min(tokens[i].at, len(text)), from)
		for ; from < at; from++ {
			if utf8.RuneStart(text[from]) {
				before++
			}
		}
		offset := before
		if at < len(text) && !utf8.RuneStart(text[at]) { // within the character before
			offset--
		}
		dst = strconv.AppendInt(comma(dst, i), int64(offset), 10)
	}
	return append(dst, `]}`...)
}

// appendTop adds an object of likely tokens for each token, the chosen one among them; null
// when they were not asked for.
func appendTop(dst []byte, tokens []scored) []byte {
	asked := false
	for i := range tokens {
		asked = asked || len(tokens[i].Top) > 0
	}
	if !asked {
		return append(dst, "null"...)
	}
	dst = append(dst, '[')
	for i := range tokens {
		t := &tokens[i]
		dst = append(comma(dst, i), '{')
		told := map[string]bool{}
		add := func(p *streaming.TokenProb) {
			if name := name(p); !told[name] {
				dst = append(jsonscan.AppendQuote(comma(dst, len(told)), name), ':')
				dst = appendFloat(dst, p.Logprob)
				told[name] = true
			}
		}
		for j := range t.Top {
			add(&t.Top[j])
		}
		add(&t.TokenProb)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func appendName(dst []byte, p *streaming.TokenProb) []byte { return jsonscan.AppendQuote(dst, name(p)) }

// name is a token as legacy completions have it: one that is a part of a character is told
// by its bytes, so that two of them do not look alike.
func name(p *streaming.TokenProb) string {
	if p.Bytes == nil || utf8.Valid(p.Bytes) {
		return p.Token
	}
	out := []byte("bytes:")
	for _, b := range p.Bytes {
		out = append(out, '\\', 'x', "0123456789abcdef"[b>>4], "0123456789abcdef"[b&15])
	}
	return string(out)
}

func comma(dst []byte, i int) []byte {
	if i > 0 {
		dst = append(dst, ',')
	}
	return dst
}
