package kserve

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/kit/ask"
	"sluice/streaming"
)

// write answers a chat or completions request with the text that the model writes.
func (t target) write(ctx context.Context, req *providers.Request, m *Model, prog *streaming.Progress, yield yielder) error {
	q := t.newQuestion(req, m)
	q.progress = prog
	asked := ask.Read(req, kind, t.opt.Drop)
	if err := q.readPrompt(asked); err != nil {
		return err
	}
	stops, err := asked.Stop()
	if err != nil {
		return err
	}
	if err := q.takeParams(asked); err != nil {
		return err
	}
	if err := asked.Rest(); err != nil {
		return err
	}
	for batch, err := range q.filtered(q.text(ctx, asked), stops) {
		if err != nil {
			return err
		}
		if !yield(batch, nil) {
			return errLeft
		}
	}
	return nil
}

// filtered ends the text where the caller or the format of the chat ends it.
func (q *question) filtered(src streaming.Stream, stops []string) streaming.Stream {
	if f := q.model.Template; f != nil && q.req.Op == providers.Chat {
		src = kit.TrimEnd(src, f.EOS)
		stops = slices.Concat(stops, f.Stops)
	}
	if q.model.Think != nil && q.req.Op == providers.Chat {
		src = q.model.Think.Filter(src)
	}
	return kit.Stops{Sequences: stops, Choices: 1}.Filter(src)
}

// readPrompt makes the prompt; a model that looks at images gets the newest ones too.
func (q *question) readPrompt(asked *ask.Params) error {
	if q.req.Op == providers.Completions || q.model.Template == nil {
		err := q.readSubjects(asked)
		if err == nil && len(q.subjects) > 1 {
			return q.tooMany()
		}
		return err
	}
	messages, err := asked.Messages()
	if err != nil {
		return err
	}
	var turns []kit.Message
	for i := range messages {
		m := &messages[i]
		if m.Role == "tool" || len(m.Calls) > 0 {
			return asked.CannotRead(m.Param, "a tool call or its result")
		}
		turns = append(turns, kit.Message{Role: m.Role, Text: m.Text()})
	}
	prompt, err := q.model.Template.Prompt(turns)
	if err != nil {
		return &providers.Error{Kind: providers.Internal, Target: q.name, Message: "the chat template could not be used", Err: err}
	}
	if err := q.fromMessages(asked, messages); err != nil {
		return err
	}
	if len(q.subjects) > 1 {
		return q.tooMany()
	}
	q.subjects[0].text = prompt
	return nil
}

func (q *question) tooMany() error {
	return providers.Invalid(q.subjects[1].param, fmt.Sprintf("The model %q is asked about one image at a time.", q.req.Model))
}

// text asks the model and gives its text as events.
func (q *question) text(ctx context.Context, asked *ask.Params) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		w := &writer{question: q, yield: yield}
		w.batch = append(w.batch, q.meta(q.req, asked.Header()))
		run := q.via.generate
		if !q.model.Decoupled {
			run = func(ctx context.Context, c *call, take func(*answer) bool) error {
				a, err := q.via.infer(ctx, c)
				if err == nil {
					take(a)
				}
				return err
			}
		}
		err := run(ctx, q.call(ctx, q.subjects), w.take)
		if err == nil {
			err = w.err
		}
		if err != nil && !w.left {
			yield(nil, err)
		}
	}
}

// writer turns answers into events.
type writer struct {
	*question
	yield yielder
	batch []streaming.Event
	tail  []byte // a character whose end has not come
	seen  int    // bytes told, of a text that comes cumulatively
	stop  string
	usage streaming.UsageData
	left  bool // the caller stopped ranging
	err   error
}

