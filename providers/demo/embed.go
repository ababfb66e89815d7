package demo

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// The lengths of a vector, and how many numbers one answer has at most.
const (
	defaultDimensions = 256
	maxDimensions     = 4096
	maxNumbers        = 1 << 20
)

// embed answers a request for embeddings with one complete body.
func embed(body []byte, model string) (streaming.Event, error) {
	w := struct {
		Input          json.RawMessage `json:"input"`
		Dimensions     *int            `json:"dimensions"`
		EncodingFormat *string         `json:"encoding_format"`
	}{}
	if err := json.Unmarshal(body, &w); err != nil {
		return streaming.Event{}, badBody(err)
	}
	inputs, err := readInputs("input", w.Input)
	if err != nil {
		return streaming.Event{}, err
	}
	size := defaultDimensions
	if w.Dimensions != nil {
		size = *w.Dimensions
	}
	if size < 1 || size > maxDimensions {
		return streaming.Event{}, providers.Invalid("dimensions", fmt.Sprintf("dimensions must be from 1 to %d.", maxDimensions))
	}
	if len(inputs)*size > maxNumbers {
		return streaming.Event{}, providers.Invalid("input", fmt.Sprintf("The demo gives at most %d numbers at once: send fewer inputs or ask for fewer dimensions.", maxNumbers))
	}
	packed := w.EncodingFormat != nil && *w.EncodingFormat == "base64"
	if w.EncodingFormat != nil && !packed && *w.EncodingFormat != "float" {
		return streaming.Event{}, providers.Invalid("encoding_format", `encoding_format must be "float" or "base64".`)
	}
	return embedding(inputs, size, packed, model)
}

func embedding(inputs []input, size int, packed bool, model string) (streaming.Event, error) {
	u := &streaming.UsageData{}
	out := []byte(`{"object":"list","data":[`)
	for i, in := range inputs {
		if in.text == "" && len(in.tokens) == 0 {
			return streaming.Event{}, providers.Invalid("input", fmt.Sprintf("Entry %d of input is empty.", i))
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"object":"embedding","index":`...)
		out = strconv.AppendInt(out, int64(i), 10)
		out = append(out, `,"embedding":`...)
		out = appendVector(out, vector(in, size), packed)
		out = append(out, '}')
		u.Prompt += int64(in.size())
	}
	u.Total = u.Prompt
	out = append(out, `],"model":`...)
	out = jsonscan.AppendQuote(out, model)
	out = fmt.Appendf(out, `,"usage":{"prompt_tokens":%d,"total_tokens":%d}}`, u.Prompt, u.Total)
	return streaming.Event{Kind: streaming.Whole, Dialect: streaming.Opaque, Raw: out, Usage: u}, nil
}

// vector is a point on the unit sphere that follows from the input alone.
func vector(in input, size int) []float32 {
	h := sha256.New()
	h.Write([]byte(in.text))
	for _, t := range in.tokens {
		h.Write(binary.LittleEndian.AppendUint64([]byte{'t'}, uint64(t)))
	}
	r := rand.New(rand.NewChaCha8([32]byte(h.Sum(nil))))
	wide := make([]float64, size)
	sum := 0.0
	for i := range wide {
		wide[i] = r.NormFloat64()
		sum += wide[i] * wide[i]
	}
	out := make([]float32, size)
	for i, x := range wide {
		out[i] = float32(x / math.Sqrt(sum))
	}
	return out
}

// appendVector writes numbers, or their little-endian bytes in base64.
func appendVector(dst []byte, v []float32, packed bool) []byte {
	if packed {
		b := make([]byte, 0, 4*len(v))
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, b)
		return append(dst, '"')
	}
	dst = append(dst, '[')
	for i, x := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendFloat(dst, float64(x), 'g', -1, 32)
	}
	return append(dst, ']')
}
