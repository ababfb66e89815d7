package dialect

import (
	"fmt"
	"strconv"

	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// form is what differs between the chunks of two dialects.
type form struct {
	own     streaming.Dialect
	object  string
	roles   bool   // a choice begins with a chunk that gives its role
	nothing string // the members of a choice that say nothing new
}

// chunks encodes a stream of chunks: chat and legacy completions.
type chunks struct {
	form
	framing streaming.Framing
	opts    Options
	// head is how every chunk of ours begins. It is fixed with the first chunk, so
	// that one answer has one id, created and model.
	head     []byte
	choices  []choice
	finished int
	usage    keptUsage
	ended    bool
	peeks    int // payloads in which the names of the answer were looked for
}

// maxPeeks is how many first payloads may lack the id: some upstreams begin with a
// filter result under no name.
const maxPeeks = 4

// choice is how far one choice has come.
type choice struct {
	begun, done bool
	thinking    bool             // a block of reasoning is open inside the text
	answering   bool             // a payload with text and no reasoning has come
	tools       map[int]struct{} // calls whose id and name the client has
	length      int              // of the text so far, in characters; of legacy completions only
}

// maxChoices bounds the choices that are followed one by one: 128 by the API, times
// the prompts of one legacy request.
const maxChoices = 4096

func newChunks(f streaming.Framing, o Options, form form) *chunks {
	o.Choices = max(o.Choices, 1)
	return &chunks{form: form, framing: f, opts: o, choices: make([]choice, min(o.Choices, maxChoices))}
}

// Append sends a payload of the client's dialect as it is and builds the others.
// Usage is kept for the end, where it stands once. The error says that an event has
// no form in this dialect.
func (s *chunks) Append(dst []byte, ev *streaming.Event) ([]byte, error) {
	if s.ended {
		return dst, nil
	}
	if ev.Kind == streaming.Usage || ev.Usage != nil {
		s.usage.keep(ev, s.own)
		if ev.Kind == streaming.Usage {
			return dst, nil
		}
	}
	if s.head == nil {
		s.opts.describe(ev.Meta)
	}
	if ev.Dialect == s.own && len(ev.Raw) > 0 && ev.Kind != streaming.Whole && ev.Kind != streaming.Bytes {
		return s.appendRaw(dst, ev), nil
	}
	return s.appendTyped(dst, ev)
}

// appendRaw is the clean path: a copy, and what a later heartbeat must know.
func (s *chunks) appendRaw(dst []byte, ev *streaming.Event) []byte {
	if s.head == nil {
		s.nameAfter(ev.Raw)
	}
	raw := ev.Raw
	if c := s.choice(ev.Index); c != nil {
		if s.opts.thoughts != apart && s.roles {
			dst, raw = s.presentRaw(dst, c, ev)
		}
		c.begun = true
		if ev.Stop != "" || ev.Kind == streaming.Stop {
			s.finish(c)
		}
	}
	dst = append(dst, s.framing.Before...)
	dst = appendLine(dst, raw)
	return append(dst, s.framing.After...)
}

// nameAfter takes id, created and model from the first chunk that has them.
func (s *chunks) nameAfter(raw []byte) {
	id, model, created := []byte(nil), jsonscan.AppendQuote(nil, s.opts.Model), strconv.AppendInt(nil, s.opts.Created, 10)
	c := jsonscan.Cursor{B: raw}
	for c.Object(); c.Key(); {
		name, value := string(c.Name), c.Skip().Of(raw)
		switch {
		case len(value) == 0 || string(value) == `""`:
		case name == "id" && value[0] == '"':
			id = value
		case name == "model" && value[0] == '"':
			model = value
		case name == "created" && value[0]-'1' < 9:
			created = value
		}
	}
	if s.peeks++; id != nil || s.peeks == maxPeeks {
		if id == nil {
			id = jsonscan.AppendQuote(nil, s.opts.ID)
		}
		s.head = appendHead(nil, s.object, id, created, model)
	}
}

// choice returns the state of one choice, or nil for an index that is not followed.
func (s *chunks) choice(i int) *choice {
	if i < 0 || i >= maxChoices {
		return nil
	}
	for i >= len(s.choices) {
		s.choices = append(s.choices, choice{})
	}
	return &s.choices[i]
}

func (s *chunks) finish(c *choice) {
	if !c.done {
		c.done = true
		s.finished++
	}
}

// appendTyped builds the chunks for an event from its fields.
func (s *chunks) appendTyped(dst []byte, ev *streaming.Event) ([]byte, error) {
	c := s.choice(ev.Index)
	if err := s.check(ev); err != nil {
		return dst, err
	}
	if ev.Kind == streaming.Meta || c == nil || c.done {
		return dst, nil
	}
	if s.roles && !c.begun {
		c.begun = true
		dst = s.open(dst, ev.Index)
		dst = append(dst, `"delta":{"role":"assistant","content":"","refusal":null}`...)
		dst = s.close(dst, nil, "")
	}
	dst = s.endThought(dst, c, ev)
	if ev.Text != "" && (ev.Kind == streaming.Text || ev.Kind == streaming.Reasoning && (s.roles || s.opts.thoughts == inline)) {
		c.begun = true
		dst = s.open(dst, ev.Index)
		probs := s.probsOf(c, ev)
		if ev.Kind == streaming.Reasoning {
			dst = s.appendThought(dst, c, ev.Text)
		} else {
			dst = s.appendContent(dst, c, ev.Text)
		}
		dst = s.close(dst, probs, "")
	}
	if ev.Tool != nil {
		dst = s.open(dst, ev.Index)
		dst = s.appendTool(dst, c, ev)
		dst = s.close(dst, nil, "")
	}
	if ev.Stop != "" || ev.Kind == streaming.Stop {
		dst = s.appendStop(dst, c, ev)
	}
	return dst, nil
}

func (s *chunks) appendStop(dst []byte, c *choice, ev *streaming.Event) []byte {
	s.finish(c)
	c.begun = true
	var probs []byte
	if ev.Kind == streaming.Stop {
		probs = s.probsOf(c, ev)
	}
	dst = s.open(dst, ev.Index)
	dst = append(dst, s.nothing...)
	dst = s.close(dst, probs, orStop(ev.Stop))
	if ev.Meta != nil && ev.Meta.Continued {
		dst = append(dst[:len(dst)-len(s.framing.After)-len("}")], continued...)
		dst = append(append(dst, '}'), s.framing.After...)
	}
	return dst
}

// probsOf is what stands under logprobs beside what an event brings; nil: null. They are
// those of the text that clients see, as OpenAI has them: not of reasoning beside it.
func (s *chunks) probsOf(c *choice, ev *streaming.Event) []byte {
	switch {
	case ev.Logprobs == nil || ev.Kind == streaming.Reasoning && s.opts.thoughts != inline:
		return nil
	case s.roles:
		return appendLogprobs(nil, score(nil, ev.Text, 0, ev.Logprobs))
	default:
		before := c.length
		if ev.Kind == streaming.Reasoning && !c.thinking {
			before += len(thoughtOpen)
		}
		return appendTextLogprobs(nil, score(nil, ev.Text, 0, ev.Logprobs), ev.Text, before)
	}
}

// continued stands in the chunk that ends an answer of which two targets have told a part.
const continued = `,"x_sluice":{"continued":true}`

func orStop(reason string) string {
	if reason == "" {
		return "stop"
	}
	return reason
}

// check refuses what the client would miss without knowing.
func (s *chunks) check(ev *streaming.Event) error {
	switch {
	case ev.Kind.Commits() && s.choice(ev.Index) == nil:
		return fmt.Errorf("a stream of %s cannot carry choice %d", s.object, ev.Index)
	case ev.Kind == streaming.Whole || ev.Kind == streaming.Bytes:
		return fmt.Errorf("a stream of %s cannot carry an answer that is not streamed", s.object)
	case ev.Tool != nil && !s.roles:
		return fmt.Errorf("a stream of %s cannot carry a tool call", s.object)
	case ev.Kind.Commits() && len(ev.Raw) > 0 && ev.Text == "" && ev.Tool == nil && ev.Kind != streaming.Stop:
		return fmt.Errorf("a stream of %s got content of another dialect that was not translated", s.object)
	default:
		return nil
	}
}

// open begins a frame up to and with the index of its one choice.
func (s *chunks) open(dst []byte, index int) []byte {
	if s.head == nil {
		s.head = s.opts.appendHead(nil, s.object)
	}
	dst = append(dst, s.framing.Before...)
	dst = append(dst, s.head...)
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	return append(dst, ',')
}

// close ends a frame that open began; probs nil and stop "" are null.
func (s *chunks) close(dst, probs []byte, stop string) []byte {
	if probs == nil {
		dst = append(dst, `,"logprobs":null,"finish_reason":`...)
	} else {
		dst = append(append(append(dst, `,"logprobs":`...), probs...), `,"finish_reason":`...)
	}
	if stop == "" {
		dst = append(dst, "null"...)
	} else {
		dst = jsonscan.AppendQuote(dst, stop)
	}
	dst = append(dst, `}]`...)
	if s.opts.WantsUsage {
		dst = append(dst, `,"usage":null`...)
	}
	dst = append(dst, '}')
	return append(dst, s.framing.After...)
}

// AppendHeartbeat adds a comment while there is no choice to speak for and one is
// still to come, else an empty chunk of the first choice that runs. After the last
// finish it adds nothing.
func (s *chunks) AppendHeartbeat(dst []byte) []byte {
	if s.ended {
		return dst
	}
	for i := range s.choices {
		if c := &s.choices[i]; c.begun && !c.done {
			dst = s.open(dst, i)
			dst = append(dst, s.nothing...)
			return s.close(dst, nil, "")
		}
	}
	if s.finished < s.opts.Choices {
		return append(dst, s.framing.Comment...)
	}
	return dst
}

// AppendEnd adds usage, if it was asked for and came, and the terminator; or the
// error, alone and first in its payload, which is the only shape that every client
// takes for a failure.
func (s *chunks) AppendEnd(dst []byte, err error) []byte {
	if s.ended {
		return dst
	}
	s.ended = true
	if err != nil {
		dst = append(dst, s.framing.Before...)
		dst = append(dst, `{"error":`...)
		dst = s.opts.appendError(dst, err)
		dst = append(dst, '}')
		return append(dst, s.framing.After...)
	}
	if s.opts.WantsUsage && s.usage.seen {
		dst = s.appendUsageChunk(dst)
	}
	return append(dst, s.framing.Done...)
}

func (s *chunks) appendUsageChunk(dst []byte) []byte {
	dst = append(dst, s.framing.Before...)
	if len(s.usage.chunk) > 0 {
		dst = appendLine(dst, s.usage.chunk)
		return append(dst, s.framing.After...)
	}
	if s.head == nil {
		s.head = s.opts.appendHead(nil, s.object)
	}
	dst = append(dst, s.head...)
	dst = append(dst, `],"usage":`...)
	dst = appendUsage(dst, &s.usage.data)
	dst = append(dst, '}')
	return append(dst, s.framing.After...)
}
