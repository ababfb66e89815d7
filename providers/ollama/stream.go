package ollama

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"sluice/providers"
	"sluice/providers/kit/deltas"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// maxMalformed is how many broken lines in a row end an answer.
const maxMalformed = 3

// reader turns the lines of one answer into batches.
type reader struct {
	target
	req      *providers.Request
	ask      *request
	progress *streaming.Progress
	batch    deltas.Batch
	line     line
	scores   deltas.Scores

	begun     bool // some line was Ollama's
	calls     int  // told so far
	malformed int  // in a row
	done      bool
}

// line is what one line says. Spans are of that line.
type line struct {
	b                   []byte
	text, thinking      jsonscan.Span
	calls, reason       jsonscan.Span
	fault, logprobs     jsonscan.Span
	done, known, listed bool
	counts              counts
}

// counts are the metrics of the last line. Those that are zero are left out by Ollama.
type counts struct {
	prompt, eval                         int64
	total, load, promptDuration, evalFor int64 // nanoseconds
}

// relay reads a stream and reports whether it came to its true end.
func (t target) relay(req *providers.Request, a *request, body io.Reader, prog *streaming.Progress, yield yielder) bool {
	lines := streaming.NewLines(body, t.opt.MaxEvent)
	defer lines.Close()
	r := newReader(t, req, a, prog)
	for !r.done {
		got, err := lines.Next()
		if err != nil {
			yield(nil, r.end(err))
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

// newReader stays out of relay's frame, which every waiting stream keeps on its stack.
//
//go:noinline
func newReader(t target, req *providers.Request, a *request, prog *streaming.Progress) *reader {
	return &reader{target: t, req: req, ask: a, progress: prog}
}

// read turns lines into a batch; the error stands behind the events before it.
func (r *reader) read(lines [][]byte) ([]streaming.Event, error) {
	r.batch.Reset()
	for _, b := range lines {
		if err := r.one(b); err != nil || r.done {
			return r.batch.Events(), err
		}
	}
	return r.batch.Events(), nil
}

func (r *reader) one(b []byte) error {
	l := &r.line
	if !l.scan(b) {
		r.progress.AddMalformed()
		if r.malformed++; r.malformed >= maxMalformed {
			return &providers.Error{Kind: providers.Protocol, Target: r.name,
				Message: "the upstream sent " + strconv.Itoa(maxMalformed) + " lines in a row that are none of Ollama's"}
		}
		return nil
	}
	r.malformed, r.begun = 0, true
	if !isNull(l.fault.Of(b)) {
		return r.inBody(b)
	}
	if !l.logprobs.Empty() {
		r.score()
	}
	r.batch.AddScored(streaming.Reasoning, 0, l.thinking.Of(b), &r.scores)
	r.batch.AddScored(streaming.Text, 0, l.text.Of(b), &r.scores)
	if l.listed {
		r.addCalls()
	}
	if l.done {
		r.finish()
	}
	return nil
}

// tokenWords are the server's names for what it tells of a token, which are OpenAI's.
var tokenWords = deltas.Words{Token: "token", Logprob: "logprob", Bytes: "bytes", Top: "top_logprobs"}

// score reads the log probabilities of a line.
//
//go:noinline
func (r *reader) score() {
	v := r.line.logprobs
	c := jsonscan.Cursor{B: r.line.b[:v.End], I: v.Start, Limit: maxDepth}
	r.scores.Add(tokenWords.ReadTokens(nil, &c))
}

// addCalls tells the tool calls of a line, which come whole. Their order in the answer
// is their index, for older servers number those of each line anew.
func (r *reader) addCalls() {
	c := jsonscan.Cursor{B: r.line.b[:r.line.calls.End], I: r.line.calls.Start, Limit: maxDepth}
	for c.Array(); c.Elem(); {
		call := readCall(&c)
		if call.Name == "" || r.ask.oneCall && r.calls > 0 {
			continue
		}
		call.Index = r.calls
		r.calls++
		r.batch.Add(streaming.Event{Kind: streaming.ToolCall, Tool: &call})
	}
}

func readCall(c *jsonscan.Cursor) (call streaming.ToolDelta) {
	if c.Peek() != '{' {
		c.Skip()
		return call
	}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "id":
			call.ID, _ = jsonscan.Unquote(c.Skip().Of(c.B))
		case "function":
			readFunction(c, &call)
		default:
			c.Skip()
		}
	}
	return call
}

func readFunction(c *jsonscan.Cursor, call *streaming.ToolDelta) {
	if c.Peek() != '{' {
		c.Skip()
		return
	}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "name":
			call.Name, _ = jsonscan.Unquote(c.Skip().Of(c.B))
		case "arguments":
			v := c.Skip().Of(c.B)
			call.Args = string(v)
			if s, ok := jsonscan.Unquote(v); ok {
				call.Args = s
			}
		default:
			c.Skip()
		}
	}
	if call.Args == "" || call.Args == "null" {
		call.Args = "{}"
	}
}

