package anthropic

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"sluice/providers"
	"sluice/providers/kit/deltas"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// maxMalformed is how many broken payloads in a row end an answer.
const maxMalformed = 3

// maxBlocks bounds the blocks of one answer.
const maxBlocks = 4096

// reader turns one answer into batches of events.
type reader struct {
	target
	ask      *request
	progress *streaming.Progress
	batch    deltas.Batch
	event    event
	content  content

	blocks    []open // by index
	calls     int
	args      []byte // of one fragment of a call
	counts    counts
	stop      string // of OpenAI's; "" while the answer runs
	begun     bool
	odd       bool // JSON has come that is no event of this API
	done      bool
	malformed int   // in a row
	size      int   // bytes of content
	deltas    int64 // pieces of content
	thought   thought
}

// open is a block that has begun.
type open struct {
	kind  kind
	call  int
	some  bool   // some of its content has been told
	input []byte // of a call that came whole
}

type kind uint8

const (
	other kind = iota
	text
	reasoning
	call
	answer // the input of answerTool, which is text to the caller
)

// newReader stays out of relay's frame, which every waiting stream keeps on its stack.
//
//go:noinline
func newReader(a *request, prog *streaming.Progress) *reader {
	return &reader{target: a.target, ask: a, progress: prog, thought: newThought(a)}
}

// relay reads a stream and reports whether it came to its true end.
func (t target) relay(a *request, body io.Reader, prog *streaming.Progress, yield yielder) bool {
	frames := streaming.NewFrames(body, t.opt.MaxEvent)
	defer frames.Close()
	r := newReader(a, prog)
	for !r.done {
		got, err := frames.Next()
		if err != nil {
			r.end(err, yield)
			return false
		}
		batch, fault := r.read(got)
		if (len(batch) > 0 || fault == nil) && !yield(batch, nil) {
			return false
		}
		if fault != nil {
			yield(nil, fault)
			return false
		}
	}
	return true
}

// end tells that the body ended before message_stop, which alone ends an answer: also
// behind a stop_reason. What that said of the cost is told before.
func (r *reader) end(err error, yield yielder) {
	r.batch.Reset()
	if r.counts.final && r.counts.told {
		r.batch.Add(streaming.Event{Kind: streaming.Usage, Usage: r.counts.usage()})
	}
	if batch := r.batch.Events(); len(batch) == 0 || yield(batch, nil) {
		yield(nil, r.cut(err))
	}
}

// cut is the error for a body that ended early; another server's does so from the start.
func (r *reader) cut(err error) *providers.Error {
	if errors.Is(err, io.EOF) && !r.begun && r.odd {
		return r.protocolError("events that are none of it")
	}
	return r.ended(err)
}

// read turns frames into a batch; the error stands behind the events before it.
func (r *reader) read(frames []streaming.Frame) ([]streaming.Event, error) {
	r.batch.Reset()
	for i := range frames {
		if err := r.one(frames[i].Data); err != nil || r.done {
			return r.batch.Events(), err
		}
	}
	return r.batch.Events(), nil
}

func (r *reader) one(b []byte) error {
	e := &r.event
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	if !e.scan(b) {
		r.odd = r.odd || json.Valid(b)
		return r.broken()
	}
	switch string(e.kind.Of(b)) {
	case `"content_block_delta"`:
		return r.delta()
	case `"content_block_start"`:
		return r.start(e.index, e.block.Of(b))
	case `"content_block_stop"`:
		return r.closeBlock(e.index)
	case `"message_start"`:
		return r.begin(e.message.Of(b))
	case `"message_delta"`:
		r.counts.read(e.usage.Of(b))
		r.counts.final = r.counts.final || !e.usage.Empty()
		r.content.read(e.delta.Of(b))
		return r.stopped(r.content.stop)
	case `"message_stop"`:
		r.finish()
	case `"error"`:
		return r.inStream(b)
	}
	r.malformed = 0
	return nil // a ping, or an event that is newer than this code
}

// broken skips a payload that cannot be read, up to a number of them in a row.
func (r *reader) broken() error {
	r.progress.AddMalformed()
	if r.malformed++; r.malformed < maxMalformed {
		return nil
	}
	return &providers.Error{Kind: providers.Protocol, Target: r.name,
		Message: fmt.Sprintf("the upstream sent %d events in a row that are none of Anthropic's Messages API", maxMalformed)}
}

// begin tells who answers, and what the prompt cost: a caller who leaves early has paid
// for it.
func (r *reader) begin(message []byte) error {
	var id, model string
	c := jsonscan.Cursor{B: message, Limit: maxDepth}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "id":
			id, _ = jsonscan.Unquote(c.Skip().Of(message))
		case "model":
			model, _ = jsonscan.Unquote(c.Skip().Of(message))
		case "usage":
			r.counts.read(c.Skip().Of(message))
		default:
			c.Skip()
		}
	}
	if c.Bad {
		return r.broken()
	}
	r.malformed = 0
	r.introduce(id, model)
	if r.counts.told {
		r.batch.Add(streaming.Event{Kind: streaming.Usage, Usage: r.counts.usage()})
	}
	return nil
}

func (r *reader) introduce(id, model string) {
	if r.ask.req.PresentAs != "" {
		model = r.ask.req.PresentAs
	}
	r.begun = true
	r.batch.Add(streaming.Event{Kind: streaming.Meta, Meta: &streaming.MetaData{ID: id, Model: model}})
}

