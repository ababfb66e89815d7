package anthropic

import (
	"sluice/providers/kit/deltas"
	"sluice/streaming/jsonscan"
)

// thought collects what the model thinks in front of a tool call, to be sent back with
// the call's result: all of it and unchanged, or nothing.
type thought struct {
	most   int // bytes; 0: nothing is collected
	size   int
	blocks []block
	at     int64  // index of the block that is open
	text   []byte // of it
	lost   bool   // something is missing
}

// maxThought bounds what is collected of one answer, in bytes.
const maxThought = 1 << 20

// newThought collects where a call can follow that the caller will answer.
func newThought(a *request) thought {
	if len(a.out.Tools) == 0 || a.inTool {
		return thought{}
	}
	return thought{most: min(a.opt.Memory, maxThought)}
}

// begin opens a block of thinking, or takes a redacted one, which comes whole.
func (t *thought) begin(index int64, redacted []byte) {
	b := block{Type: "thinking", Thinking: new(string)}
	if len(redacted) > 0 {
		b = block{Type: "redacted_thinking"}
		b.Data, _ = jsonscan.Unquote(redacted)
	}
	if t.grow(len(b.Data)) {
		t.blocks, t.at, t.text = append(t.blocks, b), index, t.text[:0]
	}
}

func (t *thought) grow(n int) bool {
	if t.size += n; t.size > t.most {
		t.lost, t.blocks = true, nil
	}
	return !t.lost
}

// add takes a piece of a block. Blocks of thinking that interleave are not kept.
func (t *thought) add(index int64, quoted []byte) {
	if t.grow(len(quoted)) {
		t.lost = t.lost || index != t.at
		t.text = deltas.AppendUnquoted(t.text, quoted)
	}
}

// sign ends a block; the empty signature at its beginning says nothing.
func (t *thought) sign(index int64, quoted []byte) {
	s, _ := jsonscan.Unquote(quoted)
	if s == "" || !t.grow(len(s)) || index != t.at || len(t.blocks) == 0 {
		return
	}
	last := &t.blocks[len(t.blocks)-1]
	text := string(t.text)
	last.Thinking, last.Signature = &text, s
}

// take hands over what led to a call. The next call gets what comes behind this one.
func (t *thought) take() []block {
	blocks := t.blocks
	t.blocks = nil
	for i := range blocks {
		if blocks[i].Signature == "" && blocks[i].Data == "" {
			t.lost = true
		}
	}
	if t.lost {
		return nil
	}
	return blocks
}

// sizeOf is how many bytes of text thinking has.
func sizeOf(blocks []block) (n int) {
	for i := range blocks {
		n += len(blocks[i].Data) + len(blocks[i].Signature)
		if blocks[i].Thinking != nil {
			n += len(*blocks[i].Thinking)
		}
	}
	return n
}
