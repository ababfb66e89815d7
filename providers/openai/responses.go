package openai

import (
	"io"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// relayResponses passes the events of a Responses stream on as they are and only
// looks at their type: a stream without a terminal event was cut, and one that ends
// in response.failed or error has failed, also where the client is told so in the
// upstream's own event.
func (p *Provider) relayResponses(body io.Reader, yield yielder) bool {
	frames := streaming.NewFrames(body, p.opt.MaxEvent)
	defer frames.Close()
	r := &responses{target: p.opt.Name}
	for {
		got, err := frames.Next()
		if err != nil {
			yield(nil, (&reader{state: &state{}, target: p.opt.Name}).end(err))
			return false
		}
		if !yield(r.read(got), nil) {
			return false
		}
		if r.fault != nil {
			yield(nil, r.fault)
			return true
		}
		if r.ended {
			return true
		}
	}
}

// responses is what one Responses stream has told so far.
type responses struct {
	target string
	batch  []streaming.Event
	ended  bool
	fault  error
}

// read makes a batch; nothing behind the terminal event is looked at.
func (r *responses) read(frames []streaming.Frame) []streaming.Event {
	r.batch = r.batch[:0]
	for i := range frames {
		f := &frames[i]
		if r.ended || r.fault != nil || string(f.Data) == "[DONE]" {
			continue
		}
		ev, kind := responsesEvent(f)
		switch kind {
		case "response.completed", "response.incomplete":
			r.ended = true
			ev.Kind, ev.Stop = streaming.Stop, kind
		case "response.failed", "error":
			ev.Kind = streaming.Lifecycle
			r.fault = responsesFault(r.target, f.Data)
		}
		r.batch = append(r.batch, ev)
	}
	return r.batch
}

// responsesFault finds the words of a failure: in the event, or in its response.
func responsesFault(target string, data []byte) error {
	c := jsonscan.Cursor{B: data}
	for c.Object(); c.Key(); {
		if string(c.Name) != "response" {
			c.Skip()
		} else if v := c.Skip(); !v.Empty() {
			data = v.Of(data)
			break
		}
	}
	e := inStreamError(target, data)
	if e.Type == "error" { // the event's own type, in the flat form
		e.Type = ""
	}
	return e
}

func responsesEvent(f *streaming.Frame) (ev streaming.Event, kind string) {
	ev = streaming.Event{Kind: streaming.Lifecycle, Raw: f.Data, Dialect: streaming.Responses, Name: string(f.Name)}
	kind = ev.Name
	c := jsonscan.Cursor{B: f.Data}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "type":
			if s, ok := jsonscan.Unquote(c.Skip().Of(f.Data)); ok {
				kind = s
			}
		case "response":
			ev.Usage = responsesUsage(&c)
		case "delta":
			v := c.Skip()
			ev.Kind, ev.Size = streaming.Text, v.End-v.Start
		default:
			c.Skip()
		}
	}
	return ev, kind
}

func responsesUsage(c *jsonscan.Cursor) (u *streaming.UsageData) {
	if c.Peek() != '{' {
		c.Skip()
		return nil
	}
	for c.Object(); c.Key(); {
		if string(c.Name) == "usage" {
			u = parseUsage(c.Skip().Of(c.B))
		} else {
			c.Skip()
		}
	}
	return u
}

var _ providers.Lister = (*Provider)(nil)
