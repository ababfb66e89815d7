package tokens

import (
	"sync"
	"unicode"

	"github.com/tiktoken-go/tokenizer/codec"
)

// tokenizers are the vocabularies that are built in. Each is made when it is first asked
// for: that takes some 20 ms and 10 MB, so a gateway that asks for none has neither.
var tokenizers = map[string]func() *codec.Codec{
	"o200k_base":  sync.OnceValue(codec.NewO200kBase),
	"cl100k_base": sync.OnceValue(codec.NewCl100kBase),
}

// Tokenizer returns the counter of a vocabulary by OpenAI's name for it; nil for a name
// that is not built in. The counter is safe for concurrent use.
func Tokenizer(name string) func(text string) int {
	load := tokenizers[name]
	if load == nil {
		return nil
	}
	c := load()
	return func(text string) (n int) {
		for text != "" {
			end := blankRun(text)
			some, err := c.Count(text[:end])
			if err != nil {
				some = end / 3
			}
			n, text = n+some, text[end:]
		}
		return n
	}
}

// maxBlank bounds a run of white space that a codec gets to see in one piece: the time
// it takes grows with the square of the run's length.
const maxBlank = 256

// blankRun is the length of text up to where a run of white space has become too long,
// or of all of it.
func blankRun(text string) int {
	run := 0
	for i, r := range text {
		if !unicode.IsSpace(r) {
			run = 0
			continue
		}
		if run++; run > maxBlank {
			return i
		}
	}
	return len(text)
}
