package providers

import (
	"bytes"
	"strconv"

	"sluice/streaming/jsonscan"
)

// noContinuing are the features that an answer which somebody else is to continue must not
// have: its form would be broken, or the beginning is no text of the model's alone.
const noContinuing = Audio | ToolMessages | Prefill | Tools | JSONObject | JSONSchema | Logprobs | Choices | Reasoning | Suffix

// Continuable reports whether the answer, as far as Parse knows the request, is a stream of
// plain text, which another server could go on with. Continued has the last word.
func (r *Request) Continuable() bool {
	return r.Stream && r.Op <= Completions && r.Needs()&noContinuing == 0
}

// Continued is the request for the rest of an answer of which text has come, in about so many
// tokens: a chat ends with the text as the assistant's message, a prompt with the text itself.
// A cap on output is lowered by the tokens. ok is false when the rest cannot be asked for:
// more than plain text was wanted, or the cap is reached.
func (r *Request) Continued(text string, tokens int64) (rest *Request, ok bool) {
	if text == "" || !r.Continuable() {
		return nil, false
	}
	c := jsonscan.Cursor{B: r.Body, Limit: 1 << 20} // Parse has bounded it
	var edits []edit
	for c.Object(); c.Key(); {
		name := keyName(c.Name)
		span := c.Skip()
		change, fine := r.continued(name, span, text, tokens)
		if !fine {
			return nil, false
		}
		edits = append(edits, change...)
	}
	body := splice(r.Body, edits)
	rest, err := Parse(r.Op, r.Path, r.ContentType, body, 1<<20)
	if err != nil {
		return nil, false
	}
	rest.ID, rest.Hints, rest.PresentAs = r.ID, r.Hints, r.PresentAs
	return rest, true
}

// continued is what becomes of one member.
func (r *Request) continued(name string, at jsonscan.Span, text string, tokens int64) (change []edit, ok bool) {
	v := at.Of(r.Body)
	if string(v) == "null" {
		return nil, true
	}
	switch name {
	case "messages":
		if r.Op != Chat {
			return nil, true
		}
		add := append([]byte(`,{"role":"assistant","content":`), jsonscan.AppendQuote(nil, text)...)
		return []edit{{jsonscan.Span{Start: at.End - 1, End: at.End - 1}, append(add, '}')}}, true
	case "prompt":
		if r.Op != Completions {
			return nil, true
		}
		// Decoded and quoted again, for a prompt may end in half of a pair of escapes.
		prompt, ok := jsonscan.Unquote(v)
		return []edit{{at, jsonscan.AppendQuote(nil, prompt+text)}}, ok
	case "max_tokens", "max_completion_tokens":
		most, err := strconv.ParseInt(string(v), 10, 64)
		return []edit{{at, strconv.AppendInt(nil, most-tokens, 10)}}, err == nil && most > tokens
	case "stop":
		return nil, string(v) == `""` || v[0] == '[' && len(bytes.TrimSpace(v[1:len(v)-1])) == 0
	case "echo":
		return nil, string(v) == "false"
	case "best_of":
		return nil, string(v) == "1"
	case "modalities":
		return nil, !bytes.Contains(v, []byte("audio"))
	case "min_tokens", "prediction":
		return nil, false
	}
	return nil, true
}
