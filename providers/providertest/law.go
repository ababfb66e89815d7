package providertest

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"sluice/providers"
	"sluice/streaming"
)

// law judges a stream by what readers of streams rely on. Payloads that are passed on
// in the caller's dialect are judged by their adapter's own tests.
type law struct {
	faults  []string
	failed  bool
	meta    bool
	choices map[int]*choice
	body    bool // a Whole or Bytes came
	stops   []string
	usage   *streaming.UsageData
	unicode bool
	tools   int // calls
	thought bool
}

type choice struct {
	stopped bool
	calls   []int
}

func (l *law) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

func (l *law) batch(batch []streaming.Event, err error) {
	if l.failed {
		l.fault("something came behind the error")
	}
	if err != nil {
		l.failed = true
		if len(batch) > 0 {
			l.fault("an error came beside events")
		}
	}
}

// reasons are OpenAI's words for the end of a choice.
var reasons = []string{"stop", "length", "tool_calls", "content_filter", "function_call"}

func (l *law) event(ev *streaming.Event) {
	if ev.Meta != nil {
		l.meta = true
	}
	if ev.Usage != nil {
		l.useUsage(ev.Usage)
	}
	if !ev.Kind.Commits() {
		return
	}
	if ev.Kind == streaming.Whole || ev.Kind == streaming.Bytes {
		l.body = true
		return
	}
	if !l.meta {
		l.fault("content came before any Meta")
	}
	if l.choices == nil {
		l.choices = map[int]*choice{}
	}
	c := l.choices[ev.Index]
	if c == nil {
		c = &choice{}
		l.choices[ev.Index] = c
	}
	l.note(ev)
	if ev.Raw == nil {
		l.typed(c, ev)
	}
	if ev.Kind == streaming.Stop || ev.Stop != "" {
		c.stopped = true
		l.stops = append(l.stops, ev.Stop)
	}
}

// note remembers what demands ask for.
func (l *law) note(ev *streaming.Event) {
	text := ev.Text + string(ev.Raw)
	l.unicode = l.unicode || len(text) != utf8.RuneCountInString(text)
	l.thought = l.thought || ev.Kind == streaming.Reasoning
	if ev.Kind == streaming.ToolCall && (ev.Tool == nil || ev.Tool.Name != "") {
		l.tools++
	}
}

func (l *law) typed(c *choice, ev *streaming.Event) {
	switch {
	case ev.Index < 0:
		l.fault("content belongs to choice %d", ev.Index)
	case c.stopped:
		l.fault("choice %d goes on behind its Stop", ev.Index)
	case !utf8.ValidString(ev.Text):
		l.fault("%q is not UTF-8", ev.Text)
	case (ev.Kind == streaming.Text || ev.Kind == streaming.Reasoning) && ev.Text == "":
		l.fault("an empty text commits an answer in which nothing has been said")
	case ev.Kind == streaming.Stop && !slices.Contains(reasons, ev.Stop):
		l.fault("%q is no finish reason of OpenAI's", ev.Stop)
	case ev.Logprobs != nil && (len(ev.Logprobs.Tokens) == 0 || ev.Kind == streaming.ToolCall):
		l.fault("log probabilities of nothing")
	case ev.Kind == streaming.ToolCall && ev.Tool == nil:
		l.fault("a tool call without its Tool")
	}
	if t := ev.Tool; t != nil {
		known := slices.Contains(c.calls, t.Index)
		switch {
		case !known && t.Name == "":
			l.fault("call %d begins without a name", t.Index)
		case known && (t.Name != "" || t.ID != ""):
			l.fault("call %d tells its name or id again", t.Index)
		case !known && t.Index != len(c.calls):
			l.fault("call %d follows %d calls", t.Index, len(c.calls))
		}
		if !known {
			c.calls = append(c.calls, t.Index)
		}
	}
}

func (l *law) useUsage(u *streaming.UsageData) {
	l.usage = u
	if u.Prompt < 0 || u.Completion < 0 || u.Raw == nil && u.Total != u.Prompt+u.Completion {
		l.fault("usage %d + %d = %d", u.Prompt, u.Completion, u.Total)
	}
}

// end judges how the stream ended, unless its caller had gone.
func (l *law) end(err error) {
	if err == nil {
		for i, c := range l.choices {
			if !c.stopped {
				l.fault("complete, but choice %d has no Stop", i)
			}
		}
		if len(l.choices) == 0 && !l.body {
			l.fault("complete, but nothing came")
		}
		return
	}
	e := providers.AsError(err)
	switch {
	case e == nil:
		l.fault("an error that is no *providers.Error: %v", err)
	case e.Message == "":
		l.fault("an error without a message, of kind %d", e.Kind)
	case e.Kind == providers.Internal:
		l.fault("an internal error: %v", err)
	}
}
