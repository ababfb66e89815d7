package ollama

import (
	"fmt"
	"io"

	"sluice/providers"
	"sluice/providers/kit/ask"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// relayEmbeddings makes OpenAI's list of embeddings from Ollama's answer.
func (t target) relayEmbeddings(req *providers.Request, r *request, body io.Reader, yield yielder) bool {
	text, err := io.ReadAll(io.LimitReader(body, int64(t.opt.MaxAnswer)+1))
	switch {
	case err != nil:
		yield(nil, &providers.Error{Kind: providers.Truncated, Target: t.name, Message: "the connection to the upstream broke before the answer was finished", Err: err})
		return false
	case len(text) > t.opt.MaxAnswer:
		yield(nil, &providers.Error{Kind: providers.EventTooLarge, Target: t.name, Message: fmt.Sprintf("the upstream's answer is longer than the limit of %d bytes", t.opt.MaxAnswer)})
		return false
	}
	vectors, count, failed, whole := readVectors(text)
	if whole && !isNull(failed) {
		yield(nil, t.inBody(text))
		return true
	}
	u := &streaming.UsageData{Prompt: count, Total: count}
	if count == 0 {
		u.Prompt, u.Estimated = req.PromptEstimate(), true
		u.Total = u.Prompt
	}
	list, ok := ask.Embeddings(t.present(req), vectors, r.inBase64, u)
	if !whole || !ok || len(vectors) != r.inputs {
		yield(nil, t.notOllama(r.path, "something that is not one vector for each input"))
		return true
	}
	yield([]streaming.Event{{Kind: streaming.Whole, Dialect: streaming.Opaque, Raw: list, Usage: u}}, nil)
	return true
}

// readVectors returns the vectors as JSON text, the tokens of all inputs, and the error
// that may stand there instead.
func readVectors(text []byte) (vectors [][]byte, tokens int64, failed []byte, ok bool) {
	c := jsonscan.Cursor{B: text}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "embeddings":
			for c.Array(); c.Elem(); {
				vectors = append(vectors, c.Skip().Of(text))
			}
		case "prompt_eval_count":
			tokens = number(&c)
		case "error":
			failed = c.Skip().Of(text)
		default:
			c.Skip()
		}
	}
	return vectors, tokens, failed, c.End()
}
