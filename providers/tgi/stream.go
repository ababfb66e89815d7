package tgi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"sluice/providers"
	"sluice/providers/kit/deltas"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// maxMalformed is how many broken events in a row end an answer.
const maxMalformed = 3

// reader turns the events of one answer into batches.
type reader struct {
	name      string
	progress  *streaming.Progress
	batch     deltas.Batch
	stops     *stopper // nil: none
	event     event
	scored    bool // log probabilities are asked for
	scores    deltas.Scores
	tokens    int64   // that have come
	at        []int64 // how many had come with each event of the batch
	estimate  func() int64
	malformed int  // in a row
	begun     bool // an event of the server's has come
	odd       bool // JSON has come that is none
	done      bool
	early     bool // ended by a stop sequence, before the server
}

// event is what one event says. Spans are of its payload.
type event struct {
	text, whole, fault jsonscan.Span
	token, likely      jsonscan.Span
	known, special     bool
	details            details
}

// details are what the server tells at the end of an answer.
type details struct {
	reason            jsonscan.Span
	tokens, likely    jsonscan.Span // of answers that are not streamed
	prompt, generated int64
}

// relay reads a stream and reports whether it came to its true end.
func (t target) relay(r *request, body io.Reader, prog *streaming.Progress, yield yielder) bool {
	frames := streaming.NewFrames(body, t.opt.MaxEvent)
	defer frames.Close()
	in := newReader(t.name, r, prog)
	for !in.done {
		got, err := frames.Next()
		if err != nil {
			yield(nil, in.end(err))
			return false
		}
		batch, fault := in.read(got)
		if (len(batch) > 0 || fault == nil) && !yield(batch, nil) {
			return in.done && !in.early
		}
		if fault != nil {
			yield(nil, fault)
			return false
		}
	}
	return !in.early
}

// newReader stays out of relay's frame, which every waiting stream keeps on its stack.
//
//go:noinline
func newReader(name string, r *request, prog *streaming.Progress) *reader {
	return &reader{name: name, progress: prog, stops: r.stopper(), scored: r.scored, estimate: r.req.PromptEstimate}
}

// read turns frames into a batch; the error stands behind the events before it.
func (r *reader) read(frames []streaming.Frame) ([]streaming.Event, error) {
	r.batch.Reset()
	r.at = r.at[:0]
	var fault error
	for i := 0; i < len(frames) && fault == nil && !r.done; i++ {
		fault = r.one(frames[i].Data)
		for len(r.at) < r.batch.Len() {
			r.at = append(r.at, r.tokens)
		}
	}
	if r.stops == nil {
		return r.batch.Events(), fault
	}
	return r.cut(r.batch.Events(), fault)
}

// cut ends the answer where a stop sequence does. When that is before the server's own
// end, what it would have counted is not waited for.
func (r *reader) cut(events []streaming.Event, fault error) ([]streaming.Event, error) {
	out, ended := r.stops.cut(events)
	if ended < 0 {
		return out, fault
	}
	if last := &events[len(events)-1]; r.done && last.Usage != nil && r.at[ended-1] == r.tokens {
		return append(out, *last), nil
	}
	r.done, r.early = true, true
	u := usageOf(0, r.at[ended-1], r.estimate)
	return append(out, streaming.Event{Kind: streaming.Usage, Usage: u}), nil
}

func (r *reader) one(b []byte) error {
	e := &r.event
	if !e.scan(b) {
		r.odd = r.odd || json.Valid(b)
		r.progress.AddMalformed()
		if r.malformed++; r.malformed >= maxMalformed {
			return &providers.Error{Kind: providers.Protocol, Target: r.name,
				Message: "the upstream sent " + strconv.Itoa(maxMalformed) + " events in a row that are none of TGI's"}
		}
		return nil
	}
	r.malformed, r.begun = 0, true
	if isSet(e.fault, b) {
		return inBody(r.name, b)
	}
	r.tokens++
	if !e.special {
		if r.scored {
			r.score(b)
		}
		r.batch.AddScored(streaming.Text, 0, e.text.Of(b), &r.scores)
	}
	if isSet(e.whole, b) {
		r.finish(b)
	}
	return nil
}

func isSet(v jsonscan.Span, b []byte) bool { return !v.Empty() && b[v.Start] != 'n' }

// finish tells the end of the answer and what it cost.
func (r *reader) finish(b []byte) {
	r.done = true
	d := &r.event.details
	r.batch.Add(streaming.Event{Kind: streaming.Stop, Stop: stopOf(d.reason.Of(b))})
	if u := usageOf(d.prompt, d.generated, r.estimate); u != nil {
		r.batch.Add(streaming.Event{Kind: streaming.Usage, Usage: u})
	}
}

