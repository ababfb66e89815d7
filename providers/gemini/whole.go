package gemini

import (
	"bytes"
	"fmt"
	"io"

	"sluice/providers"
	"sluice/streaming"
)

// relayWhole reads an answer that is one JSON body and tells it as events, as if it had
// been streamed.
func (t target) relayWhole(ask *request, body io.Reader, prog *streaming.Progress, yield yielder) bool {
	text, err := t.readAll(body)
	if err != nil {
		yield(nil, err)
		return false
	}
	r := newReader(ask, prog)
	if err := r.whole(text); err != nil {
		yield(nil, err)
		return true
	}
	return yield(r.batch.Events(), nil)
}

// readAll reads a body within its bound.
func (p *Provider) readAll(body io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(body, int64(p.opt.MaxAnswer)+1))
	switch {
	case err != nil:
		return nil, p.ended(err)
	case len(text) > p.opt.MaxAnswer:
		return nil, &providers.Error{Kind: providers.EventTooLarge, Target: p.name, Message: fmt.Sprintf("the upstream's answer is longer than the limit of %d bytes", p.opt.MaxAnswer)}
	case len(bytes.TrimSpace(text)) == 0:
		return nil, p.protocolError("an empty body")
	default:
		return text, nil
	}
}

func (r *reader) whole(text []byte) error {
	if !r.chunk.scan(text) {
		if _, ok := readWords(text); ok {
			return r.inStream(text)
		}
		return r.protocolError("JSON that is none, or no JSON")
	}
	if err := r.payload(text); err != nil {
		return err
	}
	return r.finish()
}
