// Package dialect knows how the formats of OpenAI's clients look on the wire: the
// stream chunks and bodies of chat and legacy completions and the events of the
// Responses API. Each constructor gives a streaming.Encoder for one answer.
//
// Payloads that arrive in the client's own dialect leave as they came; everything
// else is built from the fields of the events. No encoder keeps a byte slice of an
// event after the call, and each is used by one goroutine at a time.
package dialect

import (
	"bytes"
	"strconv"

	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// Options describe one answer to its encoder.
type Options struct {
	// ID, Created (unix seconds) and Model name the answer until a Meta event or the
	// first payload in the client's own dialect brings the upstream's.
	ID      string
	Created int64
	Model   string
	// WantsUsage says that the client asked for usage in its stream. A body that is
	// not streamed has it always.
	WantsUsage bool
	// Choices is how many choices were asked for; 0 means 1.
	Choices int
	// thoughts is how reasoning is presented, as a Meta event says.
	thoughts thoughts
	// Error returns the JSON object that stands inside the error envelope,
	// {"message":…,"type":…,"param":…,"code":…}. Nil means one plain server error.
	Error func(error) []byte
}

const plainError = `{"message":"The answer could not be completed.","type":"server_error","param":null,"code":null}`

// appendError adds the inner error object on one line.
func (o *Options) appendError(dst []byte, err error) []byte {
	if o.Error != nil {
		if b := bytes.TrimSpace(o.Error(err)); len(b) > 0 {
			return appendLine(dst, b)
		}
	}
	return append(dst, plainError...)
}

// describe takes over what a Meta event says.
func (o *Options) describe(m *streaming.MetaData) {
	if m == nil {
		return
	}
	if m.ID != "" {
		o.ID = m.ID
	}
	if m.Created != 0 {
		o.Created = m.Created
	}
	if m.Model != "" {
		o.Model = m.Model
	}
	o.thoughts = thoughtsOf(m.Header, o.thoughts)
}

// appendHead adds the members that every object of an answer begins with, in
// OpenAI's order, up to the opening bracket of choices.
func (o *Options) appendHead(dst []byte, object string) []byte {
	return appendHead(dst, object, jsonscan.AppendQuote(nil, o.ID),
		strconv.AppendInt(nil, o.Created, 10), jsonscan.AppendQuote(nil, o.Model))
}

// appendHead takes id, created and model as JSON text.
func appendHead(dst []byte, object string, id, created, model []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = append(dst, id...)
	dst = append(dst, `,"object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = append(dst, created...)
	dst = append(dst, `,"model":`...)
	dst = append(dst, model...)
	return append(dst, `,"choices":[`...)
}

// appendLine adds JSON text as one line. Line ends in valid JSON are white space
// between tokens, and on the wire of server-sent events they would cut the payload.
func appendLine(dst, payload []byte) []byte {
	at := len(dst)
	dst = append(dst, payload...)
	if bytes.IndexByte(payload, '\n') < 0 && bytes.IndexByte(payload, '\r') < 0 {
		return dst
	}
	for i, ch := range dst[at:] {
		if ch == '\n' || ch == '\r' {
			dst[at+i] = ' '
		}
	}
	return dst
}
