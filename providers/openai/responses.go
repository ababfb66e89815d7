package openai

import (
	"bytes"
	"io"
	"slices"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// relayResponses passes the events of a Responses stream on as they are and only
// looks at their type: a stream without a terminal event was cut, and one that ends
// in response.failed or error has failed, also where the client is told so in the
// upstream's own event. The model's name is replaced where another is to be presented.
func (p *Provider) relayResponses(req *providers.Request, body io.Reader, prog *streaming.Progress, yield yielder) bool {
	frames := streaming.NewFrames(body, p.opt.MaxEvent)
	defer frames.Close()
	r := &responses{target: p.name, progress: prog}
	if req.PresentAs != "" {
		r.model = jsonscan.AppendQuote(nil, req.PresentAs)
	}
	for {
		got, err := frames.Next()
		if err != nil {
			yield(nil, (&reader{state: &state{}, target: p.name}).end(err))
			return false
		}
		if !yield(r.read(got), nil) {
			return false
		}
		if r.fault != nil {
			yield(nil, r.fault)
			return r.malformed < maxMalformed
		}
		if r.ended {
			return true
		}
	}
}

// responses is what one Responses stream has told so far.
type responses struct {
	target    string
	model     []byte // JSON string to present; nil: the upstream's own
	progress  *streaming.Progress
	batch     []streaming.Event
	malformed int // in a row
	ended     bool
	fault     error
}

// read makes a batch; nothing behind the terminal event is looked at.
func (r *responses) read(frames []streaming.Frame) []streaming.Event {
	r.batch = r.batch[:0]
	for i := range frames {
		f := &frames[i]
		if r.ended || r.fault != nil || string(f.Data) == "[DONE]" || len(bytes.TrimSpace(f.Data)) == 0 {
			continue
		}
		ev, kind, ok := r.event(f)
		if !ok {
			r.progress.AddMalformed()
			if r.malformed++; r.malformed >= maxMalformed {
				r.fault = tooManyMalformed(r.target)
			}
			continue
		}
		r.malformed = 0
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

// event makes the event of one frame; not ok when its data is no JSON object.
func (r *responses) event(f *streaming.Frame) (ev streaming.Event, kind string, ok bool) {
	ev = streaming.Event{Kind: streaming.Lifecycle, Raw: f.Data, Dialect: streaming.Responses, Name: string(f.Name)}
	kind = ev.Name
	var model jsonscan.Span
	c := jsonscan.Cursor{B: f.Data, Limit: 1 << 12} // a response holds the schemas of its tools
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "type":
			if s, ok := jsonscan.Unquote(c.Skip().Of(f.Data)); ok {
				kind = s
			}
		case "response":
			ev.Usage, model = responsesBody(&c)
		case "delta":
			v := c.Skip()
			ev.Kind, ev.Size = streaming.Text, v.End-v.Start
		default:
			c.Skip()
		}
	}
	if r.model != nil && isSet(model, f.Data) {
		ev.Raw = slices.Concat(f.Data[:model.Start], r.model, f.Data[model.End:])
	}
	return ev, kind, c.End()
}

func responsesBody(c *jsonscan.Cursor) (u *streaming.UsageData, model jsonscan.Span) {
	if c.Peek() != '{' {
		c.Skip()
		return nil, model
	}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "usage":
			u = parseUsage(c.Skip().Of(c.B))
		case "model":
			model = c.Skip()
		default:
			c.Skip()
		}
	}
	return u, model
}

var _ providers.Lister = (*Provider)(nil)
