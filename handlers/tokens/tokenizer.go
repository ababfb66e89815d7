package tokens

import (
	"sync"

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
	return func(text string) int {
		n, err := c.Count(text)
		if err != nil {
			return len(text) / 3
		}
		return n
	}
}
