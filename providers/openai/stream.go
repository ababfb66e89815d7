package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// maxMalformed is how many broken payloads in a row end an answer.
const maxMalformed = 3

// reader turns the frames of one streamed answer into batches.
type reader struct {
	*state
	target   string
	model    string
	progress *streaming.Progress
	batch    []streaming.Event
	thoughts *thoughts // nil: texts are not searched for blocks of them
	came     string    // the type of the answer
	some     bool      // something has come
	odd      bool      // a payload that is no chunk has come
	texts    bool      // events carry their Text beside Raw, for filters behind
}

// relayEvents reads a chat or completions stream and reports whether it came to
// its true end.
func (p *Provider) relayEvents(req *providers.Request, c *call, body io.Reader, prog *streaming.Progress, yield yielder) bool {
	frames := streaming.NewFrames(body, p.opt.MaxEvent)
	defer frames.Close()
	r := p.newReader(req, c, prog)
	for !r.done {
		got, err := frames.Next()
		if err != nil {
			if end := r.end(err); end != nil {
				yield(nil, end)
				return false
			}
			return true
		}
		r.some = true
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

// newReader stays out of relayEvents' frame, which every waiting stream keeps on its stack.
//
//go:noinline
func (p *Provider) newReader(req *providers.Request, c *call, prog *streaming.Progress) *reader {
	r := &reader{state: newState(req), target: p.name, model: req.Model, progress: prog, came: c.came, texts: c.filters()}
	if p.opt.Think != nil && req.Op == providers.Chat {
		r.thoughts = &thoughts{think: p.opt.Think}
	}
	return r
}

// read turns frames into a batch; the error stands behind the events before it.
func (r *reader) read(frames []streaming.Frame) ([]streaming.Event, error) {
	r.batch = r.batch[:0]
	for i := range frames {
		f := &frames[i]
		if string(f.Data) == "[DONE]" {
			return r.batch, r.finish()
		}
		if err := r.payload(f); err != nil {
			return r.batch, err
		}
	}
	return r.batch, nil
}

func (r *reader) payload(f *streaming.Frame) error {
	if len(bytes.TrimSpace(f.Data)) == 0 {
		return nil // some servers ping with an empty event
	}
	readable := r.look.scan(f.Data)
	if readable && (!isNull(r.look.fault, f.Data) || string(f.Name) == "error") {
		return inStreamError(r.target, f.Data)
	}
	if !readable || r.look.unusable {
		r.progress.AddMalformed()
		if r.malformed++; r.malformed >= maxMalformed {
			return tooManyMalformed(r.target)
		}
		return nil
	}
	r.malformed = 0
	if !r.look.listed && isNull(r.look.usage, f.Data) {
		if isFlatError(f.Data) {
			return inStreamError(r.target, f.Data)
		}
		r.odd = true
		r.progress.AddRepaired() // not a chunk at all; some servers slip in events of their own
		return nil
	}
	if r.look.choices > 1 {
		for _, one := range split(f.Data, r.look.choices) {
			r.look.scan(one)
			if err := r.chunk(one); err != nil {
				return err
			}
		}
		return nil
	}
	return r.chunk(f.Data)
}

// chunk makes the events of one payload with at most one choice.
func (r *reader) chunk(b []byte) error {
	if !r.known {
		if r.postpone(b) {
			return nil
		}
		r.begin(b)
	}
	l := &r.look
	if r.thoughts != nil && l.choices > 0 && !r.thoughts.over.has(l.index) {
		if b = r.think(b); b == nil {
			return nil
		}
	}
	stop := r.stop(b)
	if stop == "abort" || stop == "error" {
		return abandoned(r.target, stop)
	}
	usage, noUsage := parseUsage(l.usage.Of(b)), isNull(l.usage, b)
	text := ""
	if r.texts && l.kind == streaming.Text {
		text, _ = jsonscan.Unquote(textOf(b).Of(b))
	}
	raw := r.present(b, noUsage)
	r.note(stop)
	ev := streaming.Event{Kind: l.kind, Index: l.index, Text: text, Stop: stop, Raw: raw, Dialect: r.dialect(), Size: l.size}
	switch {
	case l.choices == 0:
		ev.Index = -1
	case ev.Kind == streaming.Lifecycle && stop != "":
		ev.Kind = streaming.Stop
	}
	switch {
	case usage != nil && l.choices == 0:
		ev.Kind, ev.Usage = streaming.Usage, usage
	case usage != nil:
		r.batch = append(r.batch, ev)
		ev = streaming.Event{Kind: streaming.Usage, Usage: usage}
	case l.choices == 0 && l.others == 0:
		return nil // it says nothing: no choice, and a usage that is null or all zero
	}
	r.batch = append(r.batch, ev)
	return nil
}

// present makes what the caller gets of a payload: a new text when it had to be
// mended, else the payload as it came but for what this caller did not ask for.
func (r *reader) present(b []byte, noUsage bool) []byte {
	if !r.clean(b) {
		r.progress.AddRepaired()
		return r.mend(nil, b)
	}
	if r.renamed(b) {
		b = r.rename(b)
	}
	if noUsage && !r.look.usage.Empty() && !r.wantsUsage {
		b = r.withoutUsage(b)
	}
	return b
}

// maxEarly bounds the payloads kept back for an identity.
const maxEarly = 8

// postpone keeps a payload that names neither the answer nor a choice (Azure's
// filter results come first) until one does, so that it does not make up the
// identity of what follows.
func (r *reader) postpone(b []byte) bool {
	if r.look.choices > 0 || isSet(r.look.id, b) || !isNull(r.look.usage, b) || len(r.early) >= maxEarly {
		return false
	}
	r.early = append(r.early, bytes.Clone(b))
	return true
}

// begin opens the answer with its identity and what was kept back for it.
func (r *reader) begin(b []byte) {
	r.batch = append(r.batch, streaming.Event{Kind: streaming.Meta, Meta: r.identify(b, r.model)})
	for _, e := range r.early {
		r.look.scan(e)
		r.batch = append(r.batch, streaming.Event{Kind: streaming.Lifecycle, Index: -1, Raw: r.mend(nil, e), Dialect: r.dialect()})
		r.progress.AddRepaired()
	}
	r.early = nil
	r.look.scan(b)
}

// finish judges [DONE].
func (r *reader) finish() error {
	if what := r.stranger(); what != "" {
		return protocolError(r.target, what)
	}
	if !r.complete() {
		return r.fail(providers.Truncated, "the upstream ended the stream without a finish_reason")
	}
	r.done = true
	return nil
}

// end judges the end of the body; nil is a true end.
func (r *reader) end(err error) error {
	if large := new(streaming.FrameTooLargeError); errors.As(err, &large) {
		return &providers.Error{Kind: providers.EventTooLarge, Target: r.target, Message: large.Error()}
	}
	// A clean end with fewer choices than asked for is legal, for some servers ignore
	// n; a broken connection may have taken the others with it.
	if r.complete() && (errors.Is(err, io.EOF) || r.nbegun >= r.wanted) {
		return nil // whatever broke afterwards broke behind a whole answer
	}
	if what := r.stranger(); what != "" && errors.Is(err, io.EOF) {
		return protocolError(r.target, what)
	}
	e := r.fail(providers.Truncated, "the upstream ended the stream before the answer was finished")
	if !errors.Is(err, io.EOF) {
		e.Message = "the connection to the upstream broke before the answer was finished"
		e.Err = err
	}
	return e
}

// stranger says what came when it was no part of an answer. Servers that stream under
// another type are read all the same; "" is an answer that has begun, or nothing at all.
func (r *reader) stranger() string {
	kind, _, _ := strings.Cut(r.came, ";")
	switch {
	case !r.some || r.known || len(r.early) > 0:
		return ""
	case r.odd:
		return "events that are no chunks of an answer"
	case kind != "" && !strings.EqualFold(strings.TrimSpace(kind), "text/event-stream"):
		return "an answer of type " + kind + " instead of a stream"
	default:
		return ""
	}
}

// abandoned is an answer that a server gave up, as vLLM and SGLang tell it.
func abandoned(target, stop string) *providers.Error {
	return &providers.Error{Kind: providers.UpstreamFailed, Target: target,
		Message: fmt.Sprintf("the upstream ended the answer with finish_reason %q", stop)}
}

func tooManyMalformed(target string) *providers.Error {
	return &providers.Error{Kind: providers.Protocol, Target: target,
		Message: fmt.Sprintf("the upstream sent %d malformed events in a row", maxMalformed)}
}

func (r *reader) fail(kind providers.ErrorKind, format string, args ...any) *providers.Error {
	return &providers.Error{Kind: kind, Target: r.target, Message: fmt.Sprintf(format, args...)}
}

// parseUsage reads a usage object; all zero and null count as none.
func parseUsage(b []byte) *streaming.UsageData {
	if len(b) == 0 || b[0] != '{' {
		return nil
	}
	u := &streaming.UsageData{}
	c := jsonscan.Cursor{B: b}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "prompt_tokens", "input_tokens":
			u.Prompt = number(&c)
		case "completion_tokens", "output_tokens":
			u.Completion = number(&c)
		case "total_tokens":
			u.Total = number(&c)
		case "prompt_tokens_details", "input_tokens_details":
			u.Cached = detail(&c, "cached_tokens")
		case "completion_tokens_details", "output_tokens_details":
			u.Reasoning = detail(&c, "reasoning_tokens")
		default:
			c.Skip()
		}
	}
	if c.Bad || u.Prompt == 0 && u.Completion == 0 && u.Total == 0 {
		return nil
	}
	if u.Total == 0 {
		u.Total = u.Prompt + u.Completion
	}
	u.Raw = bytes.Clone(b)
	return u
}

func number(c *jsonscan.Cursor) (n int64) {
	for _, ch := range c.Skip().Of(c.B) {
		if ch < '0' || ch > '9' || n > 1<<50 {
			return max(n, 0)
		}
		n = 10*n + int64(ch-'0')
	}
	return n
}

func detail(c *jsonscan.Cursor, name string) (n int64) {
	if c.Peek() != '{' {
		c.Skip()
		return 0
	}
	for c.Object(); c.Key(); {
		if string(c.Name) == name {
			n = number(c)
		} else {
			c.Skip()
		}
	}
	return n
}
