package router

import (
	"bytes"

	"sluice/providers"
	"sluice/streaming"
)

// join puts the rest of an answer behind what a client has: nothing that it has seen comes
// again, and all is under the names of the one answer that it reads.
type join struct {
	*told
	req    *providers.Request  // for the rest
	before streaming.UsageData // cost of the call that broke
	held   []byte              // the beginning of the rest, while it may be the told text again
	past   bool                // it is known what the rest begins with
	deltas int64               // of the rest
	bytes  int
	usage  *streaming.UsageData // what the second upstream told last
	stop   string
	batch  []streaming.Event
}

// pass takes a batch of the rest.
func (j *join) pass(batch []streaming.Event, _ error) bool {
	j.batch = j.batch[:0]
	for i := range batch {
		j.take(&batch[i])
	}
	return j.yield(j.batch, nil)
}

func (j *join) take(ev *streaming.Event) {
	if ev.Usage != nil {
		u := *ev.Usage
		u.Raw = nil
		j.usage = &u
	}
	if ev.Index > 0 {
		return
	}
	if ev.Kind == streaming.Text {
		text := ev.Text
		if len(ev.Raw) > 0 {
			text, _ = textOf(ev)
		}
		j.deltas++
		j.bytes += len(text)
		j.add(text)
	}
	if ev.Kind.Commits() && (ev.Stop != "" || ev.Kind == streaming.Stop) {
		j.stop = orStop(ev.Stop)
	}
}

// add tells a text once it is known not to be what was told before. Servers that begin anew
// instead of going on, and those that repeat the beginning, send all of it first.
func (j *join) add(text string) {
	if j.past {
		j.say(text)
		return
	}
	j.held = append(j.held, text...)
	switch {
	case len(j.held) < len(j.text) && bytes.HasPrefix(j.text, j.held):
		return
	case bytes.HasPrefix(j.held, j.text):
		text = string(j.held[len(j.text):])
	default:
		text = string(j.held)
	}
	j.past, j.held = true, nil
	j.say(text)
}

func (j *join) say(text string) {
	if text != "" {
		j.batch = append(j.batch, streaming.Event{Kind: streaming.Text, Text: text})
	}
}

// end tells the true end: that there was a break stands in it.
func (j *join) end() bool {
	u := j.cost()
	return j.yield([]streaming.Event{
		{Kind: streaming.Stop, Stop: orStop(j.stop), Meta: &streaming.MetaData{Continued: true}},
		{Kind: streaming.Usage, Index: -1, Usage: &u},
	}, nil)
}

// cost is that of both calls: the second one has read the prompt and the beginning again.
func (j *join) cost() streaming.UsageData {
	if j.usage != nil {
		return sum(&j.before, j.usage)
	}
	return sum(&j.before, &streaming.UsageData{Prompt: j.req.PromptEstimate(), Completion: tokens(j.deltas, j.bytes), Estimated: true})
}

func orStop(reason string) string {
	if reason == "" {
		return "stop"
	}
	return reason
}
