package gemini

import (
	"sluice/providers"
	"sluice/streaming"
)

// stops are OpenAI's finish reasons for this API's.
var stops = map[string]string{
	"STOP": "stop", "OTHER": "stop", "FINISH_REASON_UNSPECIFIED": "stop",
	"MAX_TOKENS": "length", "CONTINUATION": "length",
	"SAFETY": contentFilter, "RECITATION": contentFilter, "BLOCKLIST": contentFilter, "PROHIBITED_CONTENT": contentFilter,
	"SPII": contentFilter, "LANGUAGE": contentFilter, "IMAGE_SAFETY": contentFilter,
	"IMAGE_PROHIBITED_CONTENT": contentFilter, "IMAGE_RECITATION": contentFilter,
}

const contentFilter = "content_filter"

// failures are finish reasons of an answer that the model could not bring into its form.
var failures = map[string]bool{
	"MALFORMED_FUNCTION_CALL": true, "UNEXPECTED_TOOL_CALL": true, "TOO_MANY_TOOL_CALLS": true, "NO_IMAGE": true, "IMAGE_OTHER": true,
}

// stopped notes a finish reason; the last one counts.
func (r *reader) stopped(o *choice, v *candidate) {
	word := text(v.finish)
	if word == "" {
		return
	}
	o.stop, o.failed = stops[word], nil
	switch {
	case failures[word]:
		o.stop = "stop"
		o.failed = &providers.Error{Kind: providers.UpstreamFailed, Target: r.name, Type: word,
			Message: "the model gave no usable answer: " + word}
		if why := text(v.message); why != "" {
			o.failed.Message += ": " + why
		}
	case o.stop == "":
		r.progress.AddRepaired()
		o.stop = "stop"
	}
}

// finish judges the end of the body and tells how every candidate ended, and what the
// answer cost. A prompt that was refused ends as a filtered answer of nothing.
func (r *reader) finish() error {
	if len(r.choices) == 0 && r.blocked {
		r.choices = make([]choice, max(r.ask.req.Choices, 1))
		for i := range r.choices {
			r.choices[i] = choice{begun: true, stop: contentFilter}
		}
	}
	begun := 0
	for i := range r.choices {
		o := &r.choices[i]
		switch {
		case !o.begun:
			continue
		case o.stop == "":
			return r.unfinished()
		case o.failed != nil && !r.told():
			return o.failed // nothing has been seen yet: it may be tried again
		}
		begun++
		if o.failed != nil {
			r.progress.AddRepaired()
		}
		if o.calls > 0 && o.stop == "stop" {
			o.stop = "tool_calls"
		}
		r.batch.Add(streaming.Event{Kind: streaming.Stop, Index: i, Stop: o.stop, Logprobs: o.scores.Rest()})
	}
	if begun == 0 {
		return r.unfinished()
	}
	if r.counts != (counts{}) {
		r.batch.Add(streaming.Event{Kind: streaming.Usage, Usage: r.counts.usage()})
	}
	return nil
}

// told reports whether the caller has some content.
func (r *reader) told() bool {
	for i := range r.choices {
		if r.choices[i].some {
			return true
		}
	}
	return false
}
