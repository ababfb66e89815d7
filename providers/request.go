package providers

import (
	"bytes"
	"slices"

	"sluice/streaming/jsonscan"
)

// Op is what a request asks for.
type Op uint8

const (
	// Chat is POST /chat/completions.
	Chat Op = iota
	// Completions is POST /completions.
	Completions
	// Embeddings is POST /embeddings.
	Embeddings
	// Moderations is POST /moderations.
	Moderations
	// Responses is POST /responses, passed on unread but for its end.
	Responses
	// Passthrough is any other route of an OpenAI-compatible upstream; body and answer are passed on unread.
	Passthrough
)

// String returns the operation as metrics and logs name it.
func (o Op) String() string {
	return [...]string{"chat", "completions", "embeddings", "moderations", "responses", "passthrough"}[o]
}

// streams reports whether an answer may come as a stream; elsewhere "stream" is a
// member like any other, which the upstream judges.
func (o Op) streams() bool { return o != Embeddings && o != Moderations }

// Request is one call as the caller made it. It is built once by Parse and then
// only read, by any goroutine.
type Request struct {
	ID          string
	Op          Op
	Path        string // below an upstream's base URL, e.g. "/chat/completions"
	ContentType string
	Body        []byte // immutable, as received
	Model       string // as the caller named it
	Stream      bool   // asked for, and the operation has streams
	// WantsUsage is set when the caller asked for usage in its stream.
	WantsUsage bool
	// Reasoning is set when the caller asked the model to think.
	Reasoning bool
	// Choices is how many answers were asked for, at least 1.
	Choices int
	// Strict is set while another target may serve the request as it stands: adapters then
	// refuse what they would otherwise leave out.
	Strict bool
	// PresentAs replaces the model name in the answer when it is not empty.
	PresentAs string
	// Hints are for routing, and what became of them there.
	Hints Hints
	Route Route

	model, streamOptions, includeUsage jsonscan.Span
	unnamed                            bool // the body has no model, which its path has named
	asks                               asks
}

// Asks is the name that leads to those who answer: the model's, unless a rule has led
// elsewhere.
func (r *Request) Asks() string {
	if r.Route.Model != "" {
		return r.Route.Model
	}
	return r.Model
}

// With returns a shallow copy that asks for another model name in the answer.
func (r *Request) With(presentAs string) *Request {
	c := *r
	c.PresentAs = presentAs
	return &c
}

// Strictly returns a shallow copy of which adapters leave nothing out.
func (r *Request) Strictly() *Request {
	c := *r
	c.Strict = true
	return &c
}

// Rewrite returns the body with the upstream's model name and, when askUsage is set
// on a stream, with the wish for usage. Every other byte stays as it was received;
// without a change the received body itself is returned, so callers must not write to it.
func (r *Request) Rewrite(model string, askUsage bool) []byte {
	var edits []edit
	if model != r.Model && !r.model.Empty() {
		value := []byte(model)
		if !r.multipart() {
			value = jsonscan.AppendQuote(nil, model)
		}
		edits = append(edits, edit{r.model, value})
	}
	if r.unnamed {
		edits = append(edits, r.modelEdit(model))
	}
	if askUsage && r.Stream && !r.WantsUsage && !r.multipart() {
		edits = append(edits, r.usageEdit())
	}
	return splice(r.Body, edits)
}

// modelEdit adds the model to an object without one.
func (r *Request) modelEdit(model string) edit {
	at := bytes.IndexByte(r.Body, '{') + 1
	member := append([]byte(`"model":`), jsonscan.AppendQuote(nil, model)...)
	if rest := bytes.TrimLeft(r.Body[at:], " \t\r\n"); len(rest) > 0 && rest[0] != '}' {
		member = append(member, ',')
	}
	return edit{jsonscan.Span{Start: at, End: at}, member}
}

func (r *Request) usageEdit() edit {
	switch {
	case !r.includeUsage.Empty():
		return edit{r.includeUsage, []byte("true")}
	case r.streamOptions.Empty():
		at := bytes.IndexByte(r.Body, '{') + 1
		return edit{jsonscan.Span{Start: at, End: at}, []byte(`"stream_options":{"include_usage":true},`)}
	case r.Body[r.streamOptions.Start] != '{':
		return edit{r.streamOptions, []byte(`{"include_usage":true}`)}
	}
	at := r.streamOptions.Start + 1
	insert := `"include_usage":true`
	if len(bytes.TrimSpace(r.Body[at:r.streamOptions.End-1])) > 0 {
		insert += ","
	}
	return edit{jsonscan.Span{Start: at, End: at}, []byte(insert)}
}

// edit replaces a part of a text.
type edit struct {
	at   jsonscan.Span
	with []byte
}

func splice(text []byte, edits []edit) []byte {
	if len(edits) == 0 {
		return text
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return a.at.Start - b.at.Start })
	size := len(text)
	for _, e := range edits {
		size += len(e.with)
	}
	out := make([]byte, 0, size)
	from := 0
	for _, e := range edits {
		out = append(out, text[from:e.at.Start]...)
		out = append(out, e.with...)
		from = e.at.End
	}
	return append(out, text[from:]...)
}