// take passes on one answer, with those that have come together with it, and reports
// whether more is wanted.
func (w *writer) take(a *answer) bool {
	for i := range w.model.Outputs {
		o := &w.model.Outputs[i]
		t := a.find(o.Name)
		if t == nil {
			continue
		}
		if w.err = w.output(o, t); w.err != nil {
			break
		}
	}
	if a.final && w.err == nil {
		w.finish()
	}
	if len(w.batch) > 0 && (!a.more || w.err != nil) {
		w.left = !w.yield(w.batch, nil)
		w.batch = w.batch[:0]
	}
	return w.err == nil && !w.left
}

func (w *writer) output(o *Output, t *tensor) error {
	switch o.Meaning {
	case AsText:
		if t.datatype != bytesType {
			return w.unfit(o.Name, fmt.Errorf("a text is BYTES, not %s", t.datatype))
		}
		for rest := t.data; len(rest) > 0; {
			var s []byte
			s, rest, _ = cutString(rest) // check has been through them
			w.piece(s)
		}
	case AsFinishReason:
		if t.datatype != bytesType {
			return nil // null, while the text goes on
		}
		for rest := t.data; len(rest) > 0; {
			var s []byte
			s, rest, _ = cutString(rest)
			switch string(s) {
			case "", "None", "null":
			default:
				w.stop = string(s)
			}
		}
	case AsPromptTokens:
		w.usage.Prompt = count(t, w.usage.Prompt)
	case AsOutputTokens:
		w.usage.Completion = count(t, w.usage.Completion)
	}
	return nil
}

func count(t *tensor, before int64) int64 {
	if !t.numeric() || t.len() == 0 {
		return before
	}
	return max(before, int64(t.at(0)))
}

// piece passes on text in whole characters.
func (w *writer) piece(s []byte) {
	if w.model.Cumulative {
		all := len(s)
		s = s[min(w.seen, all):]
		w.seen = max(w.seen, all)
	}
	if len(w.tail) > 0 {
		s = append(w.tail, s...)
		w.tail = nil
	}
	whole := wholeRunes(s)
	if whole < len(s) {
		w.tail = append([]byte(nil), s[whole:]...)
	}
	if whole > 0 {
		w.batch = append(w.batch, streaming.Event{Kind: streaming.Text, Text: strings.ToValidUTF8(string(s[:whole]), "\uFFFD")})
	}
}

// wholeRunes is how much of s does not end within a character.
func wholeRunes(s []byte) int {
	for back := 1; back <= min(utf8.UTFMax-1, len(s)); back++ {
		if at := len(s) - back; utf8.RuneStart(s[at]) {
			if !utf8.FullRune(s[at:]) {
				return at
			}
			break
		}
	}
	return len(s)
}

// finish ends the answer, truthfully: a generator that gave up has not finished, nor
// has one that tells why it ends and did not.
func (w *writer) finish() {
	if len(w.tail) > 0 {
		w.batch = append(w.batch, streaming.Event{Kind: streaming.Text, Text: "\uFFFD"})
	}
	switch w.stop {
	case "abort", "error", "cancelled":
		w.err = &providers.Error{Kind: providers.UpstreamFailed, Target: w.name, Message: fmt.Sprintf("the upstream ended the answer with the finish reason %q", w.stop)}
		return
	case "":
		if w.model.Decoupled && w.model.output(AsFinishReason) != nil {
			w.err = &providers.Error{Kind: providers.Truncated, Target: w.name, Message: "the upstream ended the stream without a finish reason"}
			return
		}
	}
	w.batch = append(w.batch, streaming.Event{Kind: streaming.Stop, Stop: finishReason(w.stop)})
	if u := w.usage; u.Prompt+u.Completion > 0 {
		u.Total = u.Prompt + u.Completion
		w.batch = append(w.batch, streaming.Event{Kind: streaming.Usage, Usage: &u})
	}
}

// finishReason is OpenAI's word for why a text ended.
func finishReason(theirs string) string {
	switch theirs {
	case "length", "max_tokens", "max_length":
		return "length"
	case "content_filter":
		return theirs
	default:
		return "stop"
	}
}
