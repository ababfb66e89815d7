package gemini

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"sluice/providers"
	"sluice/providers/kit/deltas"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// maxMalformed is how many broken payloads in a row end an answer.
const maxMalformed = 3

// maxChoices bounds the candidates of one answer.
const maxChoices = 128

// reader turns one answer into batches of events.
type reader struct {
	target
	ask      *request
	progress *streaming.Progress
	batch    deltas.Batch
	chunk    chunk
	one      candidate
	piece    piece

	id        string
	known     bool // the answer has been introduced
	choices   []choice
	blocked   bool // the prompt was
	counts    counts
	malformed int  // in a row
	odd       bool // JSON has come that is no part of an answer
}

// choice is how far one candidate has come.
type choice struct {
	begun  bool
	some   bool // some of its content has been told
	calls  int
	stop   string // of OpenAI's, as last told; "" while it runs
	failed *providers.Error
	scores deltas.Scores
}

// newReader stays out of relay's frame, which every waiting stream keeps on its stack.
//
//go:noinline
func newReader(r *request, prog *streaming.Progress) *reader {
	return &reader{target: r.target, ask: r, progress: prog}
}

// relay reads a stream and reports whether it came to its true end, which is the end of
// the body behind a finishReason: there is no other marker, and older models repeat the
// reason in every chunk.
func (t target) relay(ask *request, body io.Reader, prog *streaming.Progress, yield yielder) bool {
	bare := &bareReader{src: body}
	frames := streaming.NewFrames(bare, t.opt.MaxEvent)
	defer frames.Close()
	r := newReader(ask, prog)
	for {
		got, err := frames.Next()
		if err != nil {
			if errors.Is(err, io.EOF) && frames.Unfinished() {
				err = io.ErrUnexpectedEOF
			}
			return r.end(err, bare.caught, yield)
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
}

// end judges the end of the body.
func (r *reader) end(err error, bare []byte, yield yielder) bool {
	r.batch.Reset()
	fault := r.ended(err)
	switch {
	case len(bare) > 0:
		fault = r.bareError(bare)
	case errors.Is(err, io.EOF) && !r.known && r.odd:
		fault = r.protocolError("events that are no part of one")
	case errors.Is(err, io.EOF):
		fault = r.finish()
	}
	if fault != nil {
		yield(nil, fault)
		return false
	}
	return yield(r.batch.Events(), nil)
}

// read turns frames into a batch; the error stands behind the events before it.
func (r *reader) read(frames []streaming.Frame) ([]streaming.Event, error) {
	r.batch.Reset()
	for i := range frames {
		b := frames[i].Data
		if len(bytes.TrimSpace(b)) == 0 || string(b) == "[DONE]" { // of servers that mix two dialects
			continue
		}
		if err := r.payload(b); err != nil {
			return r.batch.Events(), err
		}
	}
	return r.batch.Events(), nil
}

func (r *reader) payload(b []byte) error {
	k := &r.chunk
	if !k.scan(b) {
		r.odd = r.odd || json.Valid(b)
		r.progress.AddMalformed()
		if r.malformed++; r.malformed < maxMalformed {
			return nil
		}
		return r.protocolError(fmt.Sprintf("%d events in a row that are no part of one", maxMalformed))
	}
	r.malformed = 0
	if !k.fault.Empty() {
		return r.inStream(b)
	}
	r.introduce()
	r.blocked = r.blocked || blocks(k.feedback.Of(b))
	if err := r.candidates(); err != nil {
		return err
	}
	r.count()
	return nil
}

// introduce tells who answers, once.
func (r *reader) introduce() {
	k := &r.chunk
	if r.known {
		return
	}
	r.known = true
	r.id = text(k.id.Of(k.b))
	model := text(k.model.Of(k.b))
	if r.ask.req.PresentAs != "" {
		model = r.ask.req.PresentAs
	}
	r.batch.Add(streaming.Event{Kind: streaming.Meta, Meta: &streaming.MetaData{ID: r.id, Model: model}})
}

// blocks reports whether promptFeedback says that the prompt was refused. Without a
// reason it says nothing.
func blocks(feedback []byte) bool {
	if len(feedback) == 0 || feedback[0] != '{' {
		return false
	}
	reason := ""
	c := jsonscan.Cursor{B: feedback, Limit: maxDepth}
	for c.Object(); c.Key(); {
		if is := string(c.Name) == "blockReason"; is {
			reason = text(c.Skip().Of(feedback))
		} else {
			c.Skip()
		}
	}
	return reason != "" && reason != "BLOCK_REASON_UNSPECIFIED" && reason != "BLOCKED_REASON_UNSPECIFIED"
}

// count keeps the last total. The first is told at once: a caller who leaves early has
// paid for the prompt.
func (r *reader) count() {
	n := r.chunk.counts
	if n == (counts{}) {
		return
	}
	first := r.counts == (counts{})
	if r.counts = n; first {
		r.batch.Add(streaming.Event{Kind: streaming.Usage, Usage: n.usage()})
	}
}

// usage gives OpenAI's counts: a prompt includes what came from the cache, and thinking
// is part of the completion.
func (n *counts) usage() *streaming.UsageData {
	u := &streaming.UsageData{Prompt: n.prompt + n.tools, Completion: n.candidates + n.thoughts, Cached: n.cached, Reasoning: n.thoughts}
	u.Total = u.Prompt + u.Completion
	return u
}

func (r *reader) candidates() error {
	k := &r.chunk
	if k.single {
		return r.candidate(&k.first)
	}
	c := jsonscan.Cursor{B: k.b[:k.candidates.End], I: k.candidates.Start, Limit: maxDepth}
	if k.candidates.Empty() || c.Peek() != '[' {
		return nil
	}
	for c.Array(); c.Elem(); {
		r.one.read(&c)
		if err := r.candidate(&r.one); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) candidate(v *candidate) error {
	if v.index >= maxChoices {
		return r.protocolError("candidate " + strconv.FormatInt(v.index, 10))
	}
	for int(v.index) >= len(r.choices) {
		r.choices = append(r.choices, choice{})
	}
	o := &r.choices[v.index]
	o.begun = true
	if len(v.logprobs) > 0 {
		o.score(v.logprobs)
	}
	if v.pieces == 1 {
		r.part(o, int(v.index), &v.piece)
	} else {
		r.parts(o, v)
	}
	r.stopped(o, v)
	return nil
}

func (r *reader) parts(o *choice, v *candidate) {
	c := jsonscan.Cursor{B: v.parts, Limit: maxDepth}
	if c.Peek() != '[' {
		return
	}
	for c.Array(); c.Elem(); {
		r.piece.read(&c)
		r.part(o, int(v.index), &r.piece)
	}
}

func (r *reader) part(o *choice, index int, v *piece) {
	switch {
	case v.call != nil:
		r.call(o, index, v)
	case v.other:
		r.progress.AddRepaired() // an image or a file has no place in a chat answer
	case len(v.text) <= len(`""`):
	case v.thought:
		o.some = o.some || v.text[0] == '"'
		r.batch.AddText(streaming.Reasoning, index, v.text)
	default:
		o.some = o.some || v.text[0] == '"'
		r.batch.AddScored(streaming.Text, index, v.text, &o.scores)
	}
}

// call tells a function call, which comes whole. Its id is made up of the answer's when
// there is none, so that the caller's next turn finds its signature.
func (r *reader) call(o *choice, index int, v *piece) {
	t := &streaming.ToolDelta{Index: o.calls, Args: "{}"}
	c := jsonscan.Cursor{B: v.call, Limit: maxDepth}
	if c.Peek() != '{' {
		return
	}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "name":
			t.Name = text(c.Skip().Of(c.B))
		case "id":
			t.ID = text(c.Skip().Of(c.B))
		case "args":
			t.Args = arguments(c.Skip().Of(c.B))
		default:
			c.Skip()
		}
	}
	if t.Name == "" || r.ask.one && o.calls > 0 {
		return
	}
	if t.ID == "" {
		t.ID = r.callID(index, o.calls)
	}
	o.calls++
	o.some = true
	if signature := text(v.signature); signature != "" {
		r.memory.Keep(t.ID, r.model, signature, len(signature))
	}
	r.batch.Add(streaming.Event{Kind: streaming.ToolCall, Index: index, Tool: t})
}

// arguments are those of a call on one line, whatever the form of the body around them.
func arguments(v []byte) string {
	var line bytes.Buffer
	if len(v) == 0 || v[0] != '{' || json.Compact(&line, v) != nil {
		return "{}"
	}
	return line.String()
}

func (r *reader) callID(choice, call int) string {
	id := r.id
	if id == "" {
		id = strings.TrimPrefix(r.ask.req.ID, "req_")
	}
	return "call_" + id + "_" + strconv.Itoa(choice) + "_" + strconv.Itoa(call)
}
