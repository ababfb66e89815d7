package anthropic

import (
	"bytes"
	"fmt"
	"io"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// relayWhole reads an answer that is one JSON body and tells it as events, as if it had
// been streamed.
func (t target) relayWhole(a *request, body io.Reader, prog *streaming.Progress, yield yielder) bool {
	text, err := io.ReadAll(io.LimitReader(body, int64(t.opt.MaxAnswer)+1))
	switch {
	case err != nil:
		yield(nil, &providers.Error{Kind: providers.Truncated, Target: t.name, Message: "the connection to the upstream broke before the answer was finished", Err: err})
		return false
	case len(text) > t.opt.MaxAnswer:
		yield(nil, &providers.Error{Kind: providers.EventTooLarge, Target: t.name, Message: fmt.Sprintf("the upstream's answer is longer than the limit of %d bytes", t.opt.MaxAnswer)})
		return false
	}
	r := newReader(a, prog)
	if err := r.whole(text); err != nil {
		yield(nil, err)
		return true
	}
	return yield(r.batch.Events(), nil)
}

func (r *reader) whole(text []byte) error {
	var kind, stop, usage []byte
	var blocks jsonscan.Span
	c := jsonscan.Cursor{B: text, Limit: maxDepth}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "type":
			kind = c.Skip().Of(text)
		case "content":
			blocks = c.Skip()
		case "stop_reason":
			stop = c.Skip().Of(text)
		case "usage":
			usage = c.Skip().Of(text)
		default:
			c.Skip()
		}
	}
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return r.protocolError("an empty body")
	case !c.End():
		return r.protocolError("something that is not a JSON object")
	case string(kind) == `"error"`:
		return r.inStream(text)
	case string(kind) != `"message"` || blocks.Empty() || len(stop) == 0:
		return r.protocolError("JSON that is no message")
	}
	if err := r.begin(text); err != nil {
		return err
	}
	if err := r.tellBlocks(text, blocks); err != nil {
		return err
	}
	r.counts.final = len(usage) > 0
	if err := r.stopped(stop); err != nil {
		return err
	}
	r.finish()
	return nil
}

func (r *reader) tellBlocks(text []byte, blocks jsonscan.Span) error {
	c := jsonscan.Cursor{B: text[:blocks.End], I: blocks.Start, Limit: maxDepth}
	for c.Array(); c.Elem(); r.event.index++ {
		if err := r.start(r.event.index, c.Skip().Of(text)); err != nil {
			return err
		}
		if err := r.closeBlock(r.event.index); err != nil {
			return err
		}
	}
	if c.Bad {
		return r.protocolError("a message whose content is no array")
	}
	return nil
}
