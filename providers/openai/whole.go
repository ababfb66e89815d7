package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	openaitypes "github.com/sashabaranov/go-openai"

	"sluice/providers"
	"sluice/providers/upstream"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// keptWhole bounds what a pooled buffer may hold.
const keptWhole = 64 << 10

var wholeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// readWhole reads to the end, or one byte beyond limit, into buf, which may grow.
func readWhole(r io.Reader, buf []byte, limit int) ([]byte, error) {
	for len(buf) <= limit {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, max(len(buf), 4<<10))
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), limit+1)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// relayWhole reads an answer that is one JSON body. A caller who asked for a
// stream gets its content as events, and so does a filter.
func (p *Provider) relayWhole(req *providers.Request, c *call, resp *upstream.Answer, yield yielder) bool {
	buf, kept := wholeBuffers.Get().(*[]byte), false
	text, err := readWhole(resp.Body, *buf, p.opt.MaxAnswer)
	defer func() {
		if !kept && cap(text) <= keptWhole {
			*buf = text[:0]
			wholeBuffers.Put(buf)
		}
	}()
	switch {
	case err != nil:
		yield(nil, &providers.Error{Kind: providers.Truncated, Target: p.name, Message: "the connection to the upstream broke before the answer was finished", Err: err})
		return false
	case len(text) > p.opt.MaxAnswer:
		yield(nil, &providers.Error{Kind: providers.EventTooLarge, Target: p.name, Message: fmt.Sprintf("the upstream's answer is longer than the limit of %d bytes", p.opt.MaxAnswer)})
		return false
	}
	if err := p.checkWhole(resp, text); err != nil {
		yield(nil, err)
		return true
	}
	if req.Stream && req.Op == providers.Responses {
		yield(nil, p.protocolError("one JSON body instead of a stream"))
		return true
	}
	seen := lookAtWhole(text, p.opt.Think)
	if req.Op == providers.Chat || req.Op == providers.Completions {
		switch {
		case !seen.listed:
			yield(nil, p.protocolError("JSON without choices"))
			return true
		case seen.stop == "abort" || seen.stop == "error":
			yield(nil, abandoned(p.name, seen.stop))
			return true
		}
	}
	if req.Stream || c.filters() {
		events, err := p.eventsOf(req, seen.splice(text, ""))
		if err != nil {
			yield(nil, err)
			return true
		}
		c.usage, kept = seen.usage, true // which lies in text
		yield(events, nil)
		return true
	}
	yield([]streaming.Event{wholeEvent(req, text, &seen)}, nil)
	return true
}

// checkWhole finds the failures that come with status 200.
func (p *Provider) checkWhole(resp *upstream.Answer, text []byte) error {
	c := jsonscan.Cursor{B: text, Limit: 1 << 12}
	var fault jsonscan.Span
	for c.Object(); c.Key(); {
		if string(c.Name) == "error" {
			fault = c.Skip()
		} else {
			c.Skip()
		}
	}
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return p.protocolError("an empty body")
	case resp.IsType("text/html") || bytes.HasPrefix(bytes.TrimSpace(text), []byte("<")):
		return p.protocolError("an HTML page instead of JSON")
	case resp.IsType("text/event-stream"):
		return p.protocolError("a stream although none was asked for")
	case !c.End():
		return p.protocolError("something that is not a JSON object")
	case !isNull(fault, text):
		return inStreamError(p.name, text)
	}
	return nil
}

func wholeEvent(req *providers.Request, text []byte, seen *wholeLook) streaming.Event {
	ev := streaming.Event{Kind: streaming.Whole, Raw: text, Dialect: streaming.Opaque, Usage: seen.usage}
	if seen.usage == nil {
		ev.Size = seen.size
	}
	ev.Raw = seen.splice(text, req.PresentAs)
	return ev
}

// eventsOf serves a stream from an upstream that ignored the wish for one.
func (p *Provider) eventsOf(req *providers.Request, text []byte) ([]streaming.Event, error) {
	if req.Op == providers.Completions {
		var a openaitypes.CompletionResponse
		if err := json.Unmarshal(text, &a); err != nil || len(a.Choices) == 0 {
			return nil, p.protocolError("JSON that is no completion")
		}
		events := head(a.ID, a.Created, a.Model, req.PresentAs)
		for _, c := range a.Choices {
			events = append(events, streaming.Event{Kind: streaming.Text, Index: c.Index, Text: c.Text},
				streaming.Event{Kind: streaming.Stop, Index: c.Index, Stop: orStop(c.FinishReason)})
		}
		return appendUsage(events, text), nil
	}
	var a openaitypes.ChatCompletionResponse
	if err := json.Unmarshal(text, &a); err != nil || len(a.Choices) == 0 {
		return nil, p.protocolError("JSON that is no chat completion")
	}
	events := head(a.ID, a.Created, a.Model, req.PresentAs)
	for _, c := range a.Choices {
		events = append(events, messageEvents(&c)...)
	}
	return appendUsage(events, text), nil
}

func head(id string, created int64, model, presentAs string) []streaming.Event {
	if presentAs != "" {
		model = presentAs
	}
	return []streaming.Event{{Kind: streaming.Meta, Meta: &streaming.MetaData{ID: id, Created: created, Model: model}}}
}

func messageEvents(c *openaitypes.ChatCompletionChoice) []streaming.Event {
	var events []streaming.Event
	m := &c.Message
	if m.ReasoningContent != "" {
		events = append(events, streaming.Event{Kind: streaming.Reasoning, Index: c.Index, Text: m.ReasoningContent})
	}
	if m.Content != "" {
		events = append(events, streaming.Event{Kind: streaming.Text, Index: c.Index, Text: m.Content})
	}
	for i, t := range m.ToolCalls {
		events = append(events, streaming.Event{Kind: streaming.ToolCall, Index: c.Index,
			Tool: &streaming.ToolDelta{Index: i, ID: t.ID, Name: t.Function.Name, Args: t.Function.Arguments}})
	}
	return append(events, streaming.Event{Kind: streaming.Stop, Index: c.Index, Stop: orStop(string(c.FinishReason))})
}

func orStop(reason string) string {
	if reason == "" {
		return "stop"
	}
	return reason
}

func appendUsage(events []streaming.Event, text []byte) []streaming.Event {
	c := jsonscan.Cursor{B: text, Limit: 1 << 12}
	for c.Object(); c.Key(); {
		if string(c.Name) != "usage" {
			c.Skip()
		} else if u := parseUsage(c.Skip().Of(text)); u != nil {
			events = append(events, streaming.Event{Kind: streaming.Usage, Usage: u})
		}
	}
	return events
}