// finish tells the end of the answer and what it cost.
func (r *reader) finish() {
	r.done = true
	stop := "stop"
	reason, _ := jsonscan.Unquote(r.line.reason.Of(r.line.b))
	switch {
	case reason == "length":
		stop = "length"
	case r.calls > 0:
		stop = "tool_calls"
	}
	r.batch.Add(streaming.Event{Kind: streaming.Stop, Stop: stop})
	if u := r.usage(); u != nil {
		r.batch.Add(streaming.Event{Kind: streaming.Usage, Usage: u})
	}
}

// usage is what the last line counts; nil when it counts nothing. Ollama leaves out the
// count of a prompt that was in its cache: then it is estimated.
func (r *reader) usage() *streaming.UsageData {
	n := &r.line.counts
	if n.prompt == 0 && n.eval == 0 {
		return nil
	}
	u := &streaming.UsageData{Prompt: n.prompt, Completion: n.eval}
	if u.Prompt == 0 {
		u.Prompt, u.Estimated = r.req.PromptEstimate(), true
	}
	u.Total = u.Prompt + u.Completion
	u.Raw = n.appendUsage(nil, u)
	return u
}

// appendUsage adds OpenAI's counts, and Ollama's durations under its own names and in
// its own unit, nanoseconds.
func (n *counts) appendUsage(dst []byte, u *streaming.UsageData) []byte {
	sep := byte('{')
	for _, m := range []struct {
		name  string
		value int64
	}{
		{"prompt_tokens", u.Prompt}, {"completion_tokens", u.Completion}, {"total_tokens", u.Total},
		{"total_duration", n.total}, {"load_duration", n.load},
		{"prompt_eval_duration", n.promptDuration}, {"eval_duration", n.evalFor},
	} {
		dst = append(dst, sep, '"')
		dst = append(dst, m.name...)
		dst = append(dst, '"', ':')
		dst = strconv.AppendInt(dst, m.value, 10)
		sep = ','
	}
	return append(dst, '}')
}

// end judges the end of the body before the last line.
func (r *reader) end(err error) error {
	if large := new(streaming.FrameTooLargeError); errors.As(err, &large) {
		return &providers.Error{Kind: providers.EventTooLarge, Target: r.name, Message: large.Error()}
	}
	if !r.begun && errors.Is(err, io.EOF) && (r.malformed > 0 || strings.HasPrefix(r.ask.came, "text/plain")) {
		return r.notOllama(r.ask.path, "something that is no line of it")
	}
	e := &providers.Error{Kind: providers.Truncated, Target: r.name, Message: `the upstream ended the answer before its last line ("done":true)`}
	if !errors.Is(err, io.EOF) {
		e.Message, e.Err = "the connection to the upstream broke before the answer was finished", err
	}
	return e
}
