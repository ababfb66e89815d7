package openai

import (
	"io"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// relayResponses passes the events of a Responses stream on as they are and only
// looks at their type: a stream without a terminal event was cut.
func (p *Provider) relayResponses(body io.Reader, yield yielder) bool {
	frames := streaming.NewFrames(body, p.opt.MaxEvent)
	defer frames.Close()
	var batch []streaming.Event
	ended := false
	for {
		got, err := frames.Next()
		if err != nil {
			return p.endResponses(ended, err, yield)
		}
		batch = batch[:0]
		for i := range got {
			if string(got[i].Data) == "[DONE]" {
				continue
			}
			ev := responsesEvent(&got[i])
			ended = ended || ev.Kind == streaming.Stop
			batch = append(batch, ev)
		}
		if !yield(batch, nil) {
			return false
		}
		if ended {
			return true
		}
	}
}

func (p *Provider) endResponses(ended bool, err error, yield yielder) bool {
	if ended {
		return true
	}
	r := &reader{state: &state{}, target: p.opt.Name}
	yield(nil, r.end(err))
	return false
}

func responsesEvent(f *streaming.Frame) streaming.Event {
	ev := streaming.Event{Kind: streaming.Text, Raw: f.Data, Dialect: streaming.Responses, Name: string(f.Name)}
	var kind string
	c := jsonscan.Cursor{B: f.Data}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "type":
			kind, _ = jsonscan.Unquote(c.Skip().Of(f.Data))
		case "response":
			ev.Usage = responsesUsage(&c)
		case "delta":
			v := c.Skip()
			ev.Size = v.End - v.Start
		default:
			c.Skip()
		}
	}
	switch kind {
	case "response.created", "response.queued", "response.in_progress", "keepalive":
		ev.Kind = streaming.Lifecycle
	case "response.completed", "response.incomplete", "response.failed", "error":
		ev.Kind, ev.Stop = streaming.Stop, kind
	case "":
	default:
		if ev.Size == 0 {
			ev.Kind = streaming.Lifecycle
		}
	}
	return ev
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