// start opens a block; what it brings already is told.
func (r *reader) start(index int64, b []byte) error {
	if index < 0 || index >= maxBlocks || len(b) == 0 || b[0] != '{' {
		return r.broken()
	}
	r.malformed = 0
	if !r.begun { // its beginning was not readable
		r.introduce("", r.model)
	}
	for int(index) >= len(r.blocks) {
		r.blocks = append(r.blocks, open{})
	}
	o, v := &r.blocks[index], &r.content
	*o = open{}
	v.read(b)
	switch string(v.kind) {
	case `"text"`:
		o.kind = text
		r.tell(o, v.text)
	case `"thinking"`:
		o.kind = reasoning
		r.thought.begin(index, nil)
		r.tell(o, v.thinking)
		r.thought.sign(index, v.signature)
	case `"redacted_thinking"`:
		r.thought.begin(index, v.data)
	case `"tool_use"`:
		return r.callTool(o, v)
	}
	return nil
}

// callTool begins a call. Its arguments usually follow in deltas.
func (r *reader) callTool(o *open, v *content) error {
	name, _ := jsonscan.Unquote(v.name)
	id, _ := jsonscan.Unquote(v.id)
	if name == "" {
		return r.broken()
	}
	if len(v.input) > 2 {
		o.input = bytes.Clone(v.input)
	}
	if r.ask.inTool && name == answerTool {
		o.kind = answer
		return nil
	}
	o.kind, o.call = call, r.calls
	r.calls++
	r.batch.Add(streaming.Event{Kind: streaming.ToolCall, Tool: &streaming.ToolDelta{Index: o.call, ID: id, Name: name}})
	if led := r.thought.take(); len(led) > 0 {
		r.memory.Keep(id, r.model, led, sizeOf(led))
	}
	return nil
}

func (r *reader) delta() error {
	e := &r.event
	if e.index < 0 || e.index >= int64(len(r.blocks)) {
		return r.broken()
	}
	r.malformed = 0
	o, v := &r.blocks[e.index], &r.content
	v.read(e.delta.Of(e.b))
	switch string(v.kind) {
	case `"text_delta"`:
		r.tell(o, v.text)
	case `"thinking_delta"`:
		r.tell(o, v.thinking)
	case `"input_json_delta"`:
		r.tell(o, v.partial)
	case `"signature_delta"`:
		r.thought.sign(e.index, v.signature)
	}
	return nil
}

// tell passes a piece of a block on, as what the block is.
func (r *reader) tell(o *open, quoted []byte) {
	if len(quoted) <= len(`""`) || quoted[0] != '"' {
		return
	}
	switch o.kind {
	case text, answer:
		r.batch.AddText(streaming.Text, 0, quoted)
	case reasoning:
		r.batch.AddText(streaming.Reasoning, 0, quoted)
		r.thought.add(r.event.index, quoted)
	case call:
		r.args = deltas.AppendUnquoted(r.args[:0], quoted)
		r.batch.Add(streaming.Event{Kind: streaming.ToolCall, Tool: &streaming.ToolDelta{Index: o.call, Args: string(r.args)}})
	default:
		return // a block of a kind that no caller asked for
	}
	o.some = true
	r.size += len(quoted) - len(`""`)
	r.deltas++
}

// closeBlock tells the arguments of a call that came whole, or were none.
func (r *reader) closeBlock(index int64) error {
	if index < 0 || index >= int64(len(r.blocks)) {
		return r.broken()
	}
	r.malformed = 0
	o := &r.blocks[index]
	if o.some || o.kind != call && o.kind != answer {
		return nil
	}
	if o.input == nil {
		o.input = []byte("{}")
	}
	r.tell(o, jsonscan.AppendQuote(nil, string(o.input)))
	return nil
}

// stops are OpenAI's finish reasons for this API's.
var stops = map[string]string{
	"end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "compaction": "stop",
	"max_tokens": "length", "model_context_window_exceeded": "length",
	"tool_use": "tool_calls", "refusal": "content_filter",
}

func (r *reader) stopped(reason []byte) error {
	r.malformed = 0
	word, ok := jsonscan.Unquote(reason)
	if !ok || word == "" {
		return nil // the last word is still to come
	}
	r.stop = stops[word]
	if r.stop == "" {
		r.progress.AddRepaired()
		r.stop = "stop"
	}
	if r.stop == "tool_calls" && r.calls == 0 {
		r.stop = "stop" // the answer itself was asked for as a call
	}
	return nil
}

// finish tells the end and what the answer cost.
func (r *reader) finish() {
	if r.done = true; r.stop == "" {
		r.progress.AddRepaired()
		r.stop = "stop"
	}
	r.batch.Add(streaming.Event{Kind: streaming.Stop, Stop: r.stop})
	if !r.counts.told {
		return
	}
	u := r.counts.usage()
	if !r.counts.final {
		u.Completion, u.Estimated = max(u.Completion, r.deltas, int64(float64(r.size)/bytesPerToken)), true
		u.Total = u.Prompt + u.Completion
	}
	r.batch.Add(streaming.Event{Kind: streaming.Usage, Usage: u})
}

// bytesPerToken is the divisor for text that nobody counted.
const bytesPerToken = 3.3

// usage gives OpenAI's counts: its prompt includes what came from the cache and what
// went there.
func (u *counts) usage() *streaming.UsageData {
	d := &streaming.UsageData{Prompt: u.input + u.written + u.cached, Completion: u.output, Cached: u.cached, Reasoning: u.thinking}
	d.Total = d.Prompt + d.Completion
	return d
}