// stopOf is a finish reason, as JSON text, in OpenAI's words. Without details there is none.
func stopOf(reason []byte) string {
	if string(reason) == `"length"` {
		return "length"
	}
	return "stop" // eos_token, stop_sequence
}

// usageOf is nil when nothing was counted. Older servers, and proxies that take headers
// away, leave the prompt uncounted: it is estimated then.
func usageOf(prompt, generated int64, estimate func() int64) *streaming.UsageData {
	if prompt == 0 && generated == 0 {
		return nil
	}
	estimated := prompt == 0
	if estimated {
		prompt = estimate()
	}
	return &streaming.UsageData{Prompt: prompt, Completion: generated, Total: prompt + generated, Estimated: estimated}
}

// end judges the end of the body before the last event.
func (r *reader) end(err error) error {
	if large := new(streaming.FrameTooLargeError); errors.As(err, &large) {
		return &providers.Error{Kind: providers.EventTooLarge, Target: r.name, Message: large.Error()}
	}
	if r.odd && !r.begun && errors.Is(err, io.EOF) {
		return notTGI(r.name, streamPath, "events that are none of it")
	}
	e := &providers.Error{Kind: providers.Truncated, Target: r.name, Message: "the upstream ended the answer before its last event (generated_text)"}
	if !errors.Is(err, io.EOF) {
		e.Message, e.Err = "the connection to the upstream broke before the answer was finished", err
	}
	return e
}

// scan reads one event and reports whether it is one of the server's.
func (e *event) scan(b []byte) bool {
	*e = event{}
	c := jsonscan.Cursor{B: b}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "token":
			e.known = true
			e.read(&c)
		case "generated_text":
			e.known = true
			e.whole = c.Skip()
		case "error":
			e.known = true
			e.fault = c.Skip()
		case "top_tokens":
			e.likely = c.Skip()
		case "details":
			e.details.scan(&c)
		default:
			c.Skip()
		}
	}
	return c.End() && e.known
}

// read reads a token.
func (e *event) read(c *jsonscan.Cursor) {
	if c.Peek() != '{' {
		c.Skip()
		return
	}
	e.token.Start = c.I
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "text":
			e.text = c.Skip()
		case "special":
			e.special = c.Peek() == 't'
			c.Skip()
		default:
			c.Skip()
		}
	}
	e.token.End = c.I
}

func (d *details) scan(c *jsonscan.Cursor) {
	if c.Peek() != '{' {
		c.Skip()
		return
	}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "finish_reason":
			d.reason = c.Skip()
		case "generated_tokens":
			d.generated = number(c.Skip().Of(c.B))
		case "input_length":
			d.prompt = number(c.Skip().Of(c.B))
		case "tokens":
			d.tokens = c.Skip()
		case "top_tokens":
			d.likely = c.Skip()
		default:
			c.Skip()
		}
	}
}

// number reads a count; 0 for what is none.
func number(v []byte) int64 {
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// relayWhole reads an answer that was not streamed; its prompt is counted in a header.
func (t target) relayWhole(r *request, promptTokens string, body io.Reader, yield yielder) bool {
	text, err := io.ReadAll(io.LimitReader(body, int64(t.opt.MaxAnswer)+1))
	switch {
	case err != nil:
		yield(nil, &providers.Error{Kind: providers.Truncated, Target: t.name, Message: "the connection to the upstream broke before the answer was finished", Err: err})
		return false
	case len(text) > t.opt.MaxAnswer:
		yield(nil, &providers.Error{Kind: providers.EventTooLarge, Target: t.name, Message: fmt.Sprintf("the upstream's answer is longer than the limit of %d bytes", t.opt.MaxAnswer)})
		return false
	}
	var e event
	switch known := e.scan(text); {
	case known && isSet(e.fault, text):
		yield(nil, inBody(t.name, text))
		return true
	case !known || !isSet(e.whole, text):
		yield(nil, notTGI(t.name, r.path, "something that is not its JSON"))
		return true
	}
	var batch deltas.Batch
	var scores deltas.Scores
	if r.scored {
		scores = e.details.score(text)
	}
	batch.AddScored(streaming.Text, 0, e.whole.Of(text), &scores)
	batch.Add(streaming.Event{Kind: streaming.Stop, Stop: stopOf(e.details.reason.Of(text))})
	events := batch.Events()
	if stops := r.stopper(); stops != nil {
		events, _ = stops.cut(events)
	}
	if u := usageOf(max(e.details.prompt, number([]byte(promptTokens))), e.details.generated, r.req.PromptEstimate); u != nil {
		events = append(events, streaming.Event{Kind: streaming.Usage, Usage: u})
	}
	yield(events, nil)
	return true
}
