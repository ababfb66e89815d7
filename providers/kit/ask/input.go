package ask

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"strconv"

	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// Prompt is one prompt of a completions request: a text, or token ids as a JSON array.
type Prompt struct {
	Text   string
	Tokens []byte
}

// Prompts takes the prompts of a completions request; without any there is one that is
// empty.
func (q *Params) Prompts() ([]Prompt, error) {
	v := q.Take("prompt")
	const want = "a string, an array of strings, of token ids, or of arrays of token ids"
	if v == nil {
		return []Prompt{{}}, nil
	}
	if s, ok := jsonscan.Unquote(v); ok {
		return []Prompt{{Text: s}}, nil
	}
	if isTokens(v) {
		return []Prompt{{Tokens: v}}, nil
	}
	if v[0] != '[' {
		return nil, q.Wrong("prompt", want)
	}
	var all []Prompt
	c := jsonscan.Cursor{B: v, Limit: bodyDepth}
	for c.Array(); c.Elem(); {
		one := c.Skip().Of(v)
		s, ok := jsonscan.Unquote(one)
		switch {
		case ok:
			all = append(all, Prompt{Text: s})
		case isTokens(one):
			all = append(all, Prompt{Tokens: one})
		default:
			return nil, q.Wrong("prompt", want)
		}
	}
	if len(all) == 0 {
		return nil, q.Wrong("prompt", want)
	}
	return all, nil
}

// isTokens reports whether JSON text is an array of token ids, with one at least.
func isTokens(v []byte) bool {
	var ids []uint32
	return len(v) > 0 && v[0] == '[' && json.Unmarshal(v, &ids) == nil && len(ids) > 0 && !hasNull(v)
}

// Inputs takes the texts of an embeddings request. Token ids are refused, for they mean
// something else to every model.
func (q *Params) Inputs() ([]string, error) {
	v := q.Take("input")
	if s, ok := jsonscan.Unquote(v); ok {
		return []string{s}, nil
	}
	var all []string
	if err := json.Unmarshal(v, &all); err != nil || len(all) == 0 || hasNull(v) {
		return nil, q.Wrong("input", "a string or an array of strings")
	}
	return all, nil
}

// Base64 takes encoding_format and reports whether vectors are wanted in base64.
func (q *Params) Base64() (bool, error) {
	s, err := q.String("encoding_format")
	if err == nil && s != "" && s != "float" && s != "base64" {
		err = q.Wrong("encoding_format", `"float" or "base64"`)
	}
	return s == "base64", err
}

// Embeddings makes OpenAI's list of embeddings. Each vector is a JSON array of numbers;
// in base64 its numbers are little-endian float32. ok is false when one is no such array.
func Embeddings(model string, vectors [][]byte, inBase64 bool, u *streaming.UsageData) (body []byte, ok bool) {
	body = []byte(`{"object":"list","data":[`)
	for i, v := range vectors {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"object":"embedding","index":`...)
		body = strconv.AppendInt(body, int64(i), 10)
		body = append(body, `,"embedding":`...)
		if body, ok = appendVector(body, v, inBase64); !ok {
			return nil, false
		}
		body = append(body, '}')
	}
	body = append(body, `],"model":`...)
	body = jsonscan.AppendQuote(body, model)
	body = append(body, `,"usage":{"prompt_tokens":`...)
	body = strconv.AppendInt(body, u.Prompt, 10)
	body = append(body, `,"total_tokens":`...)
	body = strconv.AppendInt(body, u.Total, 10)
	return append(body, "}}"...), true
}

func appendVector(dst, v []byte, inBase64 bool) ([]byte, bool) {
	c := jsonscan.Cursor{B: v}
	if c.Peek() != '[' {
		return dst, false
	}
	var raw []byte
	for c.Array(); c.Elem(); {
		f, err := strconv.ParseFloat(string(c.Skip().Of(v)), 64)
		if err != nil {
			return dst, false
		}
		if inBase64 {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(f)))
		}
	}
	if !inBase64 {
		return append(dst, v...), c.End()
	}
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, raw)
	return append(dst, '"'), c.End()
}
